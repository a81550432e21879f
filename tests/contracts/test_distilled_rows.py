"""Distilled and small relatives, as public files: sampled by sample.py to the pixels of the model directory."""

import dataclasses
import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from PIL import Image

from ldm_jax.checkpoints import store
from ldm_jax.checkpoints.convert import convert
from ldm_jax.checkpoints.diffusers import schedulers
from ldm_jax.requests import png_settings
from tests import tiny_models
from tests.pipelines.pairs import random_params

TEXT, SIZES = tiny_models.SETTINGS['text'], tiny_models.SETTINGS['sizes']
LCM = dict(
    _class_name='LCMScheduler', beta_schedule='scaled_linear', num_train_timesteps=1000, steps_offset=1,
    timestep_spacing='leading',
)  # fmt: skip
TURBO = LCM | dict(_class_name='EulerAncestralDiscreteScheduler', timestep_spacing='trailing')
EDM = dict(
    schedule=dict(name='edm', sigma_min=0.002, sigma_max=80.0), parameterization='edm', scaling_factor=0.5
)


def changed(settings, unet=(), first_stage=(), **more):
    models = settings['models']
    models = models | dict(
        unet=models['unet'] | dict(unet), first_stage=models['first_stage'] | dict(first_stage)
    )
    return settings | dict(models=models) | more


@dataclasses.dataclass(frozen=True)
class Row:
    """A relative, and what its images say of how they were made when nothing is asked for."""

    settings: Mapping[str, Any]
    steps: int = 20
    scale: float | None = 7.5
    layouts: tuple[str, ...] = ('compvis', 'diffusers')


SSD = dict(num_res_blocks=2, channel_mult=[1, 2], depth=[0, [1, 2]], depth_up=[0, [2, 1, 1]])
SSD |= dict(mid_depth=0, mid_res_blocks=1, head_width=8, num_heads=None)
ROWS = {
    'ssd_1b': Row(changed(SIZES, SSD)),
    'bk_sdm_tiny': Row(changed(TEXT, dict(channel_mult=[1, 2], depth=[1, 1], mid_depth=0, mid_res_blocks=0))),
    'lcm': Row(changed(TEXT, dict(guidance_width=6), sampling=dict(sampler=LCM, num_steps=4)), 4, 8.5),
    # A single file of a network without the input says nothing of few steps: DreamShaper-LCM, Turbo, Lightning.
    'turbo': Row(changed(SIZES, sampling=dict(sampler=TURBO, num_steps=4), guidance_scale=1.0), 4, None),
    'playground_v25': Row(
        changed(SIZES, (), dict(latents_mean=[-1.5, 2, 0.1, 3], latents_std=[8.0, 6, 5, 4]), **EDM)
    ),
}  # fmt: skip
FAST = ('lcm-diffusers',)


def each():
    for name in ROWS:
        for to in ('compvis', 'diffusers'):
            marks = () if f'{name}-{to}' in FAST else pytest.mark.slow
            yield pytest.param(name, to, id=f'{name}-{to}', marks=marks)


@pytest.mark.parametrize(('name', 'to'), list(each()))
def test_a_public_file_makes_the_images_of_the_model(name, to, tmp_path, sample):
    row, model, public = ROWS[name], str(tmp_path / 'model'), str(tmp_path / 'public')
    public += '.safetensors' if to == 'compvis' else ''
    store.save_model(model, row.settings, random_params(row.settings, 0))
    convert(model, public, to=to)
    made = []
    for source in (model, public):
        report = sample(model=source, prompt='apple', num_images=1, seed=3, out=tmp_path / 'images')
        path = report['images'][0]['path']
        said = png_settings.read_file(path)
        assert int(said['Steps']) == row.steps
        assert (float(said['CFG scale']) if 'CFG scale' in said else None) == row.scale
        with Image.open(path) as image:
            made.append(np.asarray(image))
    np.testing.assert_array_equal(*made)
    assert made[0].std() > 0


@pytest.mark.slow
def test_what_is_asked_for_goes_before_what_the_model_says(tmp_path, sample):
    row, model = ROWS['lcm'], str(tmp_path / 'model')
    store.save_model(model, row.settings, random_params(row.settings, 0))
    options = dict(model=model, prompt='apple', num_images=1, seed=3, out=tmp_path / 'images')
    images = []
    for asked in (dict(num_steps=20, sampler='dpmpp_2m', guidance_scale=2), dict(guidance_scale=2), {}):
        path = sample(**options, **asked)['images'][0]['path']
        said = png_settings.read_file(path)
        assert int(said['Steps']) == asked.get('num_steps', 4)
        assert said['Sampler'] == asked.get('sampler', 'LCMScheduler')
        with Image.open(path) as image:
            images.append(np.asarray(image).tobytes())
    assert len(set(images)) == 3
    again = sample(model=model, from_png=path, out=tmp_path / 'again')['images'][0]['path']
    with Image.open(again) as image:
        assert np.asarray(image).tobytes() == images[2]
    for asked, message in (
        (dict(negative_prompt='pear'), 'has learned what guidance does: leave it out'),
        (dict(guidance_rescale='0.5'), "takes the guidance scale alone: leave ['rescale'] out"),
    ):
        assert message in sample(fails=True, **options, **asked)


def test_a_folder_of_the_hub_says_how_it_is_sampled(tmp_path):
    euler = json.loads(json.dumps(TURBO))
    assert schedulers.few_steps(euler)['num_steps'] == 4
    assert schedulers.few_steps(euler | dict(timestep_spacing='leading')) == {}
    assert schedulers.few_steps(euler | dict(prediction_type='v_prediction')) == {}
    assert schedulers.few_steps(dict(_class_name='TCDScheduler', steps_offset=1))['sampler'] == dict(
        _class_name='TCDScheduler', steps_offset=1
    )
