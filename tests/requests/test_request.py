"""Mistakes in a request that no model could mend are found before there is one."""

import dataclasses

import numpy as np
import pytest
from PIL import Image

from ldm_jax import knobs
from ldm_jax.inference.sizes import Sizes
from ldm_jax.requests import inputs
from ldm_jax.requests.check import check, read_prompts, sizes
from ldm_jax.requests.request import Request


@pytest.fixture
def files(tmp_path):
    """An image of 16 x 24, masks of its size and of another, and what only looks like an image."""
    pixels = np.arange(16 * 24 * 3, dtype=np.uint8).reshape(16, 24, 3)
    Image.fromarray(pixels).save(tmp_path / 'image.png')
    for name, size in (('mask', (24, 16)), ('other', (16, 16))):
        Image.new('L', size, 255).save(tmp_path / f'{name}.png')
    (tmp_path / 'broken.png').write_bytes(b'no image')
    (tmp_path / 'layout.json').write_text('[[1, 0, 0, "x", 1]]')
    return {path.stem: str(path) for path in tmp_path.iterdir()}


def everything(request):
    check(request)
    inputs.read(request)


@pytest.mark.parametrize(
    ('fields', 'message'),
    [
        (dict(sampler='dpmp_2m'), r"No sampler 'dpmp_2m'; the nearest are .*'dpmpp_2m'"),
        (dict(grid='karas'), r"No grid 'karas'; the nearest are .*'Karras'"),
        (dict(sampler='ddim', eta=0.5, num_steps=0), r'num_steps must be in \[1, 1024\]; got 0'),
        (
            dict(sampler='DPM++ 2M', eta=0.5),
            r"The sampler 'DPM\+\+ 2M' has no eta. These have one: ddim, .*euler_ancestral",
        ),
        (dict(width=500), r'500 x 500.*multiples of 8.*nearest that is: 496 x 496'),
        (dict(width=512, height=513), r'513 x 512.*nearest that is: 512 x 512'),
        (dict(strength=0.0), r'strength must be in \(0, 1\]; got 0\.0'),
        (dict(strength=1.5), r'strength must be in \(0, 1\]; got 1\.5'),
        (dict(init_image='nowhere.png'), r"No image at 'nowhere\.png'"),
        (dict(init_image='broken'), 'is not an image that Pillow can read'),
        (dict(init_image='image', mask='other'), r'is 16 x 16 and the image 16 x 24'),
        (dict(mask='mask'), r'give the image too \(init_image\)'),
        (dict(resize='stretch'), "No resize 'stretch'; have"),
        (dict(mask_content='noise'), "No masked content 'noise'; have"),
        (dict(hires_upscaler='R-ESRGAN 4x+'), r"No upscaler 'R-ESRGAN 4x\+'; have .*'lanczos'.*'Latent'"),
        (dict(hires_scale=2.0, hires_size=(64, 64)), 'both say how large the second pass is: give one'),
        (dict(hires_size=(64, 60)), r'60 x 64.*nearest that is: 64 x 64'),
        (dict(sampler='zzz'), "No sampler 'zzz'; tools/sample.py --list_samplers lists them"),
        (dict(variation_seed=3), 'towards a variation_seed by a variation_strength: give both'),
        (dict(variation_seed=3, variation_strength=1.5), r'variation_strength must be in \[0, 1\]; got 1.5'),
        (dict(noise_source='cuda'), "No noise source 'cuda'; have"),
        (dict(num_images=0), 'num_images must be at least 1; got 0'),
        (dict(prompt=('a', 'b (c:1.2.3)')), "weight '1.2.3' in the prompt"),
        (dict(prompt=('a AND b',), weak_model='x', autoguidance_scale=2.0), 'several prompts at once'),
        (dict(weak_model='x'), 'by an autoguidance_scale: give both'),
        (dict(autoguidance_scale=2.0), 'by an autoguidance_scale: give both'),
        (dict(weak_model='x', autoguidance_scale=2.0, refiner='y'), 'neither with a refiner'),
        (dict(weak_model='x', autoguidance_scale=2.0, perturbed_scale=3.0), 'give one of them'),
        (dict(weak_model='x', autoguidance_scale=2.0, negative_prompt='y'), 'give a guidance_scale too'),
        (dict(guidance_scale=float('nan')), 'guidance_scale must be a finite number; got nan'),
        (dict(apg_eta=0.5), "of the guidance_rule 'projected'"),
        (dict(apg_threshold=0.0, guidance_rule='projected'), r'apg_threshold must be in \(0, inf\); got 0.0'),
        (dict(cfg_zero_share=1.0), r'cfg_zero_share must be in \(0, 1\); got 1.0'),
        (dict(percentile=1.5), r'percentile must be in \(0, 1\]; got 1.5'),
        (dict(original_size=(0, 64)), r'original must be \(H, W\) of at least one pixel; got \(64, 0\)'),
        (dict(layout='nowhere.json'), "No layout at 'nowhere.json'"),
        (dict(layout='layout'), r'is not a layout, which is JSON'),
    ],
)
def test_a_mistake_is_named_with_the_way_out(files, fields, message):
    fields = {
        name: files.get(value, value) if isinstance(value, str) else value for name, value in fields.items()
    }
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        everything(knobs.make(Request, fields))


