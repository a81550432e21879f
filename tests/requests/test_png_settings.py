"""Settings in images: ours come back as they were, and the web UI's mean here what they mean there."""

import dataclasses

import pytest

from ldm_jax.requests import infotext, png_settings
from ldm_jax.requests.request import Request

WEB_UI = """a (red:1.2) cat, on a table
with two lines
Negative prompt: blurry, dog
Steps: 30, Sampler: DPM++ 2M, Schedule type: Karras, CFG scale: 6.5, Seed: 123456789012, Size: 512x768, \
Model hash: abc, Model: v1-5, Clip skip: 2, Denoising strength: 0.4, RNG: CPU, Hires upscale: 1.5, \
Hires upscaler: Latent (nearest-exact), Version: v1.10.1"""


def test_the_settings_of_the_web_ui_are_read():
    found = png_settings.read(infotext.read(WEB_UI))
    assert found == dict(
        prompts=('a (red:1.2) cat, on a table\nwith two lines',),
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


@pytest.mark.parametrize(
    'fields',
    [
        dict(prompts=('a red cat',)),
        dict(prompts=('a, b: c',), negative_prompt='x', sampler='Euler a', grid='Karras', eta=0.5, width=64),
        dict(prompts=('a',), strength=0.3, mask_blur=2.5, mask_content='fill', mask_padding=4, clip_skip=2),
        dict(
            prompts=('a',),
            hires_scale=2.0,
            hires_upscaler='lanczos',
            hires_steps=7,
            noise_source='torch_cuda',
        ),
        dict(prompts=('a',), guidance_rescale=0.7, guidance_rule='projected', start='total', noise_level=20),
        dict(prompts=('a',), guidance_interval=(0.28, 5.0), perturbed_scale=3.0),
        dict(prompts=('a :1.2 AND b :-1',), guidance_rule='projected', apg_eta=0.5, apg_threshold=2.5),
        dict(
            prompts=('a',), weak_model='x: y', autoguidance_scale=2.0, cfg_zero_share=0.04, percentile=0.995
        ),
        dict(prompts=('a',), original_size=(64, 32), crop_top_left=(0, -3), target_size=(8, 16)),
        dict(prompts=('a',), negative_original_size=(64, 32), negative_crop_top_left=(0, 3)),
        dict(prompts=('a',), negative_target_size=(64, 32)),
        dict(prompts=('a',), refiner='x', refiner_start=0.7, image_guidance_scale=1.2),
    ],
)
def test_what_is_written_is_read_back(fields):
    asked = Request(num_images=2, seed=5, guidance_scale=3.5, **fields)
    text = png_settings.write(asked, 1, (32, 64), 'emoji32', 3.5)
    found = Request(**png_settings.read(infotext.read(text)))
    assert found == dataclasses.replace(asked, num_images=1, seed=6, width=64, height=32)


def test_a_class_is_written_in_place_of_a_prompt():
    asked = Request(labels=(3, 5), num_images=2)
    text = png_settings.write(asked, 3, (32, 64), 'cin', None)
    assert 'CFG scale' not in text
    assert png_settings.read(infotext.read(text))['labels'] == (5,)


def test_values_that_cannot_be_read_are_named():
    with pytest.raises(ValueError, match="Steps of an image is 'many', which is no int"):
        png_settings.read({'Steps': 'many'})
    with pytest.raises(ValueError, match="RNG 'TPU' of an image is none of"):
        png_settings.read({'RNG': 'TPU'})
    with pytest.raises(ValueError, match="No sampler 'Oiler'; the nearest are"):
        png_settings.read({'Sampler': 'Oiler'})
