"""The denoising loss in closed form."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ldm_jax.diffusion import loss, parameterization
from ldm_jax.schedules import edm, flow, zero_terminal
from ldm_jax.schedules.scaled_linear import Schedule
from ldm_jax.types import Cond
from tests.oracles import float64
from tests.tiers import fast

X0 = jax.random.normal(jax.random.key(0), (3, 4, 4, 2))
DRAWS = loss.Draws(t=jnp.array([0, 400, 999]), eps=jax.random.normal(jax.random.key(1), X0.shape))


def losses(network, name):
    return loss.denoising(network, Schedule(), parameterization.named(name), X0, Cond(), DRAWS)


def test_a_network_that_knows_the_noise_has_no_loss():
    np.testing.assert_allclose(losses(lambda x, t, cond: DRAWS.eps, 'eps'), 0, atol=1e-6)


def test_a_network_that_is_off_by_one_has_loss_one_for_each_image():
    np.testing.assert_allclose(losses(lambda x, t, cond: DRAWS.eps + 1, 'eps'), 1, rtol=1e-3)


def test_a_network_that_outputs_zero_pays_the_mean_square_of_its_target():
    expected = jnp.mean(X0**2, axis=(1, 2, 3))
    np.testing.assert_allclose(losses(lambda x, t, cond: jnp.zeros_like(x), 'x0'), expected, rtol=1e-5)


def test_a_network_sees_the_image_with_its_noise():
    level = Schedule().level(DRAWS.t)
    alpha, sigma = level.alpha[:, None, None, None], level.sigma[:, None, None, None]
    seen = []
    losses(lambda x, t, cond: seen.append((x, t)) or x, 'v')
    np.testing.assert_allclose(seen[0][0], alpha * X0 + sigma * DRAWS.eps, rtol=1e-6)
    np.testing.assert_array_equal(seen[0][1], DRAWS.t)


# The gradient of each objective on a linear network, F(x) = x w, in closed form and float64

S = 0.7  # sigma_data of EDM
TARGETS = {  # (x0, eps, alpha, sigma) -> (target, factor on the input), as the papers have them
    'eps': lambda x0, eps, a, s: (eps, 1),
    'v': lambda x0, eps, a, s: (a * eps - s * x0, 1),  # variance-preserving
    'x0': lambda x0, eps, a, s: (x0, 1),
    'flow': lambda x0, eps, a, s: (eps - x0, 1),  # alpha + sigma = 1
    # F has to be (x0 - c_skip x) / c_out with c_skip = S^2 / (s^2 + S^2), c_out = s S / sqrt(s^2 + S^2), alpha = 1
    'edm': lambda x0, eps, a, s: (
        (x0 - S**2 / (s**2 + S**2) * (x0 + s * eps)) * np.sqrt(s**2 + S**2) / (s * S),
        1 / np.sqrt(s**2 + S**2),
    ),
}
SCHEDULES = {
    'eps': Schedule(),
    'v': Schedule(),
    'x0': Schedule(),
    'flow': flow.Schedule(shift=2.0),
    'edm': edm.Schedule(),
}
SLOPES = {  # of the distance, by its error
    'l2': lambda e, a, s: 2 * e,
    'l1': lambda e, a, s: np.sign(e),
    'huber': lambda e, a, s: 2 * c_of(a, s) * e / np.sqrt(e**2 + c_of(a, s) ** 2),
}
WEIGHTS = {  # on the error of x0_hat
    'min_snr': lambda snr: np.minimum(snr, 5),
    'p2': lambda snr: snr / (1 + snr),
}


def c_of(alpha, sigma):
    return 0.1 + 0.9 * (alpha / (alpha + sigma)) ** 2


@pytest.mark.parametrize('predicted', TARGETS)
@pytest.mark.parametrize('distance', SLOPES)
@pytest.mark.parametrize('weighting', fast(2, ['uniform', *WEIGHTS]))
def test_the_gradient_is_that_of_the_closed_form(predicted, distance, weighting):
    rng = np.random.default_rng(0)
    x0, eps, w = rng.standard_normal((6, 4)), rng.standard_normal((6, 4)), rng.standard_normal((4, 4))
    t = np.array([0.0, 10, 200, 450, 700, 990])
    spec = dict(name='edm', sigma_data=S) if predicted == 'edm' else predicted
    with float64():
        objective = loss.objective(
            SCHEDULES[predicted], parameterization=spec, loss=distance, weighting=weighting
        )

        def value(w):
            draws = loss.Draws(t=jnp.asarray(t), eps=jnp.asarray(eps))
            return jnp.mean(objective.losses(lambda x, t, cond: x @ w, jnp.asarray(x0), Cond(), draws)[0])

        found = np.asarray(jax.grad(value)(jnp.asarray(w)))
        level = SCHEDULES[predicted].level(jnp.asarray(t))
        alpha, sigma = np.asarray(level.alpha)[:, None], np.asarray(level.sigma)[:, None]
    target, c_in = TARGETS[predicted](x0, eps, alpha, sigma)
    seen = c_in * (alpha * x0 + sigma * eps)
    error = seen @ w - target
    weight = np.ones((6, 1))
    if weighting in WEIGHTS:
        c_out = {
            'eps': sigma / alpha,
            'v': sigma,
            'x0': 1 + 0 * sigma,
            'flow': sigma,
            'edm': sigma * S / np.sqrt(sigma**2 + S**2),
        }[predicted]
        weight = WEIGHTS[weighting]((alpha / sigma) ** 2) * c_out**2
    expected = seen.T @ (weight * SLOPES[distance](error, alpha, sigma)) / (6 * 4)
    assert found.dtype == np.float64
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-12)


def test_pseudo_huber_is_diffusers_formula():
    error = jnp.linspace(-3, 3, 13).reshape(1, 13)
    level = Schedule().level(jnp.array([500.0]))
    for schedule, c in [
        ('constant', 0.2),
        ('snr', (1 - 0.2) / (1 + float(level.sigma[0] / level.alpha[0])) ** 2 + 0.2),
        ('exponential', np.exp(-500 * -np.log(0.2) / 1000)),
    ]:
        found = loss.huber(error, level, c=0.2, schedule=schedule)
        np.testing.assert_allclose(
            found, 2 * c * (np.sqrt(np.square(error) + c**2) - c), rtol=1e-4, atol=1e-7
        )


# Draws

SHAPE = (512, 8, 8, 4)


def draw(**fields):
    return loss.objective(Schedule(), **(dict(parameterization='v') | fields)).draw(jax.random.key(0), SHAPE)


def test_offset_noise_is_one_number_a_channel_more():
    draws = draw(offset_noise=0.5)
    means = np.asarray(draws.eps).mean(axis=(1, 2))  # [B, C]
    np.testing.assert_allclose(means.var(), 0.25 + 1 / 64, rtol=0.1)
    np.testing.assert_allclose(np.asarray(draws.eps).var(), 1.25, rtol=0.05)
    within = np.asarray(draws.eps) - means[:, None, None]
    np.testing.assert_allclose(within.var(), 1 - 1 / 64, rtol=0.02)
    plain = np.asarray(draw().eps).mean(axis=(1, 2))
    np.testing.assert_allclose(plain.var(), 1 / 64, rtol=0.1)


def test_a_perturbed_input_has_the_target_of_the_plain_one():
    draws = draw(perturbation=0.1)
    np.testing.assert_allclose(np.asarray(draws.perturbation).std(), 0.1, rtol=0.02)
    x0 = jax.random.normal(jax.random.key(1), SHAPE)
    seen = {}
    for name, given in {'plain': draws.replace(perturbation=None), 'perturbed': draws}.items():
        objective = loss.objective(Schedule(), parameterization='eps', perturbation=0.1)

        def network(x, t, cond, name=name):
            seen[name] = x
            return draws.eps

        np.testing.assert_allclose(objective.losses(network, x0, Cond(), given)[1], 0, atol=1e-4)
    sigma = Schedule().level(draws.t).sigma[:, None, None, None]
    np.testing.assert_allclose(seen['perturbed'] - seen['plain'], sigma * draws.perturbation, atol=1e-5)


@pytest.mark.parametrize('schedule', [zero_terminal.Schedule(), flow.Schedule()])
@pytest.mark.parametrize('predicted', ['eps', 'v', 'x0', 'flow', 'edm'])
def test_noise_alone_is_trained_at_or_refused(schedule, predicted):
    if predicted in ('eps', 'edm'):
        with pytest.raises(ValueError, match="not finite.*predict 'v'"):
            loss.objective(schedule, parameterization=predicted)
        return
    objective = loss.objective(schedule, parameterization=predicted, weighting='min_snr')
    draws = loss.Draws(t=jnp.array([0.0, 500, 999]), eps=DRAWS.eps)

    def value(w):
        return jnp.sum(objective.losses(lambda x, t, cond: w * x, X0, Cond(), draws)[0])

    assert np.isfinite(jax.value_and_grad(value)(0.3)).all()


def test_where_noise_alone_is_not_drawn_eps_will_do():
    loss.objective(flow.Schedule(), parameterization='eps', times=dict(name='uniform', end=999))


def test_mistakes_are_named():
    for fields, words in [
        (dict(loss='l3'), "No loss 'l3'"),
        (dict(loss=dict(name='huber', schedule='cosine')), 'No huber schedule'),
        (dict(times='normal'), "No training times 'normal'"),
        (dict(weighting='snr'), "No weighting 'snr'"),
        (dict(parameterization='epsilon'), "No parameterization 'epsilon'"),
        (dict(offset_noise=-0.1), 'offset_noise.*-0.1'),
    ]:
        with pytest.raises(ValueError, match=words):
            draw(**fields)
