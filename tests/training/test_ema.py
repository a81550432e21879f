"""Moving averages against their closed forms."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ldm_jax.training import ema
from ldm_jax.training.ema import Profile


def averages(decays, trajectory, start=0.0, snapshots=()):
    """The averages after the parameters trajectory[0], trajectory[1], ... (updates 1, 2, ...), float64.

    With snapshots: {(name, step): average} instead.
    """
    state = {name: {'w': jnp.asarray(start)} for name in decays}
    kept = {}
    update = jax.jit(functools.partial(ema.update, decays))
    for n, value in enumerate(trajectory, 1):
        state = update(state, {'w': value}, n)
        if n in snapshots:
            kept |= {(name, n): np.asarray(state[name]['w'], np.float64) for name in decays}
    return kept if snapshots else {name: np.asarray(tree['w'], np.float64) for name, tree in state.items()}


def test_a_constant_decay_is_a_geometric_sum():
    t = np.arange(1, 41)
    trajectory = np.sin(t).astype(np.float32)
    decays = {str(d): ema.named(dict(name='constant', decay=d, warmup=False)) for d in (0.9, 0.5)}
    found = averages(decays, trajectory, start=3.0)
    for name in decays:
        d = float(name)
        expected = d**40 * 3.0 + (1 - d) * np.sum(d ** (40 - t) * trajectory)
        np.testing.assert_allclose(found[name], expected, rtol=1e-5, atol=1e-7)


def latent_diffusion(trajectory, start, decay):
    """The rule of latent diffusion's LitEma: its count of updates is raised before the decay is computed."""
    average = np.float64(start)
    for num_updates, value in enumerate(trajectory, 1):
        kept = min(decay, (1 + num_updates) / (10 + num_updates))
        average -= (1.0 - kept) * (average - value)
    return average


@pytest.mark.parametrize('decay', [0.9999, 0.5])
@pytest.mark.parametrize('updates', [1, 2, 40])
def test_the_warm_up_is_latent_diffusion_s(decay, updates):
    trajectory = np.cumsum(np.random.default_rng(0).standard_normal(updates)).astype(np.float32)
    found = averages({'main': ema.named(dict(name='constant', decay=decay))}, trajectory, start=3.0)
    np.testing.assert_allclose(found['main'], latent_diffusion(trajectory, 3.0, decay), rtol=1e-5)


def test_the_first_decay_is_two_elevenths():
    np.testing.assert_allclose(ema.named('constant')(1), 2 / 11, rtol=1e-6)


def test_half_the_weight_is_in_the_last_half_life():
    decay = ema.named(dict(name='half_life', steps=20, ramp=None))
    np.testing.assert_allclose(np.prod([decay(n) for n in range(100, 120)]), 0.5, rtol=1e-6)
    ramped = ema.named(dict(name='half_life', steps=20, ramp=0.1))
    np.testing.assert_allclose(ramped(50), 0.5 ** (1 / 5), rtol=1e-6)


def test_the_power_function_s_profile():
    # p(t) = (g + 1) t^g / T^(g + 1): of the trajectory t / T the average is (g + 1) / (g + 2), for small steps.
    steps = 2000
    decays = {str(s): ema.named(dict(name='power', sigma_rel=s)) for s in (0.05, 0.1, 0.2)}
    found = averages(decays, np.arange(1, steps + 1) / steps, start=7.0)
    for name in decays:
        gamma = ema.exponent(float(name))
        np.testing.assert_allclose(found[name], (gamma + 1) / (gamma + 2), rtol=1e-3)


def test_exponents_of_published_widths():
    # EDM2, section 3.1: gamma = 6.94 at sigma_rel = 0.10 and 16.97 at 0.05
    np.testing.assert_allclose([ema.exponent(0.1), ema.exponent(0.05)], [6.94, 16.97], atol=0.005)
    for sigma_rel in (0.01, 0.1, 0.25):
        np.testing.assert_allclose(ema.width(ema.exponent(sigma_rel)), sigma_rel, rtol=1e-9)


def test_the_inner_product_of_profiles_is_their_integral():
    for a, b in [(Profile(700, 0.1), Profile(1000, 0.05)), (Profile(1000, 0.2), Profile(400, 0.05))]:
        t = np.linspace(0, 1000, 400_001)

        def profile(p, t=t):
            gamma = ema.exponent(p.sigma_rel)
            return np.where(t <= p.step, (gamma + 1) * t**gamma / p.step ** (gamma + 1), 0)

        np.testing.assert_allclose(ema.inner(a, b), np.trapezoid(profile(a) * profile(b), t), rtol=1e-3)


