"""Text to image against diffusers' with the same weights and noise, and what its arguments mean."""

import pytest

from ldm_jax.pipelines.sampling import Sampling
from ldm_jax.pipelines.text_to_image import text_to_image
from tests.checkpoints import folders
from tests.pipelines import pairs

PROMPTS, NEGATIVE = ['a red cat', 'two green apples on a table'], 'blurry'
DDIM = Sampling('ddim', 'leading', num_steps=4, guidance_scale=3.0, start='total', noise_source='torch_cpu')


@pytest.fixture(scope='module')
def pipeline():
    return pairs.ours(folders.TINY['StableDiffusionPipeline'])


@pytest.mark.parametrize(
    'name',
    [
        'StableDiffusionPipeline',
        'StableDiffusionPipeline (2)',
        'StableDiffusionXLPipeline',
        'LDMTextToImagePipeline',
    ],
)
def test_images_are_those_of_diffusers(name):
    pytest.importorskip('diffusers')
    if name == 'LDMTextToImagePipeline':
        pytest.skip('its tokenizer is not in the tree')
    ours, theirs = pairs.pair(name)
    theirs.scheduler = pairs.ddim(theirs)
    size = (16, 32)
    call = dict(
        prompt=PROMPTS,
        negative_prompt=[NEGATIVE] * 2,
        height=size[0],
        width=size[1],
        guidance_scale=3.0,
        num_inference_steps=4,
        latents=pairs.noise([3, 4], ours.parts.latents(1, size)[1:]),
    )
    expected = theirs(**call, output_type='np').images * 2 - 1
    images = text_to_image(ours, PROMPTS, NEGATIVE, size=size, seed=3, sampling=DDIM)
    assert images.shape == (2, 16, 32, 3)
    assert pairs.psnr(images, expected) > 50
