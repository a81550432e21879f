"""Settings of an image of ours ask for the same again, with the same images to begin with."""

import numpy as np
import pytest

from ldm_jax import knobs
from ldm_jax.checkpoints.loading import Loaded
from ldm_jax.diffusion import noise_sources
from ldm_jax.diffusion.variation import varied
from ldm_jax.images import save_png
from ldm_jax.inference.settings import Sampling
from ldm_jax.pipelines.start import variation
from ldm_jax.requests import infotext, inputs, png_settings
from ldm_jax.requests.options import ModelOptions
from ldm_jax.requests.request import Request
from ldm_jax.requests.resolve import resolve
from tests import tiny_models

RNG = np.random.default_rng(0)
IMAGE = RNG.integers(0, 256, (16, 24, 3), np.uint8)
MASK = np.pad(np.full((8, 8), 255, np.uint8), ((4, 4), (8, 8)))
ROWS = {
    'text_to_image': ('text', {}),
    'hires': ('text', dict(hires_scale=2.0)),
    'hires_to_size': ('text', dict(hires_size=(48, 32), width=24, height=16)),
    'image_to_image': ('text', dict(init_image=IMAGE)),
    'inpaint': ('text', dict(init_image=IMAGE, mask=MASK, mask_padding=2, invert_mask=True)),
    'outpaint': ('text', dict(init_image=IMAGE, outpaint=(8, 0, 0, 8))),
    'upscale': ('upscale', dict(init_image=IMAGE)),
    'unconditional': ('unconditional', {}),
    'super_resolution': ('super_resolution', dict(init_image=IMAGE)),
    'semantic_to_image': ('semantic', dict(label_map=RNG.integers(0, 5, (16, 32)))),
}


def planned(kind, fields):
    return resolve(knobs.make(Request, fields), ModelOptions(Loaded(tiny_models.SETTINGS[kind], {}, {}, '')))


@pytest.mark.parametrize('task', ROWS)
def test_the_same_is_asked_for_again(task):
    kind, fields = ROWS[task]
    fields = dict(prompt=('apple',), seed=5, num_steps=4) | fields
    first = planned(kind, fields)
    assert first.task == task
    scale = first.sampling.guidance.scale
    text = png_settings.write(first.request, 0, first.asked_size, guidance_scale=scale, made=(64, 64))
    images = {name: value for name, value in fields.items() if isinstance(value, np.ndarray)}
    again = planned(kind, png_settings.read(infotext.read(text)) | images)
    assert (again.task, again.asked_size, again.seeds) == (task, first.asked_size, first.seeds)
    assert knobs.flat(again.sampling) == knobs.flat(first.sampling)
    if first.inputs.image is not None and not fields.get('mask_padding'):
        np.testing.assert_array_equal(again.inputs.fitted(again.size), first.inputs.fitted(first.size))


def test_an_inverted_mask_is_what_was_black():
    asked = Request(init_image=IMAGE, mask=MASK)
    plain, inverted = (inputs.read(knobs.replace(asked, invert_mask=value)).mask for value in (False, True))
    np.testing.assert_array_equal(inverted, 1 - plain)
    assert 0 < plain.mean() < 0.5


def test_images_of_a_request_are_read_up_to_its_cap(tmp_path):
    save_png(tmp_path / 'a.png', IMAGE)
    for field in ('init_image', 'depth', 'label_map', 'mix'):
        value = str(tmp_path / 'a.png')
        fields = {field: (value,) if field == 'mix' else value, 'max_pixels': 383}
        with pytest.raises(ValueError, match=r'a\.png has more than 383 pixels .* or raise max_pixels'):
            inputs.read(knobs.make(Request, fields))


class TestVariations:
    def test_variations_share_a_seed_and_count_on_from_the_variation_seed(self):
        asked = knobs.make(
            Request, dict(prompt=('a', 'b'), num_images=2, seed=5, variation_seed=9, variation_strength=0.5)
        )
        assert asked.seeds == [5, 5, 5, 5]
        assert asked.variation_seeds == [9, 10, 9, 10]
        plan = planned('text', knobs.flat(asked))
        assert plan.sampling.variation_seed == [9, 10, 9, 10]

    @pytest.mark.parametrize('source', ['jax', 'torch_cpu', 'torch_cuda'])
    def test_noise_is_on_the_arc_to_the_variation_seeds(self, source):
        noise = noise_sources.noise(source, [5, 5], (4, 4, 4), draw=1)
        other = noise_sources.noise(source, [9, 10], (4, 4, 4))
        sampling = Sampling(noise_source=source, variation_seed=[9, 10], variation_strength=0.3)
        np.testing.assert_array_equal(variation(sampling, noise), varied(noise, other, 0.3))
        np.testing.assert_array_equal(variation(Sampling(noise_source=source), noise), noise)

    @pytest.mark.parametrize('fields', [dict(variation_seed=1), dict(variation_strength=0.5)])
    def test_both_settings_are_needed(self, fields):
        with pytest.raises(ValueError, match='towards a variation_seed by a variation_strength: give both'):
            knobs.make(Request, fields)


def test_a_field_of_the_text_that_is_not_enough_is_named_as_the_text_s(tmp_path, sample):
    path = tmp_path / 'varied.png'
    first = planned('text', dict(prompt=('apple',), init_image=IMAGE, num_steps=4))
    text = png_settings.write(first.request, 0, first.asked_size, guidance_scale=1.0)
    assert 'Denoising strength: 0.8' in text  # the task's own, as nothing was asked for
    save_png(path, IMAGE, {'parameters': text})
    error = sample(fails=True, model='emoji32', from_png=path, out=tmp_path / 'out')
    assert error.startswith('error: --strength is not enough for this model')
    assert f'--strength comes from the text of {path}' in error
    assert not (tmp_path / 'out').exists()
