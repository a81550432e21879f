"""The tasks of the latent diffusion zoo: against diffusers' where it has them, else by networks with known answers."""

import dataclasses

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
import pytest

from ldm_jax import knobs
from ldm_jax.conditioning.boxes import tokens
from ldm_jax.inference.programs import Programs
from ldm_jax.inference.settings import Guidance, Sampling
from ldm_jax.pipelines.class_to_image import class_to_image
from ldm_jax.pipelines.inpaint_without_text import inpaint_without_text
from ldm_jax.pipelines.layout_to_image import layout_to_image
from ldm_jax.pipelines.semantic_to_image import semantic_to_image
from ldm_jax.pipelines.super_resolution import super_resolution
from ldm_jax.pipelines.text_to_image import text_to_image
from ldm_jax.pipelines.unconditional import unconditional
from tests.checkpoints import folders
from tests.pipelines import pairs

UNET = dict(folders.UNET, context_width=None, depth=[0, 1], head_width=16, out_channels=3)
DDIM = Sampling(
    'ddim', 'leading', num_steps=4, guidance=Guidance(None), start='total', noise_source='torch_cpu'
)
PLAIN = Sampling('ddim', num_steps=2, guidance=Guidance(None))


class Answer(nn.Module):
    """Predicts as x0 what `of` makes of a conditioning."""

    of: str
    in_channels: int
    out_channels: int = 3

    def __call__(self, x, t, cond):
        if self.of == 'concat':
            return cond.concat[..., : self.out_channels]
        if self.of == 'last':
            return jnp.broadcast_to(cond.concat[..., -1:], x.shape)
        return jnp.broadcast_to(cond.context.mean((1, 2))[:, None, None, None], x.shape)


def answering(settings, of):
    """Our pipeline of settings whose U-Net answers by `Answer`."""
    pipeline = pairs.ours(settings)
    unet = Answer(of, settings['models']['unet']['in_channels'])
    parts = dataclasses.replace(pipeline.parts, unet=unet, parameterization='x0')
    params = dict(pipeline.params, unet={})
    return dataclasses.replace(
        pipeline, parts=parts, params=params, programs=Programs(parts, pipeline.programs.devices)
    )


def zoo(in_channels, **models):
    return folders.settings(
        dict(unet=dict(UNET, in_channels=in_channels), first_stage=folders.VQ, **models), scaling_factor=1.0
    )


def decoded(pipeline, latents):
    return pipeline.decode(np.asarray(latents, np.float32))


@pytest.mark.slow
def test_images_of_texts_that_bert_reads_are_those_of_diffusers():
    pytest.importorskip('diffusers')
    ours, theirs = pairs.pair('LDMTextToImagePipeline')
    theirs.scheduler = pairs.ddim(theirs)
    prompts = ['a red cat', 'two cat']
    latents = pairs.noise([3, 4], ours.parts.latents(1, (16, 16))[1:])
    context, null = (theirs_read(theirs, texts) for texts in (prompts, ['', '']))
    expected = guided_latents(theirs, latents, null, context, 3.0)
    sampling = knobs.replace(DDIM, guidance_scale=3.0)
    images = text_to_image(ours, prompts, size=(16, 16), seed=3, sampling=sampling)
    assert pairs.psnr(images, decoded(ours, pairs.channels_last(expected))) > 50


def theirs_read(pipe, texts):
    import torch

    ids = pipe.tokenizer(
        texts, padding='max_length', max_length=77, truncation=True, return_tensors='pt'
    ).input_ids
    with torch.no_grad():
        return pipe.bert(ids)[0]


def guided_latents(pipe, x, null, context, scale):
    import torch

    pipe.scheduler.set_timesteps(4)
    with torch.no_grad():
        for t in pipe.scheduler.timesteps:
            both = pipe.unet(torch.cat([x, x]), t, torch.cat([null, context])).sample
            uncond, cond = both.chunk(2)
            x = pipe.scheduler.step(uncond + scale * (cond - uncond), t, x).prev_sample
    return x


