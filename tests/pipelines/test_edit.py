"""InstructPix2Pix against diffusers' with the same weights and noise."""

import numpy as np
import pytest

from ldm_jax.inference.settings import Guidance, Sampling
from ldm_jax.pipelines.edit import edit
from tests.pipelines import pairs

PROMPTS, NEGATIVE = ['make it a red cat', 'turn it into two green apples'], 'blurry'
DDIM = dict(grid='leading', num_steps=4, start='total', noise_source='torch_cpu')
IMAGES = np.random.default_rng(0).uniform(-1, 1, (2, 16, 32, 3)).astype(np.float32)


@pytest.mark.slow
@pytest.mark.parametrize(('text_scale', 'image_scale'), [(4.0, 1.7), (1.0, 1.0)])
def test_latents_and_images_are_those_of_diffusers(text_scale, image_scale):
    """At 1 and 1 diffusers makes no guidance at all, which is what scales of 1 mean."""
    pytest.importorskip('diffusers')
    ours, theirs = pairs.pair('StableDiffusionInstructPix2PixPipeline')
    theirs.scheduler = pairs.ddim(theirs)
    expected = pairs.made_by_theirs(
        theirs,
        prompt=PROMPTS,
        negative_prompt=[NEGATIVE] * 2,
        image=pairs.channels_first(IMAGES),
        guidance_scale=text_scale,
        image_guidance_scale=image_scale,
        num_inference_steps=4,
        latents=pairs.noise([3, 4], (8, 16, 4)),
    )
    latents, images = pairs.made_by_ours(
        edit,
        ours,
        PROMPTS,
        IMAGES,
        NEGATIVE,
        seed=3,
        sampling=Sampling('ddim', guidance=Guidance(text_scale, image_scale=image_scale), **DDIM),
    )
    pairs.assert_same(latents, expected[0], images, expected[1])


@pytest.mark.slow
def test_without_guidance_the_network_is_given_both():
    """Outside the interval of guidance too, where there is one evaluation instead of three."""
    pipeline = pairs.model('StableDiffusionInstructPix2PixPipeline')

    def made(**options):
        return edit(
            pipeline, PROMPTS, IMAGES, seed=3, sampling=Sampling('ddim', guidance=Guidance(**options), **DDIM)
        )

    alone = made(scale=None)
    outside = made(scale=4.0, interval=(1e6, 2e6))
    np.testing.assert_allclose(outside, alone, atol=1e-4)


def test_bad_input_is_refused_before_anything_runs():
    pipeline = pairs.model('StableDiffusionInstructPix2PixPipeline')
    with pytest.raises(ValueError, match=r"\['guidance_rescale'\] does not go with the two scales"):
        edit(pipeline, PROMPTS, IMAGES, sampling=Sampling(guidance=Guidance(rescale=0.7)))
    with pytest.raises(ValueError, match=r"\['guidance_rule'\] does not go"):
        edit(pipeline, PROMPTS, IMAGES, sampling=Sampling(guidance=Guidance(rule='projected')))
    with pytest.raises(ValueError, match='3 numbers for 2 images'):
        edit(pipeline, PROMPTS, IMAGES, sampling=Sampling(guidance=Guidance(image_scale=[1, 2, 3])))
    with pytest.raises(ValueError, match='2 images for 3 prompts'):
        edit(pipeline, [*PROMPTS, 'a'], IMAGES)
    with pytest.raises(ValueError, match='The nearest that is: 16 x 32'):
        edit(pipeline, PROMPTS, IMAGES[:, :, :31])
    other = pairs.model('StableDiffusionInpaintPipeline')
    with pytest.raises(ValueError, match='it is for inpaint'):
        edit(other, PROMPTS, IMAGES)
