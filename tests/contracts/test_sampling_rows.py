"""Guidance, samplers and grids by flags: PNG out, each kind of guidance with an effect, repeated from its text."""

import numpy as np
import pytest
from PIL import Image

from ldm_jax.checkpoints import store
from ldm_jax.diffusion import aliases, grids
from ldm_jax.requests import png_settings
from tests import tiny_models

PROJECTED = dict(guidance_rule='projected')
GUIDANCE = {
    'negative prompt': dict(negative_prompt='pear'),
    'rescale': dict(guidance_rescale=0.7),
    'interval': dict(guidance_interval=('0.3', '5')),
    'perturbed attention': dict(perturbed_scale=3),
    'APG': PROJECTED,
    'APG with its numbers': PROJECTED | dict(apg_eta=0.5, apg_threshold=0.5),
    'CFG-Zero*': dict(guidance_rule='zero_star'),
    'CFG-Zero*, standing still': dict(cfg_zero_share=0.5),
    'dynamic thresholding': dict(percentile=0.9),
    'autoguidance': dict(weak_model='WEAK', autoguidance_scale=2),
    'CFG++': dict(sampler='euler_cfg_pp', guidance_scale=0.8),
    'several prompts': dict(prompt='apple :1.2 AND pear :0.8'),
}
FAST = ('APG',)
NAMES = sorted({*aliases.SAMPLERS, *aliases.names()})
INVERSION = 'ddim_inverse'  # walks from images to noise, as a task of its own
LEVELS_GIVEN = ('sigmas', 'timesteps')  # which a flag has no values for
GRIDS = sorted({*aliases.GRIDS, *grids.names()})


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp('sampling')


def pixels(report):
    with Image.open(report['images'][0]['path']) as image:
        return np.asarray(image)


def published(folder, seed=0):
    """The tiny model of texts at Stable Diffusion's noise, for which 'Align Your Steps' was made: its directory."""
    path = folder / f'published_{seed}'
    if not path.exists():
        settings = tiny_models.SETTINGS['text'] | dict(schedule=dict(name='scaled_linear'))
        store.save_model(str(path), settings, tiny_models.random_params(settings, seed))
    return str(path)


def made(sample, folder, out, **flags):
    common = dict(
        prompt='apple', sampler='ddim', num_steps=4, guidance_scale=4, num_images=1, seed=3, scale=1
    )
    return sample(**(common | dict(model=published(folder), out=out) | flags))


def each(names, fast):
    return [pytest.param(name, marks=() if name in fast else pytest.mark.slow) for name in names]


@pytest.mark.parametrize('kind', each(GUIDANCE, FAST))
def test_each_kind_of_guidance_changes_the_image_and_comes_back_from_its_text(kind, folder, tmp_path, sample):
    flags = dict(GUIDANCE[kind])
    if 'weak_model' in flags:
        flags['weak_model'] = published(folder, seed=1)
    plain = pixels(made(sample, folder, tmp_path))
    report = made(sample, folder, tmp_path, **flags)
    assert not np.array_equal(pixels(report), plain)
    again = sample(model=published(folder), from_png=report['images'][0]['path'], scale=1, out=tmp_path)
    np.testing.assert_array_equal(pixels(again), pixels(report))


@pytest.mark.parametrize('name', each(NAMES, ('DPM++ 2M Karras',)))
def test_each_sampler_makes_an_image_by_any_of_its_names(name, folder, tmp_path, sample):
    if name == INVERSION:
        assert 'invert' in made(sample, folder, tmp_path, sampler=name, fails=True)
        return
    report = made(sample, folder, tmp_path, sampler=name, num_steps=5, noise_source='torch_cpu')
    assert pixels(report).std() > 1
    assert png_settings.read_file(report['images'][0]['path'])['RNG'] == 'CPU'


@pytest.mark.parametrize('name', each(GRIDS, ('trailing',)))
def test_each_grid_makes_an_image_by_any_of_its_names(name, folder, tmp_path, sample):
    if name in LEVELS_GIVEN:
        assert f"Grid '{name}' needs values" in str(made(sample, folder, tmp_path, grid=name, fails=True))
        return
    assert pixels(made(sample, folder, tmp_path, sampler='euler', grid=name, num_steps=5)).std() > 1
