"""Settings in images: ours come back as they were, and the web UI's mean here what they mean there."""

import dataclasses
import json

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from ldm_jax import knobs
from ldm_jax.images import save_png, to_uint8
from ldm_jax.inference.settings import Sampling
from ldm_jax.requests import infotext, png_settings
from ldm_jax.requests.files import load_image
from ldm_jax.requests.options import ModelOptions
from ldm_jax.requests.request import Request

TEXTS = st.one_of(
    st.text(st.characters(exclude_categories=['Cs'])),
    st.text('"\'\\,:()[]{}<>|\n\r\t \x0b\x85\u2028a1'),
    st.lists(
        st.sampled_from(['Steps: 1, Seed: 2, Size: 3x4', 'Negative prompt: x', 'Template: a', ' b: c', ''])
    ).map('\n'.join),
)
WEB_UI = """a (red:1.2) cat, on a table
with two lines
Negative prompt: blurry, dog
Steps: 30, Sampler: DPM++ 2M, Schedule type: Karras, CFG scale: 6.5, Seed: 123456789012, Size: 512x768, \
Model hash: abc, Model: v1-5, Clip skip: 2, Denoising strength: 0.4, RNG: CPU, Hires upscale: 1.5, \
Hires upscaler: Latent (nearest-exact), Version: v1.10.1"""


def test_the_settings_of_the_web_ui_are_read():
    found = png_settings.read(infotext.read(WEB_UI))
    assert found == dict(
        prompt=('a (red:1.2) cat, on a table\nwith two lines',),
        negative_prompt='blurry, dog',
        num_steps=30,
        sampler='DPM++ 2M',
        grid='Karras',
        guidance_scale=6.5,
        seed=123456789012,
        width=512,
        height=768,
        clip_skip=2,
        strength=0.4,
        noise_source='torch_cpu',
        hires_scale=1.5,
        hires_upscaler='Latent (nearest-exact)',
        hires_steps=30,
    )


def test_an_image_of_the_web_ui_that_names_no_generator_is_of_a_card():
    found = png_settings.read(infotext.read('a\nSteps: 2, Sampler: Euler a, Seed: 1'))
    assert found['noise_source'] == 'torch_cuda'


# Fields that PNG text has no place for: the images that a request names, which lie in files of their own; how many
# images there are, of which each has its text; how files are read; and styles, which are in the prompts.
UNWRITTEN = {'init_image', 'mask', 'depth', 'mix', 'label_map', 'layout', 'num_images', 'max_pixels'}
UNWRITTEN |= {'styles', 'styles_file'}
# Options that are left to be chosen: the model is named, adapters and learned words are by tags and hashes.
CHOSEN = {'model', 'batch_size', 'lora', 'adapters', 'embeddings'}
AS_SIZE = {'width', 'height'}  # 'Size' holds both
WITH = {  # fields without which others are refused
    'eta': dict(sampler='DDIM'),
    'apg_eta': dict(guidance_rule='projected'),
    'apg_threshold': dict(guidance_rule='projected'),
    'variation_seed': dict(variation_strength=0.5),
    'variation_strength': dict(variation_seed=9),
}
VALUES = {  # of fields whose descriptions do not say all that is allowed
    'guidance_rule': 'zero_star', 'noise_source': 'torch_cpu',
    'sampler': 'DPM++ 2M SDE', 'grid': 'Karras', 'guidance_interval': (0.25, 5.0), 'mask_content': 'latent_noise',
    'percentile': 0.995, 'crop_top_left': (0, -3), 'negative_crop_top_left': (-1, 5),
}  # fmt: skip
AWKWARD = ' a "b", (c:1.2): <d>\nNegative prompt: e\nSteps: 1, Seed: 2, Size: 3x4\nTemplate: f\n'


def example(setting):
    """A value of a field that is not its default."""
    if setting.name in VALUES:
        return VALUES[setting.name]
    described = setting.knob
    if described.kind is str:
        value = next((word for word in described.words() if word != setting.default), AWKWARD)
    elif described.kind is bool:
        value = not setting.default
    else:
        value = described.kind(7 if described.kind is int else 0.625)
    return value if described.many is None else (value,) * (1 if described.many == '+' else described.many)


def write_and_read(fields, index=0, size=(32, 64)):
    """Fields of a request as they come back from the text of an image of it."""
    request = knobs.make(Request, dict(seed=5, guidance_scale=3.5) | fields)
    scale = request.sampling.guidance.scale
    text = png_settings.write(request, index, size, guidance_scale=scale)
    return request, knobs.make(Request, png_settings.read(infotext.read(text)))


@pytest.mark.parametrize('name', knobs.settings(Request))
def test_every_field_is_written_and_read_back(name, recwarn):
    setting = knobs.settings(Request)[name]
    if name in UNWRITTEN | AS_SIZE:
        assert setting.knob.png is None
        return
    value = example(setting)
    _, found = write_and_read(dict(prompt=('a',)) | WITH.get(name, {}) | {name: value})
    assert knobs.flat(found)[name] == value
    assert value != setting.default
    assert not recwarn


