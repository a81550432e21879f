"""Image to image against diffusers' with the same weights and noise, and what strength means."""

import numpy as np
import pytest

from ldm_jax.inference.settings import Guidance, Sampling
from ldm_jax.pipelines.image_to_image import image_to_image
from ldm_jax.pipelines.start import last_levels
from ldm_jax.schedules.scaled_linear import Schedule
from tests.checkpoints import folders
from tests.pipelines import pairs

PROMPTS, NEGATIVE = ['a red cat', 'two green apples on a table'], 'blurry'
DDIM = Sampling(
    'ddim', 'leading', num_steps=5, guidance=Guidance(3.0), start='total', noise_source='torch_cpu'
)
IMAGES = np.random.default_rng(0).uniform(-1, 1, (2, 16, 32, 3)).astype(np.float32)


@pytest.mark.slow
@pytest.mark.parametrize(
    ('name', 'task', 'strength'),
    [
        ('StableDiffusionPipeline', 'StableDiffusionImg2ImgPipeline', 0.65),
        ('StableDiffusionPipeline (2)', 'StableDiffusionImg2ImgPipeline', 1.0),
        ('StableDiffusionXLPipeline', 'StableDiffusionXLImg2ImgPipeline', 0.4),
        ('StableDiffusionXLImg2ImgPipeline', 'StableDiffusionXLImg2ImgPipeline', 0.8),  # the refiner
    ],
)
def test_images_are_those_of_diffusers(name, task, strength):
    torch = pytest.importorskip('torch')
    diffusers = pytest.importorskip('diffusers')
    ours, theirs = pairs.pair(name)
    pipe = getattr(diffusers, task).from_pipe(theirs)
    pipe.scheduler = pairs.ddim(pipe)
    pipe.set_progress_bar_config(disable=True)
    expected = pipe(
        prompt=PROMPTS,
        negative_prompt=[NEGATIVE] * 2,
        image=torch.from_numpy(IMAGES.transpose(0, 3, 1, 2).copy()),
        strength=strength,
        guidance_scale=3.0,
        num_inference_steps=5,
        generator=[torch.Generator().manual_seed(seed) for seed in (3, 4)],
        output_type='np',
    ).images
    images = image_to_image(ours, PROMPTS, IMAGES, NEGATIVE, strength=strength, seed=3, sampling=DDIM)
    assert pairs.psnr(images, expected * 2 - 1) > 50


@pytest.mark.slow
def test_a_little_strength_keeps_the_image_that_the_first_stage_makes_of_it():
    pipeline = pairs.ours(folders.TINY['StableDiffusionPipeline'])
    sampling = Sampling('ddim', num_steps=1000, guidance=Guidance(None))
    made = image_to_image(pipeline, 'a red cat', IMAGES[0], strength=0.001, sampling=sampling)
    kept = pipeline.decode(pipeline.encode(IMAGES[:1], pipeline.noise([0], (16, 32))))
    assert pairs.psnr(made, kept) > 27
    other = image_to_image(pipeline, 'a red cat', IMAGES[0], strength=0.9, sampling=sampling)
    assert pairs.psnr(other, kept) < 22


def test_strength_is_the_share_of_the_steps_that_are_left():
    levels = Sampling(num_steps=8).plan(Schedule())[1]
    assert len(last_levels(levels, 0.5).sigma) == 5
    np.testing.assert_array_equal(last_levels(levels, 1.0).t, levels.t)
    for strength in (0, 1.1, -0.2):
        with pytest.raises(ValueError, match=r'above 0 and at most 1; got'):
            last_levels(levels, strength)
    with pytest.raises(ValueError, match=r'0\.05 of 8 steps leaves none: take at least 0\.125'):
        last_levels(levels, 0.05)


def test_images_of_another_count_or_size_are_refused_before_anything_runs():
    pipeline = pairs.ours(folders.TINY['StableDiffusionPipeline'])
    with pytest.raises(ValueError, match='2 images for 3 prompts'):
        image_to_image(pipeline, ['a'] * 3, IMAGES)
    with pytest.raises(ValueError, match=r'15 x 32.*The nearest that is: 16 x 32'):
        image_to_image(pipeline, ['a'], IMAGES[:1, :15])
