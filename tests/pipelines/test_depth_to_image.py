"""Depth to image against diffusers' with the same weights, noise and depth maps."""

import numpy as np
import pytest

from ldm_jax.inference.settings import Guidance, Sampling
from ldm_jax.pipelines.depth_to_image import depth_to_image
from tests.pipelines import pairs

PROMPTS, NEGATIVE = ['a red cat', 'two green apples on a table'], 'blurry'
DDIM = Sampling(
    'ddim', 'leading', num_steps=4, guidance=Guidance(3.0), start='total', noise_source='torch_cpu'
)
RNG = np.random.default_rng(0)
IMAGES = RNG.uniform(-1, 1, (2, 16, 32, 3)).astype(np.float32)
DEPTHS = RNG.uniform(100, 2000, (2, 24, 36, 1)).astype(np.float32)


@pytest.mark.slow
@pytest.mark.parametrize('strength', [0.75, 1.0])
def test_latents_and_images_are_those_of_diffusers(strength):
    pytest.importorskip('diffusers')
    ours, theirs = pairs.pair('StableDiffusionDepth2ImgPipeline')
    theirs.scheduler = pairs.ddim(theirs)
    expected = pairs.made_by_theirs(
        theirs,
        prompt=PROMPTS,
        negative_prompt=[NEGATIVE] * 2,
        image=pairs.channels_first(IMAGES),
        depth_map=pairs.channels_first(DEPTHS)[:, 0],
        strength=strength,
        guidance_scale=3.0,
        num_inference_steps=4,
        generator=pairs.generators(3, 4),
    )
    latents, images = pairs.made_by_ours(
        depth_to_image, ours, PROMPTS, IMAGES, DEPTHS, NEGATIVE, strength=strength, seed=3, sampling=DDIM
    )
    pairs.assert_same(latents, expected[0], images, expected[1])


@pytest.mark.slow
def test_bad_input_is_refused_before_anything_runs():
    pipeline = pairs.model('StableDiffusionDepth2ImgPipeline')

    def run(depths=DEPTHS, images=IMAGES, **options):
        depth_to_image(pipeline, PROMPTS, images, depths, **options)

    with pytest.raises(ValueError, match=r'The depth map is 3 everywhere'):
        run(np.full_like(DEPTHS, 3))
    with pytest.raises(ValueError, match='not finite'):
        run(np.where(DEPTHS > 1000, np.inf, DEPTHS))
    with pytest.raises(ValueError, match=r'The depth map is \[2, 16, 32, 3\]: give one channel'):
        run(IMAGES)
    with pytest.raises(ValueError, match='at most 1; got 0'):
        run(strength=0)
    with pytest.raises(ValueError, match='The nearest that is: 16 x 32'):
        run(images=IMAGES[:, :, :31])
    other = pairs.model('StableDiffusionPipeline')
    with pytest.raises(
        ValueError, match=r'a depth map\. This one is conditioned on a text: it is for text_to_image'
    ):
        depth_to_image(other, PROMPTS, IMAGES, DEPTHS)