@pytest.mark.parametrize(
    ('sampler', 'grid'),
    [
        (dict(name='euler', s_churn=0.5, s_tmax=10.0), None),
        (dict(name='DPM++ 2M SDE', s_noise=1.01, eta=0.5), 'Karras'),
        (dict(name='unipc', max_order=3, variant='bh1', predict_x0=False), None),
        ('euler', dict(name='karras', rho=5.0, sigma_min=0.1, discard_next_to_last=1)),
        (dict(name='euler', s_churn=0.5), dict(name='beta', alpha=0.5, beta=0.7)),
        (dict(name='ddim', eta=[0.5, 1.0]), dict(name='trailing')),
        (
            dict(_class_name='EulerDiscreteScheduler', timestep_spacing='trailing'),
            None,
        ),
    ],
)
def test_samplers_and_grids_with_knobs_are_read_back(sampler, grid, recwarn):
    _, found = write_and_read(dict(prompt=('a',), sampler=sampler, grid=grid))
    asked = Sampling(sampler, grid)
    assert found.sampling.specs() == asked.specs()
    assert not recwarn


def test_all_fields_together_are_read_back(recwarn):
    excluded = {'perturbed_scale', 'labels', *UNWRITTEN, *AS_SIZE}  # beside autoguidance_scale and prompts
    known = {name: each for name, each in knobs.settings(Request).items() if name not in excluded}
    fields = {name: example(each) for name, each in known.items()}
    fields |= {'sampler': 'ddim', 'guidance_rule': 'projected', 'width': 64, 'height': 32}
    request, found = write_and_read(fields | dict(guidance_scale=3.5, seed=5))
    assert found == request
    assert not recwarn


@pytest.mark.parametrize('name', knobs.settings(ModelOptions))
def test_every_option_that_changes_pixels_is_written_and_read_back(name, recwarn):
    setting = knobs.settings(ModelOptions)[name]
    if name in CHOSEN:
        assert setting.knob.png is None
        return
    value = 'xy' if name == 'seamless' else example(setting)
    options = knobs.make(ModelOptions, {'model': 'emoji32', name: value})
    settings = infotext.read(png_settings.write(Request(prompts=('a',)), 0, (32, 64), options))
    assert png_settings.read_options(settings) == {name: value}
    png_settings.read(settings)
    assert not recwarn


def test_the_web_uis_tiling_is_seamless_each_way(recwarn):
    settings = infotext.read(WEB_UI + ', Tiling: True')
    assert png_settings.read_options(settings) == dict(seamless='xy')
    png_settings.read(settings)
    assert not recwarn


def test_a_second_pass_keeps_the_size_of_the_first(tmp_path):
    asked = Request(prompts=('a',), width=8, height=4, hires_scale=2.0)
    text = png_settings.write(asked, 0, (4, 8), guidance_scale=2.0, made=(8, 16))
    fields = png_settings.read(infotext.read(text))
    assert (fields['width'], fields['height'], fields['hires_scale']) == (8, 4, 2.0)
    pixels = np.random.default_rng(0).integers(0, 256, (8, 16, 3), np.uint8)
    save_png(tmp_path / 'a.png', pixels, {'parameters': text}, scale=8)
    np.testing.assert_array_equal(to_uint8(load_image(tmp_path / 'a.png')), pixels)


def test_each_image_has_its_own_seed_and_prompt():
    request, found = write_and_read(dict(prompt=('a', 'b'), num_images=2), index=3)
    assert found == knobs.replace(
        dataclasses.replace(request, sampling=request.sampling.completed()),
        prompt=('b',), num_images=1, seed=6, width=64, height=32, noise_source='jax',
    )  # fmt: skip
    _, found = write_and_read(
        dict(prompt=('a', 'b'), num_images=2, variation_seed=9, variation_strength=0.5), 3
    )
    assert (found.seed, found.sampling.variation_seed, found.prompts) == (5, 10, ('b',))


@settings(deadline=None, max_examples=50)
@given(TEXTS, TEXTS)
def test_any_prompt_is_read_back(prompt, negative):
    _, found = write_and_read(dict(prompt=(prompt,), negative_prompt=negative))
    assert (found.prompts, found.negative_prompt) == ((prompt,), negative)


def test_a_class_is_written_in_place_of_a_prompt():
    asked = Request(labels=(3, 5), num_images=2)
    text = png_settings.write(asked, 3, (32, 64), ModelOptions('cin'))
    assert 'CFG scale' not in text
    assert png_settings.read(infotext.read(text))['labels'] == (5,)


def test_values_that_cannot_be_read_are_named():
    with pytest.raises(ValueError, match="Steps of an image is 'many': num_steps must be a whole number"):
        png_settings.read({'Steps': 'many'})
    with pytest.raises(ValueError, match="RNG of an image is 'TPU', which is none of"):
        png_settings.read({'RNG': 'TPU'})
    with pytest.raises(ValueError, match="No sampler 'Oiler'; the nearest are"):
        png_settings.read({'Sampler': 'Oiler'})


