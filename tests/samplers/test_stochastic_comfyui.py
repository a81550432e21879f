"""Samplers that are ComfyUI's (or A1111's) against loops in float64 numpy, after the equations of papers and of it.

The loops are in sigma / alpha alone, as there; ours run on variance-preserving levels.
"""

import dataclasses
import itertools

import jax.numpy as jnp
import numpy as np
import pytest
from scipy import integrate

from ldm_jax import build
from ldm_jax.diffusion import restart_levels
from ldm_jax.schedules.scaled_linear import Schedule
from tests import oracles
from tests.walks import levels_of, trajectory

RATIOS = np.append(np.geomspace(12.0, 0.04, 8), 0.0)
ETA, S_NOISE = 0.8, 1.1


def network(x, sigma, np=np):
    return 0.9 * np.tanh(x / np.sqrt(1 + sigma**2)) + 0.1 * np.sin(x / (1 + sigma))


def uncond(x, sigma, np=np):
    return 0.8 * np.tanh(x / np.sqrt(2 + sigma**2))


@dataclasses.dataclass(frozen=True)
class Guided:
    def __call__(self, x, level):
        return network(x / level.alpha, level.sigma / level.alpha, jnp)

    def both(self, x, level):
        return self(x, level), uncond(x / level.alpha, level.sigma / level.alpha, jnp)


def numbers(draws=1):
    generator = np.random.default_rng(0)
    return 12 * generator.standard_normal((2, 3)), generator.standard_normal((len(RATIOS) - 1, draws, 2, 3))


def assert_follows(spec, x, expected, noise=None, tolerance=1e-8, kind='preserving'):
    with oracles.float64():
        levels = levels_of(RATIOS, kind)
        alpha = np.asarray(levels.alpha)
        ours = trajectory(build.build('samplers', spec), Guided(), x * alpha[0], levels, noise)
    for mine, a, other in zip(ours, alpha, expected, strict=True):
        assert oracles.relative_error(mine / a, other) < tolerance


def ancestral(high, low, eta=ETA):
    up = min(low, eta * np.sqrt(low**2 * (high**2 - low**2) / high**2))
    return np.sqrt(low**2 - up**2), S_NOISE * up


@pytest.mark.parametrize('eta', [0.0, ETA])
def test_euler_cfg_pp(eta):
    y, noise = numbers()
    x, found = y, [y]
    for high, low, (z,) in zip(RATIOS, RATIOS[1:], noise, strict=False):
        down, up = ancestral(high, low, eta)
        y = network(y, high) + down * (y - uncond(y, high)) / high + up * z
        found.append(y)
    assert_follows(dict(name='euler_cfg_pp', eta=eta, s_noise=S_NOISE), x, found, noise)


def test_dpmpp_2s_ancestral_cfg_pp():
    y, noise = numbers()
    x, found = y, [y]
    for high, low, (z,) in zip(RATIOS, RATIOS[1:], noise, strict=False):
        down, up = ancestral(high, low)
        guided, pull = network(y, high), network(y, high) - uncond(y, high)
        if low > 0:
            half = np.sqrt(high * down)
            guided = network(half / high * (y + pull) + (1 - half / high) * guided, half)
        y = down / high * (y + pull) + (1 - down / high) * guided + up * z
        found.append(y)
    assert_follows(dict(name='dpmpp_2s_ancestral_cfg_pp', eta=ETA, s_noise=S_NOISE), x, found, noise)


def test_dpmpp_2m_cfg_pp():
    y, _ = numbers()
    x, found, last = y, [y], None
    for i, (high, low) in enumerate(itertools.pairwise(RATIOS)):
        guided, plain = network(y, high), uncond(y, high)
        move = guided + low / high * (y - plain)
        if 0 < i < len(RATIOS) - 2:
            h, last_h = np.log(high / low), np.log(RATIOS[i - 1] / high)
            move += (1 - np.exp(-h)) * h / (2 * last_h) * (guided - last)
        y, last = move, plain
        found.append(y)
    assert_follows(dict(name='dpmpp_2m_cfg_pp'), x, found)


