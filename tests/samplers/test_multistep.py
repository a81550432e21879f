"""What a multistep scheme is worth once it has started, and the mathematics that the schemes share."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ldm_jax import build
from ldm_jax.diffusion import probability_flow
from ldm_jax.diffusion.sampling import padded, sample
from ldm_jax.types import NoiseLevel
from tests import oracles

STD = 0.7


def denoise(x, level):
    """For data N(0, STD^2): x0_hat is linear in x, and the flow keeps x over the spread of its level."""
    return level.alpha * STD**2 / (level.alpha**2 * STD**2 + level.sigma**2) * x


@pytest.mark.parametrize(
    ('spec', 'order'),
    [
        (dict(name='lms', max_order=3), 3),
        (dict(name='lms', max_order=4), 4),
        (dict(name='deis', max_order=3), 3),
        (dict(name='unipc', max_order=3, lower_order_final=False), 4),
        (
            dict(name='dpm_solver_multistep', max_order=3),
            2,
        ),  # the published second difference has half its weight
    ],
    ids=str,
)
def test_after_a_start_of_steps_that_double_the_order_is_that_of_the_scheme(spec, order):
    with oracles.float64():
        sampler, x, counts = build.build('samplers', spec), jnp.array([1.0, -0.5]), (96, 192, 384)

        @jax.jit
        def walk(levels, steps):
            return sample(sampler, denoise, x, levels, oracles.keys(x), steps)

        errors = []
        for steps in counts:
            # From about h^2 up to h, so that the start's lower orders do not show; a jump would magnify their errors.
            doublings = math.ceil(math.log2(steps / 3)) + 1
            widths = np.concatenate([0.5 ** np.arange(doublings, 0, -1), np.ones(steps - doublings)])
            lam = -1 + 3 * np.append(0.0, np.cumsum(widths) / widths.sum())
            alpha, sigma = 1 / np.sqrt(1 + np.exp(-2 * lam)), 1 / np.sqrt(1 + np.exp(2 * lam))
            levels = jax.tree.map(jnp.asarray, NoiseLevel(t=lam, alpha=alpha, sigma=sigma))
            out = walk(padded(levels, counts[-1]), steps)
            spread = np.hypot(alpha * STD, sigma)
            errors.append(np.abs(out - x * spread[-1] / spread[0]).max())
        orders = np.log2(np.array(errors[:-1]) / np.array(errors[1:]))
        np.testing.assert_allclose(orders, order, atol=0.2)


@pytest.mark.parametrize('z', [-8.0, -1.0, -0.3, -1e-6, 1e-4, 0.999, 1.001, 5.0])
def test_exponential_moments_are_their_integrals(z):
    nodes, weights = np.polynomial.legendre.leggauss(40)
    u = (nodes + 1) / 2
    with oracles.float64():
        moments = probability_flow.exponential_moments(jnp.asarray(z), 4)
        for j, moment in enumerate(moments):
            np.testing.assert_allclose(
                moment, z * np.dot(weights / 2, np.exp(z * (1 - u)) * u**j), rtol=1e-11
            )


@pytest.mark.parametrize('order', [1, 2, 3, 4])
def test_interpolatory_weights_are_exact_for_polynomials_below_their_order(order):
    nodes = [0.0, -0.7, -1.1, -3.0]
    with oracles.float64():
        moments = [1 / (j + 1) if j < order else math.nan for j in range(4)]  # missing ones may be NaN
        given = [jnp.asarray(node if k < order else math.nan) for k, node in enumerate(nodes)]
        weights = probability_flow.interpolatory(given, moments, order)
        for degree in range(order):
            value = sum(w * node**degree for w, node in zip(weights, nodes, strict=True))
            np.testing.assert_allclose(value, 1 / (degree + 1), rtol=1e-12)
        assert all(w == 0 for w in weights[order:])
        equal = probability_flow.interpolatory([jnp.asarray(-float(k)) for k in range(4)], moments, order)
        np.testing.assert_allclose(equal, probability_flow.adams_bashforth(order, 4), atol=1e-12)
