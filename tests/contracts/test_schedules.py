"""What every schedule must do."""

import jax.numpy as jnp
import numpy as np
import pytest

from ldm_jax import build
from tests import oracles
from tests.tiers import fast

SPECS = [dict(name=name) for name in build.names('schedules')] + [
    dict(name='cosine', shift=4.0),
    dict(name='flow', shift=3.0),
    dict(name='edm', sigma_min=0.02, sigma_max=14.0, rho=3.0),
    dict(name='zero_terminal', last_alpha_cumprod=4.8973451890853435e-08),
    dict(name='zero_terminal', base=dict(name='squared_cosine', num_train_steps=50)),
    dict(name='trained_betas', betas=[*np.linspace(0.001, 0.3, 40).tolist(), 1.0]),
]
NAMES = len(build.names('schedules'))
every_schedule = pytest.mark.parametrize('spec', SPECS[:NAMES] + fast(1, SPECS[NAMES:]), ids=str)


@every_schedule
def test_time_inverts_level(spec):
    with oracles.float64():
        schedule = build.build('schedules', spec)
        t = jnp.linspace(0, schedule.num_train_steps - 1, 137)
        level = schedule.level(t)
        np.testing.assert_allclose(
            schedule.time(2 * jnp.log(level.alpha / level.sigma)), t, rtol=1e-8, atol=1e-6
        )


@every_schedule
def test_time_inverts_level_in_float32(spec):
    schedule = build.build('schedules', spec)
    last = schedule.num_train_steps - 1
    level = schedule.level(jnp.linspace(0, last, 137))
    times = schedule.time(2 * jnp.log(level.alpha / level.sigma))
    np.testing.assert_allclose(times, level.t, atol=1e-5 * last)


@every_schedule
def test_noise_grows_with_time_and_leaves_share_the_shape_of_t(spec):
    schedule = build.build('schedules', spec)
    level = schedule.level(jnp.linspace(0, schedule.num_train_steps - 1, 50).reshape(5, 10))
    assert level.t.shape == level.alpha.shape == level.sigma.shape == (5, 10)
    assert (jnp.diff((level.sigma / level.alpha).ravel()) > 0).all()
    assert level.alpha.dtype == level.sigma.dtype == jnp.float32


@every_schedule
def test_times_beyond_the_ends_are_the_ends(spec):
    schedule = build.build('schedules', spec)
    last = schedule.num_train_steps - 1
    beyond, ends = schedule.level(jnp.array([-5.0, last + 5.0])), schedule.level(jnp.array([0.0, last]))
    np.testing.assert_array_equal(beyond.alpha, ends.alpha)
    np.testing.assert_array_equal(beyond.sigma, ends.sigma)
    np.testing.assert_allclose(schedule.time(jnp.array([jnp.inf, -jnp.inf])), [0, last], rtol=1e-6)


@every_schedule
def test_signal_and_noise_keep_their_sum_or_the_signal_its_size(spec):
    with oracles.float64():
        schedule = build.build('schedules', spec)
        level = schedule.level(jnp.linspace(0, schedule.num_train_steps - 1, 501))
        kept = {'flow': level.alpha + level.sigma, 'edm': level.alpha}
        np.testing.assert_allclose(kept.get(spec['name'], level.alpha**2 + level.sigma**2), 1, rtol=1e-12)
