"""Weightings against the formulas that papers and public trainers state."""

import jax.numpy as jnp
import numpy as np
import pytest

from ldm_jax.diffusion import parameterization, weighting
from ldm_jax.schedules import cosine, edm, flow, scaled_linear, zero_terminal
from ldm_jax.types import NoiseLevel

LEVEL = scaled_linear.Schedule().level(jnp.array([0.0, 10.0, 300.0, 700.0, 999.0]))
SNR = np.asarray(LEVEL.alpha / LEVEL.sigma, np.float64) ** 2
PARAMETERIZATIONS = ['eps', 'v', 'x0', 'flow', dict(name='edm', sigma_data=0.7)]


def weights(spec, predicted, level=LEVEL):
    return weighting.named(spec)(level, parameterization.named(predicted)(level))


# The formulas of diffusers' text-to-image trainer (snr weights), of the P2 and debiased papers, for eps; with v all
# are multiplied by snr / (snr + 1), with x0 by snr.
ON_EPS = {
    'min_snr': np.minimum(SNR, 5) / SNR,
    'soft_min_snr': 5 / (SNR + 5),
    'truncated_snr': np.maximum(SNR, 1) / SNR,
    'p2': 1 / (1 + SNR),
    'edm': (SNR + 1 / 0.5**2) / SNR,
    'sigmoid': np.exp(1) / (np.exp(1) + SNR),
    'debiased': 1 / np.sqrt(SNR),
}


@pytest.mark.parametrize('name', ON_EPS)
def test_formulas(name):
    np.testing.assert_allclose(weights(name, 'eps'), ON_EPS[name], rtol=1e-4)
    np.testing.assert_allclose(weights(name, 'v'), ON_EPS[name] * SNR / (SNR + 1), rtol=1e-4)
    np.testing.assert_allclose(weights(name, 'x0'), ON_EPS[name] * SNR, rtol=1e-4)


def test_every_weighting_is_tested():
    assert weighting.WEIGHTINGS.keys() == ON_EPS.keys() | {'uniform'}


def test_knobs():
    np.testing.assert_allclose(weights(dict(name='min_snr', gamma=1.0), 'x0'), np.minimum(SNR, 1), rtol=1e-4)
    expected = (0.5 + SNR) ** -2.0
    np.testing.assert_allclose(weights(dict(name='p2', k=0.5, gamma=2.0), 'eps'), expected, rtol=1e-4)
    expected = 1 / (1 + np.exp(np.log(SNR) + 2))
    np.testing.assert_allclose(weights(dict(name='sigmoid', bias=-2.0), 'eps'), expected, rtol=1e-3)


@pytest.mark.parametrize('name', ON_EPS)
@pytest.mark.parametrize('schedule', [scaled_linear.Schedule(), flow.Schedule(shift=3.0), edm.Schedule()])
def test_one_denoiser_has_one_loss_whatever_it_predicts(name, schedule):
    level = schedule.level(jnp.array([5.0, 400.0, 900.0]))
    # An error d of x0_hat is one of d / c_out of the network's output.
    losses = [
        weights(name, predicted, level) / parameterization.named(predicted)(level).c_out ** 2
        for predicted in PARAMETERIZATIONS
    ]
    for loss in losses[1:]:
        np.testing.assert_allclose(loss, losses[0], rtol=1e-3)


def test_edm_s_weighting_is_uniform_for_its_network():
    level = NoiseLevel(t=jnp.zeros(4), alpha=jnp.ones(4), sigma=jnp.array([0.002, 0.3, 2.0, 80.0]))
    for sigma_data in (0.5, 1.3):
        spec = dict(name='edm', sigma_data=sigma_data)
        np.testing.assert_allclose(weights(spec, spec, level), 1, rtol=1e-5)


@pytest.mark.parametrize('name', weighting.WEIGHTINGS)
@pytest.mark.parametrize('schedule', [zero_terminal.Schedule(), flow.Schedule(), cosine.Schedule()])
@pytest.mark.parametrize('predicted', ['v', 'x0', 'flow'])
def test_at_noise_alone_weights_are_finite(name, schedule, predicted):
    found = weights(name, predicted, schedule.level(jnp.array([0.0, 999.0])))
    assert np.isfinite(found).all()
    assert (found >= 0).all()


def test_mistakes_are_named():
    with pytest.raises(ValueError, match="No weighting 'min_snr_gamma'.*Did you mean 'min_snr'"):
        weighting.named('min_snr_gamma')
    with pytest.raises(ValueError, match="No knob of weighting min_snr 'gama'"):
        weighting.named(dict(name='min_snr', gama=5))