def test_gradient_estimation_cfg_pp():
    y, _ = numbers()
    x, found, last = y, [y], None
    for i, (high, low) in enumerate(itertools.pairwise(RATIOS)):
        d = (y - uncond(y, high)) / high
        y = network(y, high) + d * low
        if 0 < i < len(RATIOS) - 2:
            y += (2.5 - 1) * (d - last) * (low - high)
        last = d
        found.append(y)
    assert_follows(dict(name='gradient_estimation_cfg_pp', ge_gamma=2.5), x, found)


@pytest.mark.parametrize(('integral', 'tolerance'), [('exact', 1e-8), ('sum', 3e-3)])
@pytest.mark.parametrize('max_order', [2, 3])
def test_er_sde(max_order, integral, tolerance):
    """sum: ComfyUI's 200 rectangles."""

    def phi(u):
        return u * (np.exp(u**0.3) + 10)

    def area(f, low, high):
        if integral == 'exact':
            return integrate.quad(f, low, high, epsabs=0, epsrel=1e-12)[0]
        return sum(f(low + i * (high - low) / 200) for i in range(200)) * (high - low) / 200

    y, noise = numbers()
    x, found, x0s, slopes = y, [y], [], []
    for i, (high, low, (z,)) in enumerate(zip(RATIOS, RATIOS[1:], noise, strict=False)):
        x0s.append(network(y, high))
        if low == 0:
            y = x0s[-1]
        else:
            r = phi(low) / phi(high)
            y = r * y + (1 - r) * x0s[-1] + S_NOISE * np.sqrt(low**2 - (r * high) ** 2) * z
            if i >= 1:
                slopes.append((x0s[-1] - x0s[-2]) / (high - RATIOS[i - 1]))
                y += (low - high + phi(low) * area(lambda u: 1 / phi(u), low, high)) * slopes[-1]
            if i >= 2 and max_order == 3:
                bend = 2 * (slopes[-1] - slopes[-2]) / (high - RATIOS[i - 2])
                inner = area(lambda u, high=high: (u - high) / phi(u), low, high)
                y += ((low - high) ** 2 / 2 + phi(low) * inner) * bend
        found.append(y)
    spec = dict(name='er_sde', max_order=max_order, s_noise=S_NOISE)
    assert_follows(spec, x, found, noise, tolerance)


@pytest.mark.parametrize('variant', ['phi_1', 'phi_2'])
@pytest.mark.parametrize('r', [0.4, 1.0])
def test_seeds_2(variant, r):
    y, noise = numbers(2)
    x, found = y, [y]
    for high, low, (z1, z2) in zip(RATIOS, RATIOS[1:], noise, strict=False):
        x0 = network(y, high)
        if low == 0:
            y = x0
        else:
            h = np.log(high / low)
            inner, part, whole = high * np.exp(-r * h), r * h * (1 + ETA), h * (1 + ETA)
            early = np.sqrt(1 - np.exp(-2 * r * h * ETA)) * z1
            y_2 = np.exp(-part) * y + (1 - np.exp(-part)) * x0 + S_NOISE * inner * early
            flat = 1 - np.exp(-whole)
            second = flat / (2 * r) if variant == 'phi_1' else (1 - flat / whole) / r
            late = np.exp((r - 1) * h * ETA) * early + np.sqrt(1 - np.exp(2 * (r - 1) * h * ETA)) * z2
            y = (
                np.exp(-whole) * y
                + (flat - second) * x0
                + second * network(y_2, inner)
                + S_NOISE * low * late
            )
        found.append(y)
    spec = dict(name='seeds_2', variant=variant, r=r, eta=ETA, s_noise=S_NOISE)
    assert_follows(spec, x, found, noise)


