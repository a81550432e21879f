"""The whole pipeline against diffusers' with the same weights and noise, and what its arguments mean."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ldm_jax import trees
from ldm_jax.build import build
from ldm_jax.diffusion.noise import normal, split
from ldm_jax.pipelines import text_to_image
from tests import oracles

SETTINGS = {
    'models': {
        'text_encoder': dict(
            name='clip_text',
            vocab_size=100,
            context_length=6,
            width=16,
            num_layers=2,
            num_heads=2,
            end_id=99,
        ),
        'unet': dict(
            name='unet',
            channels=32,
            channel_mult=[1, 2],
            num_res_blocks=1,
            depth=[1, 0],
            num_heads=2,
            context_width=16,
            num_groups=8,
        ),
        'first_stage': dict(name='vae', channels=16, channel_mult=[1, 2], num_res_blocks=1, num_groups=8),
    },
    'schedule': dict(name='scaled_linear'),
    'parameterization': 'eps',
    'latent_scale': 0.18215,
    'latent_size': 8,
}
TOKENS = np.array([[98, 5, 7, 99, 99, 99], [98, 11, 12, 13, 14, 99]], np.int32)
NULL = np.array([[98, 99, 99, 99, 99, 99]] * 2, np.int32)


def pipeline(**changes):
    base = text_to_image.from_settings(SETTINGS, sampler=dict(name='ddim'), num_steps=4, grid='leading')
    return dataclasses.replace(base, latent_size=(8, 4), **changes)


@pytest.fixture(scope='module')
def params():
    """Random parameters, those that start at zero too, so that every input matters."""
    rng = np.random.default_rng(0)
    made = {}
    for part in ('text_encoder', 'unet', 'first_stage'):
        model = build('models', SETTINGS['models'][part])
        shapes = trees.shapes(model) if part == 'text_encoder' else trees.shapes(model, size=8)
        made[part] = jax.tree.map(
            lambda s: jnp.asarray(
                rng.standard_normal(s.shape) / np.sqrt(max(1, np.prod(s.shape[:-1]))), s.dtype
            ),
            shapes,
        )
    return made


@pytest.fixture(scope='module')
def run(params):
    sample = jax.jit(pipeline())

    def run(tokens=TOKENS, null=NULL, seed=0, scale=3.0):
        return np.asarray(sample(params, tokens, null, jax.random.key(seed), scale))

    return run


def test_images_have_the_size_of_the_latents_times_the_downscale_and_lie_in_range(run):
    images = run()
    assert images.shape == (2, 16, 8, 3)
    assert images.min() >= -1
    assert images.max() <= 1


def test_an_image_depends_on_the_seed_and_its_place_not_on_the_batch(run):
    both, first = run(), run(TOKENS[:1], NULL[:1])
    np.testing.assert_allclose(both[:1], first, atol=2e-5)
    assert np.abs(run(seed=1) - both).max() > 0.01


def test_the_prompt_matters_and_without_guidance_the_negative_one_does_not(run):
    assert np.abs(run(TOKENS[::-1].copy()) - run()).max() > 1e-3
    np.testing.assert_allclose(run(scale=1.0), run(scale=1.0, null=TOKENS[::-1].copy()), atol=2e-5)
    assert np.abs(run(scale=3.0, null=TOKENS[::-1].copy()) - run(scale=3.0)).max() > 1e-3


def test_settings_make_a_hashable_pipeline_in_the_asked_dtype():
    made = text_to_image.from_settings(
        SETTINGS, sampler=dict(name='ddim', eta=1.0), num_steps=7, dtype='bfloat16'
    )
    hash(made)
    assert made.unet.dtype == made.first_stage.dtype == made.text_encoder.dtype == jnp.bfloat16
    assert (made.sampler.eta, made.num_steps, made.latent_size) == (1.0, 7, (8, 8))


def test_the_whole_pipeline_gives_the_images_of_diffusers():
    torch = pytest.importorskip('torch')
    diffusers = pytest.importorskip('diffusers')
    transformers = pytest.importorskip('transformers')
    from ldm_jax.checkpoints.layouts import autoencoder, diffusers_unet, transformers_clip

    text = transformers.CLIPTextModel(
        transformers.CLIPTextConfig(
            vocab_size=100,
            hidden_size=16,
            intermediate_size=64,
            num_hidden_layers=2,
            num_attention_heads=2,
            max_position_embeddings=6,
            bos_token_id=98,
            eos_token_id=99,
        )
    )
    unet = diffusers.UNet2DConditionModel(
        sample_size=8,
        block_out_channels=(32, 64),
        layers_per_block=1,
        down_block_types=('CrossAttnDownBlock2D', 'DownBlock2D'),
        up_block_types=('UpBlock2D', 'CrossAttnUpBlock2D'),
        cross_attention_dim=16,
        attention_head_dim=2,
        norm_num_groups=8,
    )
    vae = diffusers.AutoencoderKL(
        block_out_channels=(16, 32),
        down_block_types=('DownEncoderBlock2D',) * 2,
        up_block_types=('UpDecoderBlock2D',) * 2,
        layers_per_block=1,
        latent_channels=4,
        norm_num_groups=8,
    )
    for seed, module in enumerate((text, unet, vae)):
        oracles.randomize(module, seed)
        module.eval()
    scheduler = diffusers.DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule='scaled_linear',
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
    )
    ours = pipeline()
    params = {
        'text_encoder': oracles.params_like(
            ours.text_encoder,
            transformers_clip.layout(ours.text_encoder, nested=False),
            oracles.tensors(text),
        ),
        'unet': oracles.params_like(
            ours.unet, diffusers_unet.layout(ours.unet), oracles.tensors(unet), size=8
        ),
        'first_stage': oracles.params_like(
            ours.first_stage, autoencoder.layout(ours.first_stage, 'diffusers'), oracles.tensors(vae), size=8
        ),
    }
    key = jax.random.key(5)
    images = jax.jit(ours)(params, TOKENS, NULL, key, 3.0)

    keys = jax.vmap(jax.random.fold_in, (None, 0))(key, jnp.arange(2))
    noise = np.asarray(normal(split(keys, 2)[0], ours.latents(2))).transpose(0, 3, 1, 2)
    with torch.no_grad():
        context, null = (text(torch.from_numpy(ids).long()).last_hidden_state for ids in (TOKENS, NULL))
        scheduler.set_timesteps(4)
        x = torch.from_numpy(noise.copy()) * float(
            scheduler.alphas_cumprod[scheduler.timesteps[0]].neg().add(1).sqrt()
        )
        for t in scheduler.timesteps:
            uncond, cond = unet(torch.cat([x, x]), t, torch.cat([null, context])).sample.chunk(2)
            x = scheduler.step(uncond + 3.0 * (cond - uncond), t, x).prev_sample
        expected = vae.decode(x / 0.18215).sample.clamp(-1, 1).numpy().transpose(0, 2, 3, 1)
    assert oracles.relative_error(images, expected) < 5e-5
