"""Upscaling against diffusers' with the same weights and noise, and what its arguments mean."""

import numpy as np
import pytest

from ldm_jax.inference.settings import Guidance, Sampling
from ldm_jax.pipelines.upscale import upscale
from tests.pipelines import pairs

KIND = 'StableDiffusionUpscalePipeline'
PROMPTS, NEGATIVE = ['a red cat', 'two green apples on a table'], 'blurry'
DDIM = Sampling(
    'ddim', 'leading', num_steps=4, guidance=Guidance(3.0), start='total', noise_source='torch_cpu'
)
SMALL = np.random.default_rng(0).uniform(-1, 1, (2, 8, 16, 3)).astype(np.float32)


@pytest.mark.slow
def test_images_are_those_of_diffusers():
    pytest.importorskip('diffusers')
    ours, theirs = pairs.pair(KIND)
    theirs.scheduler = pairs.ddim(theirs)
    expected = pairs.made_by_theirs(
        theirs,
        prompt=PROMPTS,
        negative_prompt=[NEGATIVE] * 2,
        image=pairs.channels_first(SMALL),
        noise_level=25,
        guidance_scale=3.0,
        num_inference_steps=4,
        generator=pairs.generators(3, 4),
    )
    latents, images = pairs.made_by_ours(
        upscale, ours, PROMPTS, SMALL, NEGATIVE, noise_level=25, seed=3, sampling=DDIM
    )
    assert images.shape == (2, 16, 32, 3)  # this first stage has two pixels a latent, the published one four
    pairs.assert_same(latents, expected[0], images, expected[1])

    # Of each image its own: the same program.
    apart = upscale(ours, PROMPTS, SMALL, NEGATIVE, noise_level=[25, 0], seed=3, sampling=DDIM)
    np.testing.assert_array_equal(apart[0], images[0])
    assert pairs.psnr(apart[1], images[1]) < 40


def test_what_it_cannot_do_is_refused_before_anything_runs():
    pipeline = pairs.model(KIND)  # whose table of labels has 30 rows
    for level in (30, -1, 2.5):
        with pytest.raises(ValueError, match=f'noise_level must be whole and from 0 to 29; got {level}'):
            upscale(pipeline, 'a', SMALL[0], noise_level=level)
    with pytest.raises(ValueError, match='3 noise levels for 1 images'):
        upscale(pipeline, 'a', SMALL[0], noise_level=[1, 2, 3])
    with pytest.raises(ValueError, match=r'7 x 16.*multiples of 2.*The nearest that is: 8 x 16'):
        upscale(pipeline, 'a', SMALL[0, :7])
    with pytest.raises(
        ValueError,
        match=r'upscale is for models conditioned on a text, a small image.* on a text: it is for text_to_image',
    ):
        upscale(pairs.model('StableDiffusionPipeline'), 'a', SMALL[0])
