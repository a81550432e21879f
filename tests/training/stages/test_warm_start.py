"""A trained network goes on with more channels than it had."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ldm_jax import trees
from ldm_jax.models import unet
from ldm_jax.training.stages.warm_start import fitted
from ldm_jax.types import Cond

SMALL = dict(
    channels=8, channel_mult=(1,), num_res_blocks=1, depth=(0,), mid_depth=0, num_heads=1, num_groups=4
)
PLAIN, WIDE = unet.Model(in_channels=4, **SMALL), unet.Model(in_channels=9, **SMALL)


def parameters(model, seed=0):
    """Every one of them at random, so that nothing is hidden by a layer of zeros."""
    rng = np.random.default_rng(seed)
    return jax.tree.map(
        lambda s: jnp.asarray(rng.standard_normal(s.shape) * 0.3, jnp.float32), trees.shapes(model, size=8)
    )


@pytest.mark.slow
def test_added_channels_change_nothing_until_they_are_trained():
    params = parameters(PLAIN)
    wide = fitted(params, trees.shapes(WIDE, size=8))
    x, t = jax.random.normal(jax.random.key(0), (2, 8, 8, 4)), jnp.array([3.0, 500.0])
    concat = 100 * jax.random.normal(jax.random.key(1), (2, 8, 8, 5))
    before = jax.jit(PLAIN.apply)({'params': params}, x, t)

    def value(wide):
        after = WIDE.apply({'params': wide}, x, t, Cond(concat=concat))
        return jnp.sum(after**2), after

    (_, after), gradient = jax.jit(jax.value_and_grad(value, has_aux=True))(wide)
    np.testing.assert_allclose(after, before, rtol=1e-5, atol=1e-5)
    assert np.abs(gradient['conv_in']['kernel'][:, :, 4:]).min() > 0  # they will be


def test_other_differences_are_named():
    params = parameters(PLAIN)
    with pytest.raises(ValueError, match=r'conv_in/kernel is \[3, 3, 9, 8\].*\[3, 3, 4, 8\]'):
        fitted(parameters(WIDE), trees.shapes(PLAIN, size=8))
    other = unet.Model(in_channels=4, **SMALL | dict(channels=16))
    with pytest.raises(ValueError, match='is .* and this network wants'):
        fitted(params, trees.shapes(other, size=8))
    deeper = unet.Model(in_channels=4, **SMALL | dict(num_res_blocks=2))
    with pytest.raises(ValueError, match='of another network: .* missing'):
        fitted(params, trees.shapes(deeper, size=8))
