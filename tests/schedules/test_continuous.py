"""Schedules in continuous time against their closed forms."""

import jax.numpy as jnp
import numpy as np
import pytest

from ldm_jax.schedules import cosine, edm, flow
from tests import oracles


def test_flow_is_the_straight_line_and_its_shift_that_of_diffusers():
    diffusers = pytest.importorskip('diffusers')
    for shift in (1.0, 3.0):
        theirs = diffusers.FlowMatchEulerDiscreteScheduler(shift=shift).sigmas.numpy()
        with oracles.float64():
            level = flow.Schedule(shift).level(jnp.arange(1000)[::-1])
            np.testing.assert_allclose(level.sigma, theirs, rtol=1e-6)
            np.testing.assert_allclose(level.alpha, 1 - theirs, atol=1e-6)


def test_cosine_in_closed_form():
    with oracles.float64():
        level = cosine.Schedule().level(jnp.array([499.0, 999.0]))
        np.testing.assert_allclose([level.alpha[0], level.sigma[0]], np.sqrt(0.5), rtol=1e-12)
        assert (float(level.alpha[1]), float(level.sigma[1])) == (0, 1)


def test_a_shift_of_the_cosine_moves_log_snr():
    with oracles.float64():
        t = jnp.linspace(0, 990, 12)
        plain, shifted = (cosine.Schedule(shift).level(t) for shift in (1.0, 4.0))
        ratio = (shifted.sigma / shifted.alpha) / (plain.sigma / plain.alpha)
        np.testing.assert_allclose(ratio, 4, rtol=1e-10)


def test_even_times_of_edm_are_the_published_grid():
    with oracles.float64():
        sigma = edm.Schedule().level(jnp.linspace(999, 0, 18)).sigma
        i = np.arange(18)
        expected = (80 ** (1 / 7) + i / 17 * (0.002 ** (1 / 7) - 80 ** (1 / 7))) ** 7
        np.testing.assert_allclose(sigma, expected, rtol=1e-10)


@pytest.mark.parametrize(
    'make',
    [
        lambda: flow.Schedule(shift=0.0),
        lambda: cosine.Schedule(shift=-1.0),
        lambda: edm.Schedule(sigma_min=0.0),
        lambda: edm.Schedule(rho=0.0),
        lambda: flow.Schedule(num_train_steps=1),
    ],
)
def test_impossible_settings_are_refused(make):
    with pytest.raises(ValueError, match='must'):
        make()
