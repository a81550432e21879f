"""Training times against the distributions that they are to have."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from ldm_jax.diffusion import timestep_sampling
from ldm_jax.schedules import cosine, edm, flow, scaled_linear

N = 1000
U = (np.arange(20_000) + 0.5) / 20_000  # evenly spread, so that the draws are the distribution itself


def times(spec, schedule):
    drawn = timestep_sampling.named(spec)
    t, weight = drawn.draw(jnp.asarray(U, jnp.float32), schedule, drawn.init(schedule))
    np.testing.assert_array_equal(weight, 1)
    return np.asarray(t, np.float64)


def assert_distributed(values, cdf):
    """Kolmogorov and Smirnov's distance."""
    assert stats.kstest(values, cdf).statistic < 2e-3


def log_sigma(t, schedule):
    level = schedule.level(jnp.asarray(t, jnp.float32))
    return np.log(np.asarray(level.sigma, np.float64)) - np.log(np.asarray(level.alpha, np.float64))


def test_uniform_draws_each_whole_time_alike():
    t = times('uniform', scaled_linear.Schedule())
    np.testing.assert_array_equal(np.bincount(t.astype(int)), 20)
    assert (t == np.floor(t)).all()
    some = times(dict(name='uniform', begin=100, end=300), scaled_linear.Schedule())
    np.testing.assert_array_equal(np.bincount(some.astype(int), minlength=300)[100:], 100)
    assert_distributed(times(dict(name='uniform', whole=False), flow.Schedule()), stats.uniform(0, N - 1).cdf)


@pytest.mark.parametrize(('begin', 'end', 'multiplier'), [(750, None, 3.0), (0, 250, 0.5), (400, 600, 0.0)])
def test_biased_times_come_as_often_as_diffusers_draws_them(begin, end, multiplier):
    weights = np.ones(N)  # diffusers' generate_timestep_weights, before they are normalised
    weights[begin:end] *= multiplier
    spec = dict(name='biased', begin=begin, end=end, multiplier=multiplier)
    counts = np.bincount(times(spec, scaled_linear.Schedule()).astype(int), minlength=N)
    np.testing.assert_allclose(counts / len(U), weights / weights.sum(), atol=1.01 / len(U))


def test_log_normal_is_edm_s():
    schedule = edm.Schedule()
    for mean, std in ((-1.2, 1.2), (-0.4, 1.0)):
        t = times(dict(name='log_normal', mean=mean, std=std), schedule)
        assert_distributed(log_sigma(t, schedule), stats.norm(mean, std).cdf)


def test_logit_normal_is_that_of_sigma_on_a_flow():
    t = times(dict(name='logit_normal', mean=0.5, std=0.8), flow.Schedule())
    sigma = np.asarray(flow.Schedule().level(jnp.asarray(t, jnp.float32)).sigma)
    inside = (sigma > 1.5 / N) & (sigma < 1)
    assert_distributed(log_sigma(t, flow.Schedule())[inside], stats.norm(0.5, 0.8).cdf)


@pytest.mark.parametrize('scale', [1.29, -0.5, 0.0])
def test_mode_is_sd3_s(scale):
    from diffusers.training_utils import compute_density_for_timestep_sampling

    torch = pytest.importorskip('torch')
    torch.manual_seed(0)
    theirs = compute_density_for_timestep_sampling('mode', 50_000, mode_scale=scale).numpy()
    share = (times(dict(name='mode', scale=scale), flow.Schedule()) + 1) / N
    assert stats.ks_2samp(share, theirs).statistic < 0.012


def test_cosine_on_a_flow_is_cosmap():
    t = times('cosine', flow.Schedule())
    share = (t + 1) / N
    inside = (share > 1.5 / N) & (share < 1)

    def cdf(f):  # of the density 2 / (pi - 2 pi f + 2 pi f^2): Esser et al. 2024, eq. 21
        return 2 / np.pi * np.arctan(f / (1 - f))

    assert_distributed(share[inside], cdf)


