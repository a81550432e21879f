"""What samplers without noise must do, on a flow whose end is known; and what no run of any may compile."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ldm_jax import build
from ldm_jax.diffusion import grids
from ldm_jax.diffusion.sampling import ascending, padded, sample
from ldm_jax.schedules.scaled_linear import Schedule
from tests import oracles
from tests.contracts.test_samplers import STOCHASTIC
from tests.oracles import keys
from tests.tiers import fast

NAMES = [name for name in build.names('samplers') if not name.endswith('_cfg_pp')]
DETERMINISTIC = sorted(set(NAMES) - STOCHASTIC)
ADAPTIVE = {'dpm_adaptive'}  # their number of steps is their own
VARIANTS = [
    dict(name='lms', max_order=1),
    dict(name='pndm', skip_prk_steps=True),
    dict(name='dpm_solver_singlestep', max_order=3),
    dict(name='dpm_solver_singlestep', max_order=3, variant='dpmsolver', solver_type='heun'),
    dict(name='dpm_solver_multistep', max_order=1),
    dict(name='dpm_solver_multistep', max_order=3, euler_at_final=True),
    dict(name='dpm_solver_multistep', variant='dpmsolver', solver_type='heun'),
    dict(name='unipc', max_order=1),
    dict(name='unipc', predict_x0=False),
    dict(name='unipc', max_order=2, disable_corrector=tuple(range(400))),
    dict(name='unipc', max_order=2, variant='bh1', lower_order_final=False),
    dict(name='unipc', max_order=3, lower_order_final=False),
]
# Those that are smooth functions of the step's number.
GRIDS = ['time', 'karras', 'exponential', 'kl_optimal']
EVEN = {'plms', 'pndm'}  # their weights are those of even steps in time: of second order on others
# A mixture, the one-dimensional data.
CENTERS, WEIGHTS, WIDTH = np.array([-1.0, 0.5, 1.2]), np.array([0.3, 0.5, 0.2]), 0.6


def mixture_denoiser(x, level):
    """The best x0_hat for data drawn from a mixture of three Gaussians; x [B], level [] or [B]."""
    # Copies: jax remembers constants by their identity, and would take float32 ones for float64.
    centers, weights = (jnp.asarray(a.astype(x.dtype)) for a in (CENTERS, WEIGHTS))
    alpha, sigma = jnp.reshape(level.alpha, (-1, 1)), jnp.reshape(level.sigma, (-1, 1))
    variance = alpha**2 * WIDTH**2 + sigma**2
    apart = x[:, None] - alpha * centers
    share = jax.nn.softmax(jnp.log(weights) - apart**2 / (2 * variance))
    return jnp.sum(share * (centers + alpha * WIDTH**2 / variance * apart), 1)


@functools.cache
def mixture_flow(start, end, steps=2000):
    """Where the ODE takes linspace(-2, 2, 9) from time start to end, by Runge-Kutta 4 in log(sigma / alpha)."""

    def slope(log_rho, y):  # of y = x / alpha
        variance = WIDTH**2 + np.exp(2 * log_rho)
        apart = y[:, None] - np.array(CENTERS)
        share = np.array(WEIGHTS) * np.exp(-(apart**2) / (2 * variance))
        return np.exp(2 * log_rho) * np.sum(share * apart, 1) / variance / np.sum(share, 1)

    first, last = (jax.tree.map(np.asarray, Schedule().level(t)) for t in (start, end))
    y = np.linspace(-2, 2, 9) / first.alpha
    log_rho, h = np.log(first.sigma / first.alpha), 0.0
    h = (np.log(last.sigma / last.alpha) - log_rho) / steps
    for _ in range(steps):
        k1 = slope(log_rho, y)
        k2 = slope(log_rho + h / 2, y + h / 2 * k1)
        k3 = slope(log_rho + h / 2, y + h / 2 * k2)
        k4 = slope(log_rho + h, y + h * k3)
        y, log_rho = y + h / 6 * (k1 + 2 * k2 + 2 * k3 + k4), log_rho + h
    return y * last.alpha


def normal_cdf(x):
    return (1 + np.vectorize(math.erf)(x / math.sqrt(2))) / 2


def from_noise_to_data(steps):
    """Levels from no signal at all to clean data."""
    inner = Schedule().level(jnp.linspace(999.0, 0.0, steps + 1))
    return inner.replace(
        alpha=inner.alpha.at[0].set(0.0).at[-1].set(1.0), sigma=inner.sigma.at[0].set(1.0).at[-1].set(0.0)
    )


@functools.cache
def compiled(name):
    """(sampler, x [9], levels [41], steps, keys) -> x at the end, by the mixture's denoiser: a program a sampler."""

    def run(sampler, x, levels, steps, keys):
        return sample(sampler, mixture_denoiser, x, levels, keys, steps)

    return jax.jit(run)


