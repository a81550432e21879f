"""Tables of betas against diffusers', and the levels between their whole times."""

import jax.numpy as jnp
import numpy as np
import pytest

from ldm_jax import build
from tests import oracles


def theirs(**settings):
    diffusers = pytest.importorskip('diffusers')
    return diffusers.DDPMScheduler(**settings).alphas_cumprod.numpy()


@pytest.mark.parametrize(
    ('spec', 'settings', 'tolerance'),
    [
        (dict(name='linear'), dict(), 2e-5),
        (dict(name='linear', beta_start=0.001, beta_end=0.01), dict(beta_start=0.001, beta_end=0.01), 2e-5),
        (dict(name='squared_cosine'), dict(beta_schedule='squaredcos_cap_v2'), 2e-5),
        (
            dict(name='zero_terminal', base=dict(name='scaled_linear')),
            dict(
                beta_schedule='scaled_linear',
                beta_start=0.00085,
                beta_end=0.012,
                rescale_betas_zero_snr=True,
            ),
            2e-4,  # theirs subtracts two alphas in float32
        ),
    ],
)
def test_whole_times_equal_diffusers_table(spec, settings, tolerance):
    expected = theirs(**settings)
    with oracles.float64():
        level = build.build('schedules', spec).level(jnp.arange(1000))
        # their table is float32 throughout, which costs it 1e-5 over a thousand products
        np.testing.assert_allclose(level.alpha**2, expected, rtol=tolerance, atol=1e-9)
        np.testing.assert_allclose(level.sigma**2, 1 - expected, rtol=2e-3)


def test_log_snr_is_linear_between_whole_times():
    with oracles.float64():
        level = build.build('schedules', dict(name='linear')).level(jnp.array([400.0, 400.25, 401.0]))
        log_snr = 2 * jnp.log(level.alpha / level.sigma)
        np.testing.assert_allclose(log_snr[1], 0.75 * log_snr[0] + 0.25 * log_snr[2], rtol=1e-12)


def test_a_table_of_betas_in_closed_form():
    with oracles.float64():
        level = build.build('schedules', dict(name='linear', num_train_steps=2)).level(jnp.arange(2))
        np.testing.assert_allclose(level.alpha**2, [0.9999, 0.9999 * 0.98], rtol=1e-12)
        np.testing.assert_allclose(level.sigma**2, [0.0001, 1 - 0.9999 * 0.98], rtol=1e-12)


def test_the_capped_cosine_keeps_a_signal():
    level = build.build('schedules', dict(name='squared_cosine')).level(jnp.array([999.0]))
    assert 0 < level.alpha[0] < 1e-4


@pytest.mark.parametrize(
    'spec',
    [
        dict(name='linear', beta_start=0.0),
        dict(name='linear', beta_end=1.5),
        dict(name='squared_cosine', max_beta=1.0),
        dict(name='squared_cosine', num_train_steps=1),
    ],
)
def test_impossible_settings_are_refused(spec):
    with pytest.raises(ValueError, match='must'):
        build.build('schedules', spec)
