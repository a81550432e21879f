"""Text to image against diffusers' with the same weights and noise, and what its arguments mean."""

import numpy as np
import pytest

from ldm_jax import knobs
from ldm_jax.inference.settings import Guidance, Sampling
from ldm_jax.pipelines.prompts import prompt_conds
from ldm_jax.pipelines.text_to_image import text_to_image
from tests.checkpoints import folders
from tests.pipelines import pairs

PROMPTS, NEGATIVE = ['a red cat', 'two green apples on a table'], 'blurry'
DDIM = Sampling(
    'ddim', 'leading', num_steps=4, guidance=Guidance(3.0), start='total', noise_source='torch_cpu'
)


@pytest.fixture(scope='module')
def pipeline():
    return pairs.ours(folders.TINY['StableDiffusionPipeline'])


@pytest.mark.slow
@pytest.mark.parametrize(
    'name',
    [
        'StableDiffusionPipeline',
        'StableDiffusionPipeline (2)',
        'StableDiffusionXLPipeline',
    ],
)
def test_images_are_those_of_diffusers(name):
    pytest.importorskip('diffusers')
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


@pytest.mark.slow
def test_perturbed_attention_and_rescaling_are_those_of_diffusers():
    diffusers = pytest.importorskip('diffusers')
    ours, theirs = pairs.pair('StableDiffusionPipeline')
    call = dict(
        prompt=PROMPTS,
        negative_prompt=[NEGATIVE] * 2,
        height=16,
        width=32,
        num_inference_steps=4,
        guidance_scale=3.0,
        latents=pairs.noise([3, 4], ours.parts.latents(1, (16, 32))[1:]),
        output_type='np',
    )
    theirs.scheduler = pairs.ddim(theirs)
    expected = theirs(**call, guidance_rescale=0.7).images * 2 - 1
    sampling = knobs.replace(DDIM, guidance_rescale=0.7)
    images = text_to_image(ours, PROMPTS, NEGATIVE, size=(16, 32), seed=3, sampling=sampling)
    assert pairs.psnr(images, expected) > 50

    pipe = diffusers.StableDiffusionPAGPipeline(**theirs.components, pag_applied_layers=['mid'])
    pipe.set_progress_bar_config(disable=True)
    expected = pipe(**call, pag_scale=2.0).images * 2 - 1
    sampling = knobs.replace(DDIM, perturbed_scale=2.0)
    images = text_to_image(ours, PROMPTS, NEGATIVE, size=(16, 32), seed=3, sampling=sampling)
    assert pairs.psnr(images, expected) > 50
    plain = text_to_image(ours, PROMPTS, NEGATIVE, size=(16, 32), seed=3, sampling=DDIM)
    assert pairs.psnr(images, plain) < 40


@pytest.mark.slow
def test_skipping_a_layer_of_the_text_encoder_is_reading_the_one_before_through_the_final_norm():
    torch = pytest.importorskip('torch')
    pytest.importorskip('diffusers')
    ours, theirs = pairs.pair('StableDiffusionPipeline')
    theirs.scheduler = pairs.ddim(theirs)

    def read(texts):
        ids = theirs.tokenizer(texts, padding='max_length', max_length=77, return_tensors='pt').input_ids
        with torch.no_grad():
            hidden = theirs.text_encoder(ids, output_hidden_states=True).hidden_states[-2]
            return theirs.text_encoder.final_layer_norm(hidden)

    expected = theirs(
        prompt_embeds=read(PROMPTS),
        negative_prompt_embeds=read([NEGATIVE] * 2),
        height=16,
        width=32,
        num_inference_steps=4,
        guidance_scale=3.0,
        latents=pairs.noise([3, 4], ours.parts.latents(1, (16, 32))[1:]),
        output_type='np',
    ).images
    skipping = pairs.ours(folders.TINY['StableDiffusionPipeline'], ours.params, clip_skip=2)
    images = text_to_image(skipping, PROMPTS, NEGATIVE, size=(16, 32), seed=3, sampling=DDIM)
    assert pairs.psnr(images, expected * 2 - 1) > 50
    with pytest.raises(ValueError, match='clip_skip must be from 1 to 2; got 3'):
        pairs.ours(folders.TINY['StableDiffusionPipeline'], ours.params, clip_skip=3)


@pytest.mark.slow
def test_large_images_go_in_windows_and_tiles_and_seamless_ones_round(pipeline):
    call = dict(size=(32, 48), seed=1, sampling=Sampling('ddim', num_steps=2, guidance=Guidance(2.0)))
    settings, params = folders.TINY['StableDiffusionPipeline'], pipeline.params
    whole = text_to_image(pipeline, 'a red cat', **call)
    windows = text_to_image(pairs.ours(settings, params, window=32), 'a red cat', **call)
    assert windows.shape == whole.shape == (1, 32, 48, 3)
    assert np.abs(windows - whole).max() > 0.01
    one = text_to_image(pairs.ours(settings, params, window=48, tile=48), 'a red cat', **call)
    np.testing.assert_allclose(one, whole, atol=1e-5)
    tiles = text_to_image(pairs.ours(settings, params, tile=32), 'a red cat', **call)
    assert 1e-4 < np.abs(tiles - whole).mean() < 0.5
    with pytest.raises(ValueError, match=r'30 x 30.*nearest that is: 32 x 32'):
        pairs.ours(settings, params, window=30)

    # A seamless image of noise that is rolled is the rolled image.
    round_ = pairs.ours(settings, params, seamless='xy')
    x = round_.noise([1], (32, 32))
    sampling = Sampling('ddim', num_steps=2, guidance=Guidance(None))
    conds, _ = prompt_conds(round_, sampling, ['a red cat'], '', (32, 32))
    _, levels = sampling.plan(round_.parts.schedule)
    first, second = (
        round_.decode(round_.sample(sampling, np.roll(x, shift, (1, 2)), levels, conds, [0]))
        for shift in ((0, 0), (4, 6))
    )
    np.testing.assert_allclose(np.roll(first, (8, 12), (1, 2)), second, atol=1e-4)
