"""The generator of images' noise gives the bits of JAX's own Philox, and goes where that one does not."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, PartitionSpec

from ldm_jax.diffusion.prng import PHILOX
from tests.tiers import fast

SEEDS = [0, 1, 2**31 - 1, 2**32 - 1, -1, 2**40 + 7]


def both(function, seed=5):
    """What a function of a key gives with each generator, keys as their data."""
    found = (function(jax.random.key(seed, impl=impl)) for impl in (PHILOX, 'philox4x32'))
    return [
        jax.random.key_data(a) if jax.dtypes.issubdtype(a.dtype, jax.dtypes.prng_key) else a for a in found
    ]


@pytest.mark.parametrize('x64', [False, True])
@pytest.mark.parametrize('seed', SEEDS)
def test_a_seed_makes_the_same_key(seed, x64):
    with jax.enable_x64(x64):
        if not x64:
            seed = np.asarray(seed).astype(np.uint32)
        np.testing.assert_array_equal(*both(lambda key: key, seed))


@pytest.mark.parametrize('width', fast(2, [8, 16, 32, 64]))
@pytest.mark.parametrize('shape', fast(1, [(3, 5), ()], single=True))
def test_bits(width, shape):
    with jax.enable_x64():
        ours, theirs = both(lambda key: jax.random.bits(key, shape, f'uint{width}'))
        assert ours.dtype == theirs.dtype
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize(
    'function',
    [
        lambda key: jax.random.split(key, (2, 3)),
        lambda key: jax.random.fold_in(key, 2**32 - 1),
        lambda key: jax.random.normal(jax.random.split(key)[1], (7, 2)),
        lambda key: jax.vmap(jax.random.fold_in, (None, 0))(key, jnp.arange(4)),
    ],
)
def test_keys_and_draws(function):
    np.testing.assert_array_equal(*both(function))


def test_devices_that_share_a_batch_draw_each_its_part():
    mesh = Mesh(np.array(jax.devices()[:8]), ('data',))
    keys = jax.random.split(jax.random.key(0, impl=PHILOX), 8)

    def draw(keys):
        return jax.vmap(lambda key: jax.random.normal(key, (64, 4)))(keys)

    spread = jax.shard_map(draw, mesh=mesh, in_specs=PartitionSpec('data'), out_specs=PartitionSpec('data'))
    np.testing.assert_array_equal(jax.jit(spread)(keys), jax.jit(draw)(keys))