def test_a_request_that_is_right_passes(files):
    everything(Request(('a red cat',), init_image=files['image'], mask=files['mask'], width=64, strength=0.5))


def test_images_of_a_prompt_have_seeds_that_follow_each_other():
    asked = Request(('a', 'b'), num_images=3, seed=7)
    assert asked.seeds == [7, 8, 9, 7, 8, 9]
    assert asked.repeated(asked.rows) == ['a'] * 3 + ['b'] * 3
    assert Request(labels=(3, 5), num_images=2).repeated((3, 5)) == [3, 3, 5, 5]
    assert Request(width=64).size == (64, 64)
    assert Request(width=64, height=32).size == (32, 64)
    assert Request().size is None


def test_sizes_are_width_times_height_and_the_unwanted_ones_are_those_of_the_wanted():
    assert sizes(Request()) == (None, None)
    asked = Request(original_size=(64, 32), crop_top_left=(1, 2))
    wanted = Sizes(original=(32, 64), crop=(2, 1))
    assert sizes(asked) == (wanted, None)
    other = dataclasses.replace(asked, negative_target_size=(8, 16), negative_crop_top_left=(0, 0))
    assert sizes(other) == (wanted, Sizes(original=(32, 64), target=(16, 8)))


def test_prompts_stand_one_on_each_line(tmp_path):
    path = tmp_path / 'prompts.txt'
    path.write_text('\ufeffa red cat\n\n  zwei Äpfel \n', 'utf-8')
    assert read_prompts(str(path)) == ('a red cat', 'zwei Äpfel')
    path.write_text('\n \n')
    with pytest.raises(ValueError, match='has no prompts'):
        read_prompts(str(path))
    path.write_bytes(b'\xff\xfe\x00')
    with pytest.raises(ValueError, match='UTF-8'):
        read_prompts(str(path))
    with pytest.raises(FileNotFoundError, match='No file of prompts at'):
        read_prompts(str(tmp_path / 'none.txt'))


def test_only_line_feeds_divide_prompts(tmp_path):
    path = tmp_path / 'prompts.txt'
    prompts = ('a\u2028red cat', 'a\x0cdog,\x85sitting', 'a\x0bhat')
    for encoding in ('utf-8', 'utf-8-sig', 'utf-16'):
        path.write_bytes('\r\n'.join(prompts).encode(encoding))
        assert read_prompts(str(path)) == prompts
    path.write_bytes('un café noir'.encode('cp1252'))
    with pytest.raises(ValueError, match=r'prompts\.txt is not UTF-8: .* at byte 6'):
        read_prompts(str(path))