def run(sampler, x, levels, keys):
    name = type(sampler).__module__.rpartition('.')[2]
    return compiled(name)(sampler, x, padded(levels, 40), len(levels.sigma) - 1, keys)


X = jnp.linspace(-2, 2, 9)


@pytest.mark.parametrize(
    'spec',
    fast(8, [dict(name=name) for name in DETERMINISTIC if name not in ADAPTIVE]) + fast(3, VARIANTS),
    ids=str,
)
def test_errors_shrink_at_the_declared_order_on_each_grid(spec):
    with oracles.float64():
        sampler = build.build('samplers', spec)
        x, counts = jnp.linspace(-2, 2, 9), (96, 192, 384)

        @jax.jit
        def walk(levels, steps):
            return sample(sampler, mixture_denoiser, x, levels, keys(x), steps)

        for grid in GRIDS:
            errors = []
            for steps in counts:
                out = walk(padded(between(grid, 600.0, 300.0, steps), counts[-1]), steps)
                errors.append(np.abs(out - mixture_flow(600.0, 300.0)).max())
            orders = np.log2(np.array(errors[:-1]) / np.array(errors[1:]))
            expected = sampler.order if grid == 'time' or spec['name'] not in EVEN else min(sampler.order, 2)
            np.testing.assert_allclose(orders, expected, atol=0.2, err_msg=str(grid))


def between(grid, start, end, steps):
    """Levels of so many steps from one time to another, spaced as a grid has them."""
    if grid == 'time':
        return Schedule().level(jnp.linspace(start, end, steps + 1))
    first, last = (Schedule().level(jnp.asarray(t)) for t in (start, end))
    ends = dict(sigma_max=float(first.sigma / first.alpha), sigma_min=float(last.sigma / last.alpha))
    levels = grids.named({'name': grid, **ends})(Schedule(), steps + 1)
    return jax.tree.map(lambda a: a[:-1], levels)  # without the step to clean data


@pytest.mark.slow
@pytest.mark.parametrize('name', DETERMINISTIC)
def test_from_no_signal_to_clean_data_is_finite_and_lands_on_it(name):
    sampler = build.build('samplers', dict(name=name))
    for steps in (1, 2, 3, 40):
        out = run(sampler, X, from_noise_to_data(steps), keys(X))
        assert np.isfinite(out).all(), steps
        if steps == 1:
            np.testing.assert_allclose(out, np.dot(WEIGHTS, CENTERS), atol=1e-6)
    # The same part of the data is below as of the noise.
    below = np.dot(normal_cdf((np.asarray(out)[:, None] - np.array(CENTERS)) / WIDTH), WEIGHTS)
    np.testing.assert_allclose(below, normal_cdf(np.asarray(X)), atol=0.06)


@pytest.mark.parametrize('name', fast(3, DETERMINISTIC))
def test_deterministic_sampling_ignores_its_key(name):
    sampler, levels = build.build('samplers', dict(name=name)), Schedule().level(jnp.linspace(999, 0, 7))
    np.testing.assert_array_equal(*(run(sampler, X, levels, keys(X, seed)) for seed in (1, 2)))


@pytest.mark.parametrize('name', fast(3, NAMES))
def test_an_image_depends_on_its_noise_and_key_alone(name):
    sampler, levels = build.build('samplers', dict(name=name)), Schedule().level(jnp.linspace(999, 0, 7))
    out = run(sampler, X, levels, keys(X))
    others = run(sampler, (X - 1).at[4].set(X[4]), levels, keys(X, 1).at[4].set(keys(X)[4]))
    np.testing.assert_array_equal(out[4], others[4])
    assert (out != others).sum() == 8