def test_seeds_3():
    y, noise = numbers(3)
    r_1, r_2 = 0.3, 0.75
    x, found = y, [y]

    def weights(z):  # of the value at the start, and of the slope
        return 1 - np.exp(-z), 1 - (1 - np.exp(-z)) / z

    for high, low, draws in zip(RATIOS, RATIOS[1:], noise, strict=False):
        x0 = network(y, high)
        if low == 0:
            found.append(x0)
            continue
        h = np.log(high / low)
        parts, gathered = [0, r_1 * h, r_2 * h, h], [0.0]
        for width, z in zip(np.diff(parts), draws, strict=True):
            left = np.exp(-width * ETA)
            gathered.append(left * gathered[-1] + np.sqrt(1 - left**2) * z)
        sigmas = high * np.exp(-np.array(parts))

        def at(i, slope, y=y, x0=x0, parts=parts, sigmas=sigmas, gathered=gathered):
            z = parts[i] * (1 + ETA)
            flat, line = weights(z)
            return np.exp(-z) * y + flat * x0 + line * slope * parts[i] + S_NOISE * sigmas[i] * gathered[i]

        slope = (network(at(1, 0.0), sigmas[1]) - x0) / parts[1]
        slope = (network(at(2, slope), sigmas[2]) - x0) / parts[2]
        y = at(3, slope)
        found.append(y)
    assert_follows(dict(name='seeds_3', r_1=r_1, r_2=r_2, eta=ETA, s_noise=S_NOISE), x, found, noise)


@pytest.mark.parametrize('name', ['euler_ancestral', 'dpmpp_2s_ancestral'])
def test_rectified_flow_variants(name):
    """In the flow's own sigma, alpha = 1 - sigma."""
    x, noise = numbers()
    sigmas = RATIOS / (1 + RATIOS)
    y = x * (1 - sigmas[0])
    found = [x]

    def answer(y, sigma):
        return network(y / (1 - sigma), sigma / (1 - sigma))

    for high, low, (z,) in zip(sigmas, sigmas[1:], noise, strict=False):
        down = low * (1 + (low / high - 1) * ETA)
        x0 = answer(y, high)
        if name == 'dpmpp_2s_ancestral' and low > 0:
            half = 0.5 * (np.log(1 / high - 1) + np.log(1 / down - 1))
            half = 1 / (1 + np.exp(half))
            x0 = answer(half / high * y + (1 - half / high) * x0, half)
        y = down / high * y + (1 - down / high) * x0
        rise = (1 - low) / (1 - down)
        y = rise * y + S_NOISE * np.sqrt(low**2 - (rise * down) ** 2) * z
        found.append(y / (1 - low))
    assert_follows(dict(name=name, flow=True, eta=ETA, s_noise=S_NOISE), x, found, noise, kind='flow')


def karras(low, high, steps):
    return np.linspace(high ** (1 / 7), low ** (1 / 7), steps + 1) ** 7


def test_restart_goes_back_up_where_its_table_does():
    y, _ = numbers()
    base = np.append(karras(0.03, 12, 9), 0)
    with oracles.float64():
        levels = levels_of(base, 'preserving')
        table = restart_levels.restarts(Schedule(), levels, low=0.1, high=2.0, steps=4, times=2)
    bottom, top = np.abs(base - 0.1).argmin(), np.abs(base - 2.0).argmin()
    detour = karras(base[bottom], base[top], 4)
    ratios = np.concatenate([base[: bottom + 1], detour, detour, base[bottom + 1 :]])
    np.testing.assert_allclose(table.sigma / table.alpha, ratios, rtol=1e-9)
    np.testing.assert_allclose(np.hypot(table.sigma, table.alpha), 1, rtol=1e-12)

    noise = np.random.default_rng(1).standard_normal((len(ratios) - 1, 1, 2, 3))
    x, found = y, [y]
    for high, low, (z,) in zip(ratios, ratios[1:], noise, strict=False):
        if low > high:
            y = y + S_NOISE * np.sqrt(low**2 - high**2) * z
        else:
            slope = (y - network(y, high)) / high
            after = y + (low - high) * slope
            if low > 0:
                slope = (slope + (after - network(after, low)) / low) / 2
            y = y + (low - high) * slope
        found.append(y)
    with oracles.float64():
        spec = dict(name='restart', s_noise=S_NOISE)
        levels = levels_of(ratios, 'preserving')
        alpha = np.asarray(levels.alpha)
        ours = trajectory(build.build('samplers', spec), Guided(), x * alpha[0], levels, noise)
    for mine, a, other in zip(ours, alpha, found, strict=True):
        assert oracles.relative_error(mine / a, other) < 1e-8