def test_cosine_is_uniform_in_time_on_a_cosine_schedule():
    for shift in (1.0, 2.0):
        t = times(dict(name='cosine', shift=shift), cosine.Schedule(shift=shift))
        assert_distributed((t + 1) / N, stats.uniform(0, 1).cdf)


@pytest.mark.parametrize('name', timestep_sampling.QUANTILES)
@pytest.mark.parametrize('schedule', [scaled_linear.Schedule(), edm.Schedule(), flow.Schedule()])
def test_times_stay_on_the_schedule(name, schedule):
    ends = jnp.array([2.0**-24, 1 - 2.0**-24])
    t, _ = timestep_sampling.named(name).draw(ends, schedule, ())
    assert ((t >= 0) & (t <= N - 1)).all()


# Importance sampling

SHORT = scaled_linear.Schedule(num_train_steps=8)


def filled(importance, loss_at):
    memory = importance.init(SHORT)
    t = jnp.tile(jnp.arange(8.0), importance.history)
    return importance.update(memory, t, loss_at(t))


@pytest.mark.slow
def test_importance_is_uniform_until_all_times_were_met():
    importance = timestep_sampling.named(dict(name='importance', history=3))
    memory = importance.init(SHORT)
    memory = importance.update(memory, jnp.repeat(jnp.arange(8.0), 3)[:-1], jnp.arange(23.0))
    np.testing.assert_allclose(importance.probabilities(memory), 1 / 8)
    memory = importance.update(memory, jnp.array([7.0]), jnp.array([1.0]))
    assert np.ptp(importance.probabilities(memory)) > 0.1


@pytest.mark.slow
def test_importance_draws_by_the_second_moment_and_weighs_back():
    importance = timestep_sampling.Importance(history=4, uniform_share=0.01)
    memory = filled(importance, lambda t: 1 + t**2)
    moment = 1 + np.arange(8.0) ** 2
    p = 0.99 * moment / moment.sum() + 0.01 / 8
    np.testing.assert_allclose(importance.probabilities(memory), p, rtol=1e-5)
    t, weight = importance.draw(jnp.asarray(U, jnp.float32), SHORT, memory)
    np.testing.assert_allclose(np.bincount(np.asarray(t, int)) / len(U), p, atol=1e-4)
    # The mean is that of uniform times, and its variance less.
    losses = np.asarray(1 + t**2)
    np.testing.assert_allclose(np.mean(weight * losses), moment.mean(), rtol=1e-3)
    assert np.std(weight * losses) < 0.2 * np.std(moment)


def test_the_history_holds_the_last_losses_of_each_time():
    """Against the loop that Improved DDPM runs."""
    importance = timestep_sampling.Importance(history=3)
    rng = np.random.default_rng(0)
    memory, lists = importance.init(SHORT), [[] for _ in range(8)]
    update = jax.jit(importance.update)
    for _ in range(20):
        t, loss = rng.integers(0, 8, 16), rng.random(16).astype(np.float32)
        memory = update(memory, jnp.asarray(t, jnp.float32), loss)
        for time, value in zip(t, loss, strict=True):
            lists[time].append(value)
    np.testing.assert_array_equal(memory.counts, [len(values) for values in lists])
    for row, values in zip(np.asarray(memory.losses), lists, strict=True):
        np.testing.assert_array_equal(np.sort(row), np.sort(values[-3:]))


@pytest.mark.parametrize(
    ('spec', 'words'),
    [
        ('unifrom', "Did you mean 'uniform'"),
        (dict(name='log_normal', sigma=1), "No knob of training times log_normal 'sigma'"),
        (dict(name='importance', history=0), 'history'),
        (dict(name='mode', scale=2.0), '2.0'),
        (dict(name='uniform', begin=5, end=5), 'begin=5'),
        (dict(name='biased', multiplier=0.0), 'multiplier=0.0'),
    ],
)
def test_mistakes_are_named(spec, words):
    with pytest.raises(ValueError, match=words):
        times(spec, scaled_linear.Schedule())
