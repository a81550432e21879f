"""Settings that other programs wrote into images reach the pixels: a tiny model, from text to image."""

import json

import numpy as np
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from ldm_jax import knobs
from ldm_jax.checkpoints.loading import Loaded
from ldm_jax.images import to_float
from ldm_jax.requests import png_settings, tasks
from ldm_jax.requests.options import ModelOptions
from ldm_jax.requests.request import Request
from ldm_jax.requests.resolve import resolve
from tests import tiny_models
from tests.pipelines import pairs

BASE = (
    'a red apple, noto style\nSteps: 2, Sampler: DDIM, Schedule type: Automatic, CFG scale: 2, Seed: 5, '
    'Size: 16x16, Model: emoji32'
)
INPAINT = BASE + ', Denoising strength: 0.75, Mask blur: 0'
IMAGE = np.random.default_rng(0).integers(0, 256, (16, 16, 3), np.uint8)
INSIDE = np.zeros((16, 16), bool)
INSIDE[4:12, 4:12] = True
FILES = dict(init_image=IMAGE, mask=INSIDE)


@pytest.fixture(scope='module')
def make(tmp_path_factory):
    """The image of a text, made with a tiny model, and fields in place of the text's."""
    pipeline = pairs.ours(tiny_models.SETTINGS['text'])
    folder = tmp_path_factory.mktemp('texts')

    def made(text, **fields):
        info = PngInfo()
        info.add_text('parameters', text)
        Image.new('RGB', (8, 8)).save(folder / 'a.png', pnginfo=info)
        found = png_settings.read(png_settings.read_file(folder / 'a.png'))
        request = knobs.make(Request, found | fields)
        plan = resolve(request, ModelOptions(Loaded(tiny_models.SETTINGS['text'], {}, {}, '')))
        return tasks.run(plan, pipeline)[0]

    return made


def test_swarmui(make):
    settings = dict(prompt='a red apple, noto style', seed=77, steps=2, cfgscale=2.0, width=16, height=16)
    found = make(json.dumps({'sui_image_params': settings | dict(sampler='ddim')}))
    expected = make(BASE, seed=77, sampler='ddim', grid='normal', noise_source='torch_cpu', start='total')
    np.testing.assert_array_equal(found, expected)


def test_eta(make):
    found = make(BASE + ', Eta DDIM: 1.0')
    np.testing.assert_array_equal(found, make(BASE, eta=1.0))
    assert np.abs(found - make(BASE)).max() > 1e-3


def test_variation_seeds(make):
    found = make(BASE + ', Variation seed: 9, Variation seed strength: 0.6')
    np.testing.assert_array_equal(found, make(BASE, variation_seed=9, variation_strength=0.6))
    assert np.abs(found - make(BASE)).max() > 1e-3
    # Strength 1 is the other seed's noise.
    whole = make(BASE + ', Variation seed: 9, Variation seed strength: 1.0')
    np.testing.assert_allclose(whole, make(BASE, seed=9), atol=1e-4)


def test_inpaint_not_masked_changes_the_outside_alone(make):
    for mode, changed in (('Inpaint masked', INSIDE), ('Inpaint not masked', ~INSIDE)):
        found = make(f'{INPAINT}, Mask mode: {mode}', **FILES)
        differs = np.abs(found - to_float(IMAGE)).max(-1) > 1e-3
        assert not differs[~changed].any()
        assert differs[changed].mean() > 0.9


def test_masked_content_by_both_names(make):
    plain = make(INPAINT, **FILES)
    for ours in ('fill', 'latent_noise', 'latent_nothing'):
        found = make(f'{INPAINT}, Masked content: {ours.replace("_", " ")}', **FILES)
        np.testing.assert_array_equal(found, make(INPAINT, mask_content=ours, **FILES))
        assert np.abs(found - plain).max() > 1e-3


@pytest.mark.slow
def test_hires_resize_is_a_second_pass_at_that_size(make):
    found = make(BASE + ', Denoising strength: 0.5, Hires resize: 32x32, Hires upscaler: Latent')
    assert found.shape == (32, 32, 3)
    scaled = make(BASE + ', Denoising strength: 0.5, Hires upscale: 2, Hires upscaler: Latent')
    np.testing.assert_array_equal(found, scaled)


def test_templates(make):
    found = make(BASE + '\nNegative Template: fog: 0.2, rain: 0.5, haze: 0.7')
    np.testing.assert_array_equal(found, make(BASE))