class TestFiles:
    pixels = np.zeros((4, 4, 3), np.uint8)

    def test_our_own_images(self, tmp_path):
        fields = {'Prompt': '猫, a cat', 'Negative prompt': '', 'Steps': '20', 'Sampler': 'DDIM', 'Seed': '1'}
        save_png(tmp_path / 'a.png', self.pixels, {'parameters': infotext.write(fields)})
        assert png_settings.read_file(tmp_path / 'a.png') == fields

    @pytest.mark.parametrize('chunk', [b'tEXt', b'iTXt', b'zTXt'])
    def test_every_kind_of_text_before_and_behind_the_pixels(self, tmp_path, chunk):
        info = PngInfo()
        if chunk == b'iTXt':
            info.add_itxt('parameters', WEB_UI)
        else:
            info.add_text('parameters', WEB_UI, zip=chunk == b'zTXt')
        path = tmp_path / 'a.png'
        Image.fromarray(self.pixels).save(path, pnginfo=info)
        assert png_settings.read_file(path) == infotext.read(WEB_UI)
        data = path.read_bytes()
        start = data.index(chunk) - 4
        size = int.from_bytes(data[start : start + 4], 'big') + 12
        end = data.index(b'IEND') - 4
        path.write_bytes(data[:start] + data[start + size : end] + data[start : start + size] + data[end:])
        assert png_settings.read_file(path) == infotext.read(WEB_UI)

    @pytest.mark.parametrize('order', ['utf-16-be', 'utf-16-le'])
    @pytest.mark.parametrize('name', ['a.jpg', 'a.webp'])
    def test_the_user_comment_of_files_without_texts(self, tmp_path, name, order):
        exif = Image.Exif()
        exif.get_ifd(0x8769)[0x9286] = b'UNICODE\0' + WEB_UI.encode(order)
        Image.fromarray(self.pixels.repeat(8, 0)).save(tmp_path / name, exif=exif)
        assert png_settings.read_file(tmp_path / name) == infotext.read(WEB_UI)
        assert png_settings.read_file((tmp_path / name).read_bytes()) == infotext.read(WEB_UI)

    def test_json_is_never_a_prompt(self, tmp_path):
        swarm = {'prompt': 'a red apple, noto style', 'seed': 77, 'steps': 2, 'cfgscale': 2.0, 'width': 32}
        swarm |= {'height': 32, 'sampler': 'euler'}
        save_png(tmp_path / 'a.png', self.pixels, {'parameters': json.dumps({'sui_image_params': swarm})})
        found = png_settings.read(png_settings.read_file(tmp_path / 'a.png'))
        assert found['prompt'] == ('a red apple, noto style',)
        assert (found['seed'], found['sampler'], found['noise_source']) == (77, 'euler', 'torch_cpu')
        assert (found['width'], found['height'], found['guidance_scale']) == (32, 32, 2)
        save_png(tmp_path / 'b.png', self.pixels, {'parameters': json.dumps(swarm)})
        with pytest.raises(ValueError, match=r'b.png: .* JSON of an unknown program'):
            png_settings.read_file(tmp_path / 'b.png')
        save_png(
            tmp_path / 'c.png', self.pixels, {'parameters': json.dumps({'sui_image_params': swarm})[:60]}
        )
        with pytest.raises(ValueError, match=r"c.png: its text 'parameters' begins as JSON and is none"):
            png_settings.read_file(tmp_path / 'c.png')

    def test_the_cap_of_pixels_holds_for_files_of_settings_too(self, tmp_path):
        save_png(tmp_path / 'a.png', self.pixels, {'parameters': WEB_UI})
        with pytest.raises(ValueError, match='a.png has more than 15 pixels'):
            png_settings.read_file(tmp_path / 'a.png', max_pixels=15)
        assert png_settings.read_file(tmp_path / 'a.png', max_pixels=16) == infotext.read(WEB_UI)

    def test_errors(self, tmp_path):
        with pytest.raises(FileNotFoundError, match='No image at'):
            png_settings.read_file(tmp_path / 'none.png')
        save_png(tmp_path / 'bare.png', self.pixels, {'Title': 'x'})
        with pytest.raises(ValueError, match=r"bare.png has no text 'parameters' .*; it has \['Title'\]"):
            png_settings.read_file(tmp_path / 'bare.png')
        Image.fromarray(self.pixels).save(tmp_path / 'a.jpg')
        with pytest.raises(ValueError, match=r"a.jpg has no text 'parameters'"):
            png_settings.read_file(tmp_path / 'a.jpg')

    def test_a_text_that_unpacks_to_too_much(self, tmp_path):
        info = PngInfo()
        info.add_text('parameters', 'a' * 3_000_000, zip=True)
        Image.fromarray(self.pixels).save(tmp_path / 'a.png', pnginfo=info)
        with pytest.raises(ValueError, match=r'a.png cannot be read: Decompressed data too large'):
            png_settings.read_file(tmp_path / 'a.png')
