"""What every schedule must do."""

import jax.numpy as jnp
import numpy as np
import pytest

from ldm_jax import build
from tests import oracles

NAMES = build.names('schedules')


@pytest.mark.parametrize('name', NAMES)
def test_time_inverts_level(name):
    with oracles.float64():
        schedule = build.build('schedules', dict(name=name))
        t = jnp.linspace(0, schedule.num_train_steps - 1, 137)
        level = schedule.level(t)
        np.testing.assert_allclose(
            schedule.time(2 * jnp.log(level.alpha / level.sigma)), t, rtol=1e-8, atol=1e-6
        )


@pytest.mark.parametrize('name', NAMES)
def test_noise_grows_with_time_and_leaves_share_the_shape_of_t(name):
    schedule = build.build('schedules', dict(name=name))
    level = schedule.level(jnp.linspace(0, schedule.num_train_steps - 1, 50).reshape(5, 10))
    assert level.t.shape == level.alpha.shape == level.sigma.shape == (5, 10)
    assert (jnp.diff((level.sigma / level.alpha).ravel()) > 0).all()
    assert level.alpha.dtype == level.sigma.dtype == jnp.float32