def test_the_coefficients_are_the_published_algorithm_s():
    """Algorithm 3 of EDM2, in its own words."""

    def exponent(std):
        return np.array([np.roots([1, 7, 16 - t, 12 - t]).real.max() for t in np.float64(std) ** -2])

    def products(a_step, a_std, b_step, b_std):
        a_exp, b_exp = exponent(a_std)[:, None], exponent(b_std)[None]
        a_step, b_step = np.float64(a_step)[:, None], np.float64(b_step)[None]
        ratio = (a_step / b_step) ** np.where(a_step < b_step, b_exp, -a_exp)
        return (a_exp + 1) * (b_exp + 1) * ratio / ((a_exp + b_exp + 1) * np.maximum(a_step, b_step))

    steps, stds = [100, 100, 200, 200, 300, 300], [0.05, 0.1] * 3
    expected = np.linalg.solve(products(steps, stds, steps, stds), products(steps, stds, [300], [0.15]))[:, 0]
    snapshots = [Profile(*pair) for pair in zip(steps, stds, strict=True)]
    found = ema.coefficients(snapshots, Profile(300, 0.15))
    np.testing.assert_allclose(found, expected / expected.sum(), rtol=1e-6)


@pytest.mark.parametrize(
    ('sigma_rel', 'step'), [(0.03, 1024), (0.07, 1024), (0.15, 1024), (0.2, 1024), (0.1, 900)]
)
def test_any_width_is_reconstructed_after_the_run(sigma_rel, step):
    # A random walk, as parameters do. EDM2's setup: two averages, snapshots all along.
    trajectory = np.cumsum(np.random.default_rng(0).standard_normal((1024, 64)), axis=0).astype(np.float32)
    tracked = {'a': 0.05, 'b': 0.1}
    decays = {name: ema.named(dict(name='power', sigma_rel=s)) for name, s in tracked.items()}
    kept = averages(decays, trajectory, start=np.zeros(64), snapshots=range(64, 1025, 64))
    snapshots = [Profile(n, tracked[name]) for name, n in kept]
    weights = ema.coefficients(snapshots, Profile(step, sigma_rel))
    found = ema.reconstruct(weights, ({'w': value} for value in kept.values()))['w']
    direct = ema.named(dict(name='power', sigma_rel=sigma_rel))
    expected = averages({'direct': direct}, trajectory[:step], start=np.zeros(64))['direct']
    spread = np.std(trajectory[:step], axis=0).mean()  # of the parameters over the run
    error = np.sqrt(np.mean((found - expected) ** 2)) / spread
    raw = np.sqrt(np.mean((kept['b', 1024] - expected) ** 2)) / spread
    assert error < (0.02 if step == 1024 and sigma_rel > 0.05 else 0.1)
    assert step == 900 or error < 0.5 * raw  # nearer than any that was tracked is


def test_a_tracked_profile_is_its_own_reconstruction():
    snapshots = [Profile(n, s) for n in (100, 200, 300) for s in (0.05, 0.1)]
    weights = ema.coefficients(snapshots, Profile(200, 0.1))
    np.testing.assert_allclose(weights, [0, 0, 0, 1, 0, 0], atol=1e-6)


def test_mistakes_are_named():
    snapshots = [Profile(100, 0.1), Profile(100, 0.05)]
    for make, words in [
        (lambda: ema.named('polyak'), "No moving average 'polyak'"),
        (lambda: ema.named(dict(name='constant', decay=1.0)), 'below 1; got 1.0'),
        (lambda: ema.named(dict(name='power', sigma_rel=0.3)), 'sigma_rel.*0.3'),
        (lambda: ema.named(dict(name='half_life', steps=0)), 'half-life'),
        (lambda: Profile(0, 0.1), 'step 1'),
        (lambda: ema.coefficients([], Profile(1, 0.1)), 'needs snapshots'),
        (lambda: ema.coefficients(snapshots, Profile(200, 0.1)), 'last snapshot is of step 100'),
    ]:
        with pytest.raises(ValueError, match=words):
            make()
