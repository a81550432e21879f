"""Layouts of the first stages: the published ones' parameters, keys and shapes; the original code's numbers.

How the digests and the fixtures were made: tests/models/fixtures/README_first_stages.md.
"""

import functools
import hashlib
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ldm_jax import trees
from ldm_jax.checkpoints import apply_layout
from ldm_jax.checkpoints.layouts import autoencoder
from ldm_jax.checkpoints.layouts import taesd as taesd_layouts
from ldm_jax.models import taesd, vae, vq
from tests import oracles
from tests.tiers import fast

FIXTURES = Path(__file__).parents[1] / 'models' / 'fixtures'

# Model, parameters, and of the original's state dict the number of keys and the start of their digest.
PUBLISHED = {
    'kl-f4': (vae.Model(3, channel_mult=(1, 2, 4)), 55_312_063, 204, 'c6bf2ab3625d39d0'),
    'kl-f8': (vae.Model(), 83_653_863, 248, '50f3b11a29b71571'),
    'kl-f16': (
        vae.Model(16, channel_mult=(1, 1, 2, 2, 4), attention_levels=(4,)),
        69_610_963,
        342,
        '9c9db537ea59e4f7',
    ),
    'kl-f32': (
        vae.Model(64, channel_mult=(1, 1, 2, 2, 4, 4), attention_levels=(4, 5)),
        103_880_131,
        436,
        'e23bd2c34563a2f7',
    ),
    'x4-upscaler': (vae.Model(4, channel_mult=(1, 2, 4)), 55_325_927, 204, 'd0b63caabc8fbfef'),
    'vq-f4': (vq.Model(), 55_322_782, 205, 'c906ade7ecd44142'),
    'vq-f4-noattn': (vq.Model(mid_attention=False), 53_219_486, 185, '28e737e915ad8131'),
    'vq-f8': (
        vq.Model(16384, 4, channel_mult=(1, 2, 2, 4), attention_levels=(3,)),
        67_717_295,
        299,
        '0f7ce9a4459aadb1',
    ),
    'vq-f8-n256': (
        vq.Model(256, 4, channel_mult=(1, 2, 2, 4), attention_levels=(3,)),
        67_652_783,
        299,
        'da301049b536ee44',
    ),
    'vq-f16': (
        vq.Model(16384, 8, channel_mult=(1, 1, 2, 2, 4), attention_levels=(4,)),
        69_593_371,
        343,
        'c718670bf86dee9f',
    ),
    'taesd': (taesd.Model(), 2_445_063, 134, 'fb97e299460f17a2'),
    'taesd3': (taesd.Model(16), 2_458_899, 134, 'bf197e28ddea57ea'),
    'taef2': (taesd.Model(32, mid_norm=True), 1_338_528 + 1_338_499, 158, 'f5facf684b14f930'),
}
ROUND_TRIPS = {
    'kl': vae.Model(3, channels=32, channel_mult=(1, 2, 2), num_res_blocks=1, attention_levels=(1,)),
    'vq': vq.Model(9, 3, channels=32, channel_mult=(2, 1), num_res_blocks=1, mid_attention=False),
    'taesd': taesd.Model(channels=16, num_blocks=(1, 2)),
    'taef2': taesd.Model(channels=16, num_blocks=(1, 2), mid_norm=True),
}


@functools.cache
def shapes(model):
    return trees.shapes(model, size=64)


def layout_of(model, names):
    return (taesd_layouts if isinstance(model, taesd.Model) else autoencoder).layout(model, names)


def original(model):
    return layout_of(model, 'taesd' if isinstance(model, taesd.Model) else 'compvis')


def listing(layout, shapes):
    """The torch side's shapes by key, without arrays of their sizes."""
    ours = trees.named(shapes)
    found = {}
    for rule in layout.rules:
        arrays = rule.to_torch(tuple(np.broadcast_to(np.int8(0), ours[path].shape) for path in rule.flax))
        found |= {key: array.shape for key, array in zip(rule.torch, arrays, strict=True)}
    return found


def seeded_params(model, layout, seed, size):
    """Weights by the fixtures' recipe: keys in sorted order, one generator."""
    rng = np.random.default_rng(seed)
    tensors = {}
    for key, shape in sorted(listing(layout, trees.shapes(model, size=size)).items()):
        values = rng.standard_normal(shape)
        if len(shape) > 1:
            values /= np.sqrt(np.prod(shape[1:]))
        else:
            values = 1 + 0.2 * values if key.endswith('weight') else values / 4
        tensors[key] = values
    return oracles.params_like(model, layout, tensors, size=size)


def assert_parity(model, fixture, seed, outputs):
    """outputs(model with weights, fixture) gives the arrays that the fixture keeps by the same names."""
    kept, layout = np.load(FIXTURES / f'{fixture}.npz'), original(model)
    with oracles.float64():
        params = seeded_params(model, layout, seed, size=8)
        found = jax.jit(lambda params: outputs(model.bind({'params': params}), kept))(params)
    for name, array in found.items():
        assert oracles.relative_error(array, kept[name]) < 1e-9, name


@pytest.mark.slow
@pytest.mark.parametrize('name', PUBLISHED)
def test_parameters_keys_and_shapes_of_the_published(name):
    model, count, num_keys, digest = PUBLISHED[name]
    assert trees.count(shapes(model)) == count
    found = listing(original(model), shapes(model))
    text = '\n'.join(f'{key} {shape}' for key, shape in sorted(found.items()))
    assert len(found) == num_keys
    assert hashlib.sha256(text.encode()).hexdigest().startswith(digest)


