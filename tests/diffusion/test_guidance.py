"""Guidance maps denoisers to a denoiser."""

import jax
import jax.numpy as jnp
import numpy as np

from ldm_jax.diffusion import guidance
from ldm_jax.schedules.scaled_linear import Schedule
from ldm_jax.types import Cond

X = jax.random.normal(jax.random.key(0), (3, 4, 4, 2))
LEVEL = Schedule().level(jnp.array(500.0))
BOTH = guidance.pair(Cond(vector=jnp.zeros((3, 1))), Cond(vector=jnp.full((3, 1), 2.0)))


def both(x, level):
    """A denoiser of the pair: its answer depends on picture, level and conditioning."""
    return jnp.tanh(x) * jnp.reshape(level.alpha, (-1, 1, 1, 1)) + BOTH.vector[:, :, None, None]


def expected(scale):
    uncond = jnp.tanh(X) * LEVEL.alpha
    return uncond + jnp.reshape(jnp.asarray(scale), (-1, 1, 1, 1)) * 2.0


def test_scale_zero_is_unconditional_one_conditional_and_more_goes_beyond():
    for scale in (0.0, 1.0, 7.5):
        out = guidance.classifier_free(both, scale)(X, LEVEL)
        np.testing.assert_allclose(out, expected(scale), rtol=1e-6)


def test_each_picture_can_have_its_own_scale():
    scale = jnp.array([0.0, 1.0, 5.0])
    np.testing.assert_allclose(guidance.classifier_free(both, scale)(X, LEVEL), expected(scale), rtol=1e-6)


def test_each_picture_can_have_its_own_level():
    levels = Schedule().level(jnp.array([0.0, 500.0, 999.0]))
    out = guidance.classifier_free(both, 1.0)(X, levels)
    np.testing.assert_allclose(out, jnp.tanh(X) * levels.alpha[:, None, None, None] + 2, rtol=1e-6)


def test_a_pair_keeps_absent_parts_absent():
    assert BOTH.context is None
    np.testing.assert_array_equal(BOTH.vector[:, 0], [0, 0, 0, 2, 2, 2])