@pytest.mark.parametrize('name', fast(3, NAMES))
def test_knobs_steps_and_grid_compile_nothing(name):
    sampler = build.build('samplers', dict(name=name))
    for steps, start, knob in [(9, 999, 1.0), (1, 999, 0.9), (4, 700, 0.5), (40, 800, 2.0)]:
        turned = jax.tree.map(lambda a, knob=knob: type(a)(a * knob), sampler)
        run(turned, X, Schedule().level(jnp.linspace(start, 0, steps + 1)), keys(X, steps))
    assert compiled(name)._cache_size() == 1


@pytest.mark.slow
@pytest.mark.parametrize('name', DETERMINISTIC)
def test_gradients_are_those_of_finite_differences(name):
    sampler = build.build('samplers', dict(name=name))

    def loss(shift, x, levels):
        def shifted(x, level):
            return mixture_denoiser(x, level) + shift

        return jnp.sum(sample(sampler, shifted, x, levels, keys(x), differentiable=True) ** 2)

    if hasattr(sampler, 'solve'):
        with pytest.raises(ValueError, match=f'{name} makes its own steps.*walks the table'):
            loss(0.1, X, from_noise_to_data(4))
        return
    with oracles.float64():
        slope = jax.jit(jax.value_and_grad(loss))
        middle, after, before = (
            slope(0.1 + h, jnp.linspace(-2, 2, 9), from_noise_to_data(4)) for h in (0, 1e-6, -1e-6)
        )
        np.testing.assert_allclose(middle[1], (after[0] - before[0]) / 2e-6, rtol=1e-5)


@pytest.mark.parametrize('name', ['ddim', 'heun', 'dpmpp_2m'])
def test_levels_that_rise_lead_from_data_to_noise_at_the_same_order(name):
    with oracles.float64():
        sampler, x = build.build('samplers', dict(name=name)), jnp.linspace(-2, 2, 9)
        errors = []
        for steps in (20, 40):
            levels = ascending(Schedule().level(jnp.linspace(600.0, 300.0, steps + 1)))
            errors.append(np.abs(run(sampler, x, levels, keys(x)) - mixture_flow(300.0, 600.0)).max())
        assert np.log2(errors[0] / errors[1]) == pytest.approx(sampler.order, abs=0.2)


@pytest.mark.slow
def test_adaptive_steps_meet_the_tolerance_that_they_are_given():
    with oracles.float64():
        x, levels = jnp.linspace(-2, 2, 9), Schedule().level(jnp.linspace(600.0, 300.0, 2))
        sampler = build.build('samplers', dict(name='dpm_adaptive'))
        errors = []
        for tolerance in (1e-2, 1e-4, 1e-6):
            out = run(sampler.replace(rtol=tolerance, atol=tolerance), x, levels, keys(x))
            errors.append(np.abs(out - mixture_flow(600.0, 300.0)).max())
            assert errors[-1] < 5 * tolerance
        assert errors[2] > 1e-10  # no steps smaller than were asked for


@pytest.mark.slow
@pytest.mark.parametrize('order', [2, 3])
def test_adaptive_steps_are_of_the_order_that_is_asked_for(order):
    """Steps h keep an error estimate of h^order at the tolerance, so the error h^order falls with it."""
    with oracles.float64():
        x, levels = jnp.linspace(-2, 2, 9), Schedule().level(jnp.linspace(600.0, 300.0, 2))
        sampler = build.build('samplers', dict(name='dpm_adaptive', max_order=order))
        tolerances = np.array([1e-5, 1e-6, 1e-7, 1e-8])
        calls = []

        def counted(x, level):
            jax.debug.callback(lambda: calls.append(1))
            return mixture_denoiser(x, level)

        @jax.jit
        def walk(tolerance):
            within = sampler.replace(rtol=tolerance, atol=tolerance)
            return sample(within, counted, x, levels, keys(x))

        errors, evaluations = [], []
        for tolerance in tolerances:
            calls.clear()
            errors.append(np.abs(walk(tolerance) - mixture_flow(600.0, 300.0)).max())
            jax.effects_barrier()
            evaluations.append(len(calls))
        slopes = [np.polyfit(np.log(tolerances), np.log(a), 1)[0] for a in (errors, evaluations)]
        np.testing.assert_allclose(slopes, [1, -1 / order], atol=0.05)