@pytest.mark.parametrize('name', fast(3, [name for name in PUBLISHED if name != 'taef2']))
def test_keys_and_shapes_are_those_of_diffusers(name):
    torch, diffusers = pytest.importorskip('torch'), pytest.importorskip('diffusers')
    model = PUBLISHED[name][0]
    with torch.device('meta'):
        if isinstance(model, taesd.Model):
            reference = diffusers.AutoencoderTiny(latent_channels=model.z_channels)
        else:
            attends = [level in model.attention_levels for level in range(len(model.channel_mult))]
            settings = dict(
                down_block_types=['AttnDownEncoderBlock2D' if a else 'DownEncoderBlock2D' for a in attends],
                up_block_types=['AttnUpDecoderBlock2D' if a else 'UpDecoderBlock2D' for a in attends[::-1]],
                block_out_channels=[128 * mult for mult in model.channel_mult],
                layers_per_block=2,
                latent_channels=model.z_channels,
                mid_block_add_attention=model.mid_attention,
            )
            if isinstance(model, vq.Model):
                reference = diffusers.VQModel(**settings, num_vq_embeddings=model.num_codes)
            else:
                reference = diffusers.AutoencoderKL(**settings)
    theirs = {key: tuple(tensor.shape) for key, tensor in reference.state_dict().items()}
    assert listing(layout_of(model, 'diffusers'), shapes(model)) == theirs


def test_early_diffusers_names_become_today_s():
    torch, diffusers = pytest.importorskip('torch'), pytest.importorskip('diffusers')
    model = vae.Model()
    with torch.device('meta'):
        reference = diffusers.AutoencoderKL(
            down_block_types=['DownEncoderBlock2D'] * 4,
            up_block_types=['UpDecoderBlock2D'] * 4,
            block_out_channels=[128, 256, 512, 512],
            layers_per_block=2,
        )
    early = listing(layout_of(model, 'diffusers_old'), shapes(model))
    assert 'encoder.mid_block.attentions.0.proj_attn.weight' in early
    converted = reference._fix_state_dict_keys_on_load(early)
    assert converted == {key: tuple(tensor.shape) for key, tensor in reference.state_dict().items()}


@pytest.mark.parametrize(
    ('name', 'names'),
    [
        *((name, names) for name in ('kl', 'vq') for names in ('compvis', 'diffusers', 'diffusers_old')),
        ('taesd', 'taesd'),
        ('taesd', 'diffusers'),
        ('taef2', 'taesd'),
    ],
)
def test_round_trip_is_exact(name, names):
    model = ROUND_TRIPS[name]
    layout, rng = layout_of(model, names), np.random.default_rng(0)
    params = jax.tree.map(lambda s: rng.standard_normal(s.shape, np.float32), shapes(model))
    tensors = apply_layout.export_params(layout, params)
    assert {key: tensor.shape for key, tensor in tensors.items()} == listing(layout, shapes(model))
    again = apply_layout.import_params(layout, tensors, shapes(model))
    jax.tree.map(np.testing.assert_array_equal, again, params)


def test_losses_in_the_original_files_are_left_out():
    model = ROUND_TRIPS['vq']
    layout = original(model)
    zeros = {key: np.zeros(shape) for key, shape in listing(layout, shapes(model)).items()}
    apply_layout.import_params(
        layout, zeros | {'loss.discriminator.main.0.weight': np.zeros(3)}, shapes(model)
    )
    with pytest.raises(ValueError, match='surprise unknown'):
        apply_layout.import_params(layout, zeros | {'surprise': np.zeros(3)}, shapes(model))


def test_unknown_names_are_errors():
    with pytest.raises(ValueError, match=r"'sgm'; have \['compvis', 'diffusers', 'diffusers_old'\]"):
        autoencoder.layout(vae.Model(), 'sgm')
    with pytest.raises(ValueError, match=r"'compvis'; have \['diffusers', 'taesd'\]"):
        taesd_layouts.layout(taesd.Model(), 'compvis')
    with pytest.raises(ValueError, match="has no mid_norm; use names 'taesd'"):
        taesd_layouts.layout(taesd.Model(mid_norm=True), 'diffusers')


@pytest.mark.slow
def test_kl_outputs_are_the_original_s():
    def outputs(model, kept):
        image, moments = model(kept['x'])
        return {'reconstruction': image, 'moments': moments, 'kl': vae.kl_divergence(moments)}

    model = vae.Model(
        3, channels=32, channel_mult=(1, 2), num_res_blocks=1, attention_levels=(0,), dtype=jnp.float64
    )
    assert_parity(model, 'first_stage_kl', 1, outputs)


@pytest.mark.slow
def test_vq_outputs_are_the_original_s():
    def outputs(model, kept):
        latents = model.latents(kept['x'])
        _, loss, indices = model.quantize(latents)
        return {
            'latents': latents,
            'indices': indices,
            'loss': loss,
            'reconstruction': model.decode(latents),
            'decoded_unquantized': model.decode(kept['z'], quantize=False),
        }

    model = vq.Model(
        24, 3, channels=32, channel_mult=(1, 2), num_res_blocks=1, mid_attention=False, dtype=jnp.float64
    )
    assert_parity(model, 'first_stage_vq', 3, outputs)


def test_tiny_outputs_are_the_original_s():
    def outputs(model, kept):  # whose pixels are in [0, 1]
        return {'latents': model.latents(2 * kept['x'] - 1), 'decoded': (model.decode(kept['z']) + 1) / 2}

    model = taesd.Model(5, channels=16, num_blocks=(1, 2), mid_norm=True, dtype=jnp.float64)
    assert_parity(model, 'first_stage_taef2', 6, outputs)
