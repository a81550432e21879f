"""The diffusion transformer: published sizes, diffusers' network on the same weights, what starts as the identity."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import configs
from ldm_jax import build, trees
from ldm_jax.checkpoints import apply_layout
from ldm_jax.checkpoints.layouts import dit as layouts
from ldm_jax.models import dit
from ldm_jax.types import Cond
from tests import oracles

# Parameters of patches 2, 4, 8 with the table of positions at 32 x 32, by Peebles & Xie's code.
SIZES = {
    's': (32_963_360, 32_945_024, 33_148_160),
    'b': (130_512_416, 130_475_648, 130_881_536),
    'l': (458_102_816, 458_053_760, 458_594_816),
    'xl': (675_129_632, 675_074_432, 675_683_072),
}
TINY = dict(width=24, depth=2, num_heads=2, num_classes=6, learned_variance=True)


@pytest.mark.parametrize(
    'name', ['s', *(pytest.param(name, marks=pytest.mark.slow) for name in ('b', 'l', 'xl'))]
)
def test_published_sizes_are_those_of_the_training_configs(name):
    for patch, count in zip((2, 4, 8), SIZES[name], strict=True):
        specs = [configs.load(f'train_dit:{kind}_{name}{patch}').models.unet for kind in ('dit', 'sit')]
        assert specs[0] == specs[1]
        model = build.build('models', dict(specs[0], learned_variance=True))
        table = (32 // patch) ** 2 * model.width
        assert trees.count(trees.shapes(model, size=32)) + table == count


def sinusoids(t):
    """The original's embedding of times [B], in float64; diffusers' takes 127 for 128 here, and float32."""
    import torch

    angles = t[:, None] * 10000 ** (-torch.arange(128, dtype=torch.float64) / 128)
    return torch.cat([angles.cos(), angles.sin()], dim=-1)


def theirs(model, size):
    """diffusers' network of the same fields, made to compute what the original does, in float64."""
    diffusers = pytest.importorskip('diffusers')
    network = diffusers.DiTTransformer2DModel(
        num_attention_heads=model.num_heads,
        attention_head_dim=model.width // model.num_heads,
        in_channels=4,
        out_channels=8,
        num_layers=model.depth,
        sample_size=size,
        patch_size=model.patch,
        num_embeds_ada_norm=model.num_classes - 1,
        norm_eps=dit.EPSILON,
    )
    oracles.randomize(network)
    first = network.transformer_blocks[0].norm1.emb
    for block in network.transformer_blocks:
        block.norm1.emb.load_state_dict(first.state_dict())
        block.norm1.emb.time_proj.forward = sinusoids
    return network.double().eval()


@pytest.fixture(scope='module', params=[pytest.param(1, marks=pytest.mark.slow), 2])
def pair(request):
    model = dit.Model(patch=request.param, **TINY)
    network = theirs(model, 8)
    return (
        model,
        network,
        oracles.params_like(model, layouts.diffusers(model), oracles.tensors(network), size=8),
    )


