"""Inversion: the noise that is found makes the image again, and another prompt makes another of it."""

import numpy as np
import pytest

from ldm_jax.inference.settings import Guidance, Sampling
from ldm_jax.pipelines.invert import edit_by_inversion, invert
from tests.checkpoints import folders
from tests.pipelines import pairs

IMAGES = np.random.default_rng(0).uniform(-1, 1, (2, 16, 16, 3)).astype(np.float32)
DDIM = Sampling('ddim', 'leading', num_steps=10, guidance=Guidance(None))


@pytest.fixture(scope='module')
def pipeline():
    return pairs.ours(folders.TINY['StableDiffusionPipeline'])


@pytest.mark.slow
def test_the_way_there_and_back_ends_at_the_image_the_nearer_the_more_it_iterates(pipeline):
    kept = pipeline.decode(pipeline.encode(IMAGES))
    errors = []
    for iterations in (1, 8):
        made = edit_by_inversion(pipeline, 'a cat', 'a cat', IMAGES[0], iterations=iterations, sampling=DDIM)
        errors.append(np.abs(made[0] - kept[0]).max())
    assert errors[1] < errors[0] / 10
    assert errors[1] < 0.1
    other = edit_by_inversion(pipeline, 'a cat', 'two dogs', IMAGES[0], iterations=8, sampling=DDIM)
    assert np.abs(other[0] - kept[0]).max() > 2 * errors[1]


@pytest.mark.slow
def test_inversion_is_that_of_diffusers(pipeline):
    torch = pytest.importorskip('torch')
    diffusers = pytest.importorskip('diffusers')
    ours, theirs = pairs.pair('StableDiffusionPipeline')
    scheduler = diffusers.DDIMInverseScheduler.from_config(
        theirs.scheduler.config, clip_sample=False, set_alpha_to_one=False, steps_offset=1
    )
    scheduler.set_timesteps(10)
    x = torch.from_numpy(ours.encode(IMAGES).transpose(0, 3, 1, 2).copy())
    with torch.no_grad():
        context = theirs.encode_prompt(['a cat'] * 2, 'cpu', 1, False)[0]
        for t in scheduler.timesteps:
            x = scheduler.step(theirs.unet(x, t, context).sample, t, x).prev_sample
    latents = invert(ours, ['a cat'] * 2, IMAGES, sampling=DDIM)
    pairs.assert_same(latents, pairs.channels_last(x))
