"""Two passes against diffusers' text to image and image to image with torch's interpolation between them."""

import numpy as np
import pytest

from ldm_jax.images import fit
from ldm_jax.inference.settings import Guidance, Sampling
from ldm_jax.pipelines.hires import UPSCALERS, WEB_UI, hires
from tests.pipelines import pairs

KIND = 'StableDiffusionPipeline'
PROMPTS, NEGATIVE = ['a red cat', 'two green apples on a table'], 'blurry'
DDIM = Sampling(
    'ddim', 'leading', num_steps=4, guidance=Guidance(3.0), start='total', noise_source='torch_cpu'
)
SECOND = Sampling(
    'ddim', 'leading', num_steps=5, guidance=Guidance(2.0), start='total', noise_source='torch_cpu'
)


@pytest.mark.slow
def test_images_are_those_of_diffusers_and_torch():
    torch = pytest.importorskip('torch')
    diffusers = pytest.importorskip('diffusers')
    ours, theirs = pairs.pair(KIND)
    theirs.scheduler = pairs.ddim(theirs)
    prompts = dict(prompt=PROMPTS, negative_prompt=[NEGATIVE] * 2)
    first = dict(height=16, width=16, guidance_scale=3.0, num_inference_steps=4)
    start = pairs.noise([3, 4], (8, 8, 4))
    small = theirs(**prompts, **first, latents=start, output_type='latent').images
    again = diffusers.StableDiffusionImg2ImgPipeline.from_pipe(theirs)
    again.scheduler = pairs.ddim(again)
    again.set_progress_bar_config(disable=True)
    second = dict(strength=0.65, guidance_scale=2.0, num_inference_steps=5)

    large = torch.nn.functional.interpolate(small, size=(16, 16), mode='bilinear')[:, :, 4:12]
    expected = pairs.made_by_theirs(again, **prompts, **second, image=large, generator=pairs.generators(3, 4))
    given = dict(size=(16, 16), final_size=(16, 32), strength=0.65, seed=3, sampling=DDIM, second=SECOND)
    latents, images = pairs.made_by_ours(hires, ours, PROMPTS, NEGATIVE, upscaler='Latent', **given)
    assert images.shape == (2, 16, 32, 3)
    pairs.assert_same(latents, expected[0], images, expected[1])

    with torch.no_grad():
        pixels = theirs.vae.decode(small / theirs.vae.config.scaling_factor).sample.clamp(-1, 1)
    fitted = np.stack([fit(each, (16, 32)) for each in pairs.channels_last(pixels)])
    expected = pairs.made_by_theirs(
        again,
        **prompts,
        **second,
        image=pairs.channels_first(fitted),
        generator=pairs.generators(3, 4),
    )
    latents, images = pairs.made_by_ours(hires, ours, PROMPTS, NEGATIVE, upscaler='Lanczos', **given)
    pairs.assert_same(latents, expected[0], images, expected[1])


def test_the_web_uis_upscalers_are_known():
    assert set(WEB_UI.values()) <= set(UPSCALERS)


def test_what_it_cannot_do_is_refused_before_anything_runs():
    pipeline = pairs.model(KIND)
    with pytest.raises(ValueError, match=r"No upscaler 'latent_bicubc'; .*Did you mean 'latent_bicubic'"):
        hires(pipeline, 'a', upscaler='latent_bicubc')
    with pytest.raises(ValueError, match=r'scale must be at least 1; got 0\.5'):
        hires(pipeline, 'a', scale=0.5)
    with pytest.raises(ValueError, match='larger than the first; got 16 x 32 after 32 x 32'):
        hires(pipeline, 'a', size=(32, 32), final_size=(16, 32))
    with pytest.raises(ValueError, match=r'18 x 33.*The nearest that is: 16 x 32'):
        hires(pipeline, 'a', size=(16, 16), final_size=(18, 33))
    with pytest.raises(ValueError, match='strength must be above 0'):
        hires(pipeline, 'a', strength=0)
    with pytest.raises(ValueError, match=r'hires is for models conditioned on a text\. .*it is for upscale'):
        hires(pairs.model('StableDiffusionUpscalePipeline'), 'a')