@pytest.mark.parametrize(
    ('dtype', 'tolerance'), [('float64', 1e-9), pytest.param('float32', 1e-5, marks=pytest.mark.slow)]
)
def test_it_is_the_original_network(pair, dtype, tolerance):
    import torch

    model, network, params = pair
    x = np.random.default_rng(0).standard_normal((2, 8, 8, 4))
    t, label = np.array([3.0, 871.0]), np.array([5, 2])
    with torch.no_grad():
        # In float64 their table of positions is still the float32 one.
        network.pos_embed.pos_embed.copy_(
            torch.from_numpy(np.asarray(positions64(8 // model.patch, model.width))[None])
        )
        expected = network(
            torch.from_numpy(x.transpose(0, 3, 1, 2)), torch.from_numpy(t), torch.from_numpy(label)
        ).sample.numpy()
    expected = expected.transpose(0, 2, 3, 1)
    with oracles.float64():
        p, given = trees.cast((params, (x, t, Cond(label=label))), dtype)
        network_dtype = model.clone(dtype=jnp.dtype(dtype))
        ours = jax.jit(lambda p, *given: network_dtype.apply({'params': p}, *given, variance=True))(p, *given)
        short = jax.eval_shape(network_dtype.apply, {'params': p}, *given)
    assert ours.dtype == dtype
    assert oracles.relative_error(ours, expected) < tolerance
    assert short.shape == x.shape


def positions64(side, width):
    """The table by its definition: channel by channel, the column's sinusoids first."""
    table = np.empty((side, side, 2, 2, width // 4))  # row, column, of which, sine or cosine, frequency
    for row in range(side):
        for column in range(side):
            for half, place in enumerate((column, row)):
                for i in range(width // 4):
                    angle = place / 10000 ** (4 * i / width)
                    table[row, column, half, :, i] = np.sin(angle), np.cos(angle)
    return table.reshape(side * side, width)


def test_positions_of_latents_wider_than_tall():
    with oracles.float64():
        wide = np.asarray(dit.positions(2, 5, 12)).reshape(2, 5, 12)
    np.testing.assert_allclose(wide, positions64(5, 12).reshape(5, 5, 12)[:2], atol=1e-14)


def test_both_layouts_are_bit_exact_there_and_back(pair):
    model, network, params = pair
    state = oracles.tensors(network)
    again = apply_layout.export_params(layouts.diffusers(model), params)
    assert again.keys() == state.keys() - {'pos_embed.pos_embed'}
    for key, array in again.items():
        np.testing.assert_array_equal(array, state[key])
    original = apply_layout.export_params(layouts.original(model), params)
    assert len(original) == 11 + 10 * model.depth
    back = oracles.params_like(model, layouts.original(model), original, size=8)
    assert trees.named(back).keys() == trees.named(params).keys()
    for path, leaf in trees.named(back).items():
        np.testing.assert_array_equal(leaf, trees.named(params)[path])


def test_embedders_that_differ_between_blocks_are_refused(pair):
    model, network, _ = pair
    state = oracles.tensors(network)
    key = 'transformer_blocks.1.norm1.emb.timestep_embedder.linear_2.bias'
    state[key] = state[key] + 1
    with pytest.raises(ValueError, match=r'transformer_blocks\.1\.norm1\.emb\S* differs from its copy'):
        oracles.params_like(model, layouts.diffusers(model), state, size=8)


@pytest.mark.slow
def test_a_new_one_returns_zero_and_its_blocks_are_the_identity():
    model = dit.Model(**TINY)
    x = jax.random.normal(jax.random.key(0), (2, 8, 4, 4))
    args = x, jnp.float32(7), Cond(label=jnp.array([1, 5]))
    params = trees.init(model, jax.random.key(1), size=8)
    np.testing.assert_array_equal(model.apply({'params': params}, *args), 0)
    tokens, vector = jnp.ones((2, 3, 24)), jnp.ones((2, 24))
    block = dit.Block(24, 2)
    np.testing.assert_array_equal(block.init_with_output(jax.random.key(0), tokens, vector)[0], tokens)
    qkv = np.concatenate([params['block_0']['attention'][part]['kernel'] for part in 'qkv'], axis=1)
    assert 0.9 * np.sqrt(6 / (4 * 24)) < np.abs(qkv).max() <= np.sqrt(6 / (4 * 24))


@pytest.mark.parametrize(
    ('x', 'cond', 'words'),
    [
        ((1, 8, 8, 3), Cond(label=0), 'latents .*4.*got'),
        ((1, 7, 8, 4), Cond(label=0), 'multiples of 2'),
        ((1, 8, 8, 4), Cond(), 'needs Cond.label'),
        ((1, 8, 8, 4), Cond(label=0, context=1), 'takes no Cond.context'),
    ],
)
def test_wrong_inputs_are_named(x, cond, words):
    cond = jax.tree.map(lambda value: jnp.full((1,), value), cond)
    with pytest.raises(ValueError, match=words):
        jax.eval_shape(dit.Model(**TINY).init, jax.random.key(0), jnp.zeros(x), jnp.zeros(1), cond)
    with pytest.raises(ValueError, match='multiple of num_heads'):
        dit.Model(width=30, num_heads=4)