@pytest.mark.slow
def test_unconditional_images_are_those_of_diffusers():
    pytest.importorskip('diffusers')
    ours, theirs = pairs.pair('LDMPipeline')
    theirs.scheduler = pairs.ddim(theirs)
    noise = pairs.noise([3, 4], ours.parts.latents(1, ours.size())[1:])
    expected = latents_of(theirs, noise)
    images = unconditional(ours, 2, seed=3, sampling=DDIM)
    assert pairs.psnr(images, decoded(ours, pairs.channels_last(expected))) > 50


def latents_of(pipe, noise, concat=None):
    """What diffusers' networks and scheduler make of noise: its two pipelines take no latents of ours."""
    import torch

    pipe.scheduler.set_timesteps(4)
    x = noise * pipe.scheduler.init_noise_sigma
    with torch.no_grad():
        for t in pipe.scheduler.timesteps:
            seen = x if concat is None else torch.cat([x, concat], 1)
            x = pipe.scheduler.step(pipe.unet(seen, t).sample, t, x).prev_sample
    return x


@pytest.mark.slow
def test_super_resolution_is_that_of_diffusers():
    torch = pytest.importorskip('torch')
    pytest.importorskip('diffusers')
    ours, theirs = pairs.pair('LDMSuperResolutionPipeline')
    theirs.scheduler = pairs.ddim(theirs)
    small = np.random.default_rng(0).uniform(-1, 1, (2, 8, 16, 3)).astype(np.float32)
    concat = torch.from_numpy(small.transpose(0, 3, 1, 2).copy())
    expected = latents_of(theirs, pairs.noise([3, 4], (8, 16, 3)), concat)
    images = super_resolution(ours, small, seed=3, sampling=DDIM)
    assert images.shape == (2, 16, 32, 3)
    assert pairs.psnr(images, decoded(ours, pairs.channels_last(expected))) > 50


@pytest.mark.slow
def test_a_class_is_given_as_its_embedding_and_guidance_leads_away_from_no_class():
    embedder = dict(name='class_embedder', num_classes=1001, width=4)
    settings = zoo(3, class_embedder=embedder)
    settings['models']['unet']['context_width'] = 4
    pipeline = answering(settings, 'context')
    table = np.asarray(pipeline.params['class_embedder']['embedding']['embedding']).mean(1)
    for scale in (None, 1.0, 3.0):
        sampling = knobs.replace(PLAIN, guidance_scale=scale)
        images = class_to_image(pipeline, [7, 999], sampling=sampling)
        said = table[[7, 999]] if scale is None else table[1000] + scale * (table[[7, 999]] - table[1000])
        latents = np.broadcast_to(said[:, None, None, None], (2, 8, 8, 3))
        np.testing.assert_allclose(images, decoded(pipeline, latents), atol=1e-5)
    with pytest.raises(ValueError, match='Classes are 0 to 999; got \\[1000\\]'):
        class_to_image(pipeline, 1000)
    settings['models']['class_embedder'] = dict(embedder, num_classes=1000)
    without = answering(settings, 'context')
    with pytest.raises(ValueError, match='nothing to guide away from'):
        class_to_image(without, 3, sampling=Sampling(guidance=Guidance(3.0)))


@pytest.mark.slow
def test_the_hole_is_black_the_mask_one_and_the_rest_keeps_its_pixels():
    image = np.random.default_rng(0).uniform(-1, 1, (16, 16, 3)).astype(np.float32)
    hidden = np.zeros((16, 16, 1))
    hidden[4:12, 2:8] = 1
    pipeline = answering(zoo(7), 'concat')
    images = inpaint_without_text(pipeline, image, hidden, sampling=PLAIN)
    seen = pipeline.decode(pipeline.encode(np.where(hidden > 0, np.float32(-1), image)[None]))[0]
    np.testing.assert_allclose(images[0], np.where(hidden > 0, seen, image), atol=1e-5)
    pipeline = answering(zoo(7), 'last')
    images = inpaint_without_text(pipeline, image, hidden, sampling=PLAIN)
    mask = np.broadcast_to(np.where(hidden[::2, ::2], 1.0, -1.0), (8, 8, 3))
    np.testing.assert_allclose(
        images[0], np.where(hidden > 0, decoded(pipeline, mask[None])[0], image), atol=1e-5
    )
    with pytest.raises(ValueError, match='mask'):
        inpaint_without_text(pipeline, image, hidden[:8])


@pytest.mark.slow
def test_a_map_of_classes_goes_through_the_rescaler():
    rescaler = dict(name='spatial_rescaler', num_stages=1, in_channels=5, out_channels=3)
    labels = np.random.default_rng(0).integers(0, 5, (2, 16, 16))
    pipeline = answering(zoo(6, rescaler=rescaler), 'concat')
    images = semantic_to_image(pipeline, labels, sampling=PLAIN)
    shares = np.eye(5)[labels].reshape(2, 8, 2, 8, 2, 5).mean((2, 4))
    kernel = np.asarray(pipeline.params['rescaler']['channel_mapper']['kernel'])[0, 0]
    np.testing.assert_allclose(images, decoded(pipeline, shares @ kernel), atol=1e-5)
    with pytest.raises(ValueError, match='integers from 0 to 4; this one 0 to 5'):
        semantic_to_image(pipeline, np.minimum(labels + 1, 5) * (labels > 0))


def test_a_layout_is_a_row_of_tokens():
    # A vocabulary of 8192 has a grid of 90 x 90 cells; 92 tokens are 30 boxes and the crop.
    row = tokens([(17, 0.0, 0.5, 1.0, 1.0)], 8192, 92)
    assert row[:3] == [17, 44 * 90, 89 * 90 + 89]  # 0.5 x 89 is rounded to even
    assert row[3:90] == [8191] * 87
    assert row[90:] == [0, 89 * 90 + 89]
    with pytest.raises(ValueError, match='31 boxes: this model takes 30'):
        tokens([(1, 0, 0, 1, 1)] * 31, 8192, 92)
    with pytest.raises(ValueError, match='left < right'):
        tokens([(1, 0.5, 0, 0.5, 1)], 8192, 92)
    with pytest.raises(ValueError, match='Class 8191 of a box must be from 0 to 8190'):
        tokens([(8191, 0, 0, 1, 1)], 8192, 92)


@pytest.mark.slow
def test_layouts_are_read_by_the_text_encoder():
    encoder = dict(
        name='bert', vocab_size=64, context_length=8, width=4, num_layers=1, num_heads=1, head_width=4
    )
    settings = zoo(3, text_encoder=encoder)
    settings['models']['unet']['context_width'] = 4
    pipeline = answering(settings, 'context')
    boxes = [(3, 0.0, 0.0, 0.5, 0.5)]
    one = layout_to_image(pipeline, boxes, sampling=PLAIN)
    two = layout_to_image(pipeline, [boxes, [(5, 0.0, 0.0, 0.5, 0.5)]], sampling=PLAIN)
    np.testing.assert_allclose(one[0], two[0], atol=1e-5)
    rows = np.array([tokens(boxes, 64, 8)])
    said = pipeline.parts.text_encoder.apply({'params': pipeline.params['text_encoder']}, rows).mean((1, 2))
    latents = np.broadcast_to(np.asarray(said)[:, None, None, None], (1, 8, 8, 3))
    np.testing.assert_allclose(one, decoded(pipeline, latents), atol=1e-4)


def test_guidance_without_anything_to_guide_by_is_refused():
    with pytest.raises(
        ValueError, match=r'conditioned on nothing, so there is nothing to guide away from.*3\.0'
    ):
        unconditional(answering(zoo(3), 'concat'), sampling=Sampling(guidance=Guidance(3.0)))
    with pytest.raises(
        ValueError,
        match='super_resolution is for models conditioned on a small image.*conditioned on nothing',
    ):
        super_resolution(answering(zoo(3), 'concat'), np.zeros((8, 8, 3)))
