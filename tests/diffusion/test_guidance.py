"""Guidance maps denoisers to a denoiser: closed forms, evaluations counted, and diffusers' guiders."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ldm_jax.diffusion import guidance, parameterization
from ldm_jax.diffusion.guidance import batched, guided, linear, separate
from ldm_jax.schedules import edm, flow
from ldm_jax.schedules.scaled_linear import Schedule
from ldm_jax.types import Cond, NoiseLevel
from tests import oracles

X = jax.random.normal(jax.random.key(0), (3, 4, 4, 2))
PREDICTIONS = [jax.random.normal(jax.random.key(k), X.shape) for k in (1, 2, 3, 4)]
LEVEL = Schedule().level(jnp.array(500.0))
BOTH = guidance.pair(Cond(vector=jnp.zeros((3, 1))), Cond(vector=jnp.full((3, 1), 2.0)))


def both(x, level):
    """A denoiser of the pair: its answer depends on image, level and conditioning."""
    return jnp.tanh(x) * jnp.reshape(level.alpha, (-1, 1, 1, 1)) + BOTH.vector[:, :, None, None]


def expected(scale):
    uncond = jnp.tanh(X) * LEVEL.alpha
    return uncond + jnp.reshape(jnp.asarray(scale), (-1, 1, 1, 1)) * 2.0


def says(x0):
    return lambda x, level: x0


def branches(num=2):
    """Branches with these predictions, whatever they are asked."""
    return separate(*(says(x0) for x0 in PREDICTIONS[:num]))


UNCOND, COND = PREDICTIONS[:2]


def close(ours, theirs, **tolerances):
    np.testing.assert_allclose(ours, theirs, **(dict(rtol=1e-5, atol=1e-6) | tolerances))


# Classifier-free guidance and branches


def test_scale_zero_is_unconditional_one_conditional_and_more_goes_beyond():
    for scale in (0.0, 1.0, 7.5):
        out = guidance.classifier_free(both, scale)(X, LEVEL)
        np.testing.assert_allclose(out, expected(scale), rtol=1e-6)


def test_each_image_can_have_its_own_scale():
    scale = jnp.array([0.0, 1.0, 5.0])
    np.testing.assert_allclose(guidance.classifier_free(both, scale)(X, LEVEL), expected(scale), rtol=1e-6)


def test_each_image_can_have_its_own_level():
    levels = Schedule().level(jnp.array([0.0, 500.0, 999.0]))
    out = guidance.classifier_free(both, 1.0)(X, levels)
    np.testing.assert_allclose(out, jnp.tanh(X) * levels.alpha[:, None, None, None] + 2, rtol=1e-6)


def test_samplers_can_ask_for_both_predictions():
    out, uncond = guidance.classifier_free(both, 3.0).both(X, LEVEL)
    close(out, expected(3.0))
    close(uncond, expected(0.0))


def test_a_pair_keeps_absent_parts_absent_and_may_be_three():
    assert BOTH.context is None
    np.testing.assert_array_equal(BOTH.vector[:, 0], [0, 0, 0, 2, 2, 2])
    three = guidance.pair(*(Cond(vector=jnp.full((1, 1), i)) for i in range(3)))
    np.testing.assert_array_equal(three.vector[:, 0], [0, 1, 2])


def test_branches_in_one_batch_are_those_apart():
    def denoise(x, level):
        return x * jnp.repeat(jnp.arange(3.0), len(x) // 3)[:, None, None, None]

    apart = separate(*(lambda x, level, i=i: i * x for i in range(3)))(X, LEVEL)
    for one, other in zip(batched(denoise, 3)(X, LEVEL), apart, strict=True):
        close(one, other)


def test_a_scale_can_be_traced():
    run = jax.jit(lambda scale: guidance.classifier_free(both, scale)(X, LEVEL))
    for scale in (1.0, 4.0):
        close(run(scale), expected(scale))
    assert run._cache_size() == 1


@pytest.mark.parametrize('prediction', ['eps', 'v', 'flow', 'edm'])
def test_a_linear_rule_guides_every_prediction_alike(prediction):
    plain = guided(branches(), linear(5.0))(X, LEVEL)
    out = guided(branches(), linear(5.0), parameterization.named(prediction))(X, LEVEL)
    close(out, plain, atol=1e-4)


# Rules


def test_rescaling_fully_has_the_standard_deviation_of_cond_and_not_at_all_changes_nothing():
    out = guided(branches(), guidance.rescaled(linear(7.5), 1.0))(X, LEVEL)
    close(jnp.std(out, (1, 2, 3)), jnp.std(COND, (1, 2, 3)))
    assert abs(jnp.std(guided(branches(), linear(7.5))(X, LEVEL)) / jnp.std(COND) - 1) > 1
    none = guided(branches(), guidance.rescaled(linear(7.5), 0.0))(X, LEVEL)
    close(none, guided(branches(), linear(7.5))(X, LEVEL))


def test_projection_without_threshold_and_with_eta_one_is_linear():
    close(guidance.projected(6.0, eta=1.0)(UNCOND, COND), linear(6.0)(UNCOND, COND), atol=1e-5)
    close(guidance.projected(1.0, eta=0.3, threshold=0.1)(UNCOND, COND), COND)


def test_projection_adds_nothing_along_cond_and_no_more_than_the_threshold():
    added = guidance.projected(3.0, eta=0.0, threshold=0.5)(UNCOND, COND) - COND
    along = jnp.sum(added * COND, (1, 2, 3))
    close(along, 0, atol=1e-4)
    assert (jnp.linalg.norm(added.reshape(3, -1), axis=1) <= 2 * 0.5).all()


def test_zero_star_scales_uncond_to_fit_cond_best():
    rule = guidance.zero_star(0.0)  # s uncond alone
    fit = rule(UNCOND, COND)
    for factor in (0.9, 1.1):
        error = jnp.sum((COND - fit) ** 2, (1, 2, 3))
        assert (error < jnp.sum((COND - factor * fit) ** 2, (1, 2, 3))).all()
    close(guidance.zero_star(1.0)(UNCOND, COND), COND)
    close(guidance.zero_star(4.0)(0.5 * COND, COND), COND)  # parallel: there is nothing to push away from


@pytest.mark.parametrize('rule', [guidance.projected(5.0), guidance.zero_star(5.0)])
def test_predictions_that_agree_or_vanish_are_kept(rule):
    close(rule(COND, COND), COND, atol=1e-5)
    assert np.isfinite(rule(jnp.zeros_like(COND), jnp.zeros_like(COND))).all()


# More branches


def test_composition_adds_weighted_pulls():
    both = guidance.composed(branches(4), jnp.array([2.0, -1.0, 0.5]))
    u, a, b, c = PREDICTIONS
    pull = 2 * (a - u) - (b - u) + 0.5 * (c - u)
    close(both(X, LEVEL), [u, u + pull], atol=1e-5)
    out = guided(both, linear(3.0), parameterization.eps)(X, LEVEL)  # as A1111: scale times weight each
    close(out, u + 3 * pull, atol=1e-4)
    close(guidance.composed(branches(), [7.0])(X, LEVEL)[1], guided(branches(), linear(7.0))(X, LEVEL))


def test_groups_of_prompts_are_composed_each():
    u, a, b, _ = PREDICTIONS
    five = guidance.joined(branches(4), says(a + b))
    out = guidance.composed(five, [1.0, jnp.array([0.5, 2.0, 0.0])])(X, LEVEL)
    assert len(out) == 3
    second = jnp.array([0.5, 2.0, 0.0])[:, None, None, None]
    close(out[1], a + second * (b - u), atol=1e-5)
    close(out[2], PREDICTIONS[3] + second * (a + b - u), atol=1e-5)


def test_scales_and_conds_must_be_as_many():
    with pytest.raises(ValueError, match='zip'):
        guidance.composed(branches(4), [1.0, 1.0])(X, LEVEL)


def test_image_and_text_have_a_scale_each():
    uncond, image, full = PREDICTIONS[:3]
    scales = jnp.array([1.0, 1.5, 2.0])
    out = guidance.image_and_text(branches(3), scales, 7.5)(X, LEVEL)
    close(out, uncond + scales[:, None, None, None] * (image - uncond) + 7.5 * (full - image), atol=1e-5)
    close(guidance.image_and_text(branches(3), 1.0, 1.0)(X, LEVEL), full)


def test_autoguidance_pushes_away_from_the_worse_model():
    out = guidance.autoguidance(says(COND), says(UNCOND), 2.0)(X, LEVEL)
    close(out, 2 * COND - UNCOND)


def test_a_perturbed_branch_pushes_the_guided_prediction():
    out, uncond = guidance.perturbed(branches(3), linear(4.0), 3.0).both(X, LEVEL)
    u, c, p = PREDICTIONS[:3]
    close(out, u + 4 * (c - u) + 3 * (c - p), atol=1e-5)
    close(uncond, u)


# Denoisers of denoisers


def counted(calls, denoise):
    def count(x, level):
        jax.debug.callback(lambda: calls.append(len(x)))
        return denoise(x, level)

    return count


@pytest.mark.parametrize(('low', 'high'), [(0.3, 2.0), (0.0, 2.0), (0.3, jnp.inf)])
def test_outside_of_the_interval_there_is_one_evaluation_of_cond(low, high):
    calls = []
    inner = guidance.classifier_free(counted(calls, both), 5.0)
    cond = counted(calls, lambda x, level: jnp.full_like(x, 0.25))
    run = jax.jit(lambda level, low, high: guidance.interval(inner, cond, low, high).both(X, level))
    for sigma in (80.0, 2.5, 1.0, 0.1):
        level = NoiseLevel(t=jnp.array(0.0), alpha=jnp.array(0.5), sigma=jnp.array(0.5 * sigma))
        calls.clear()
        out, uncond = run(level, low, high)
        jax.effects_barrier()
        if low <= sigma <= high:
            assert calls == [6]
            close(out, uncond + 5 * 2.0)
        else:
            assert calls == [3]
            close(out, 0.25)
            close(uncond, 0.25)
    assert run._cache_size() == 1


def test_an_interval_without_end_holds_noise_alone():
    level = NoiseLevel(t=jnp.array(999.0), alpha=jnp.array(0.0), sigma=jnp.array(1.0))
    inner = guidance.classifier_free(both, 5.0)
    close(guidance.interval(inner, says(COND), 0.5, jnp.inf)(X, level), inner(X, level))
    close(guidance.interval(inner, says(COND), 0.5, 100.0)(X, level), COND)


def test_zero_init_stands_still_without_an_evaluation():
    calls = []
    inner = guidance.classifier_free(counted(calls, both), 5.0)
    denoise = guidance.hold_still(inner, 0.96)
    early, late = (flow.Schedule().level(jnp.array(t)) for t in (989.0, 900.0))
    x0 = denoise(X, early)
    jax.effects_barrier()
    assert calls == []
    velocity = (X - early.alpha * x0) / early.sigma - x0  # eps - x0
    close(velocity, 0)
    close(denoise(X, late), inner(X, late))


def test_thresholding_clips_to_the_percentile_but_never_inside_the_range():
    images = jnp.stack([jnp.linspace(-3, 3, 101), jnp.linspace(-0.5, 0.5, 101)])
    out = guidance.thresholded(says(images), 0.9)(images, LEVEL)
    s = np.quantile(np.abs(images[0]), 0.9)
    close(out[0], np.clip(images[0], -s, s) / s)
    close(out[1], images[1])
    close(guidance.thresholded(says(images), 0.9, limit=1.0)(images, LEVEL)[0], np.clip(images[0], -1, 1))


def test_thresholding_keeps_both_predictions():
    both_out = guidance.thresholded(guided(branches(), linear(9.0)), 0.99).both(X, LEVEL)
    for found, plain in zip(both_out, guided(branches(), linear(9.0)).both(X, LEVEL), strict=True):
        close(found, guidance.thresholded(says(plain), 0.99)(X, LEVEL))


# diffusers


@pytest.fixture
def torch():
    return pytest.importorskip('torch')


def guider(name, **settings):
    guiders = pytest.importorskip('diffusers.guiders')
    made = getattr(guiders, name)(**settings)
    made._step, made._num_inference_steps = 3, 10
    return made


def of_network(rule, prediction, num=2):
    """The guided prediction of the network itself, which is what diffusers' guiders map to."""
    s = parameterization.named(prediction)(LEVEL)
    x0s = [s.c_skip * X + s.c_out * out for out in PREDICTIONS[:num]]
    out = guided(separate(*(says(x0) for x0 in x0s)), rule, parameterization.named(prediction))(X, LEVEL)
    return parameterization.target(s, X, out)


@pytest.mark.parametrize('prediction', ['eps', 'v'])
def test_rescaling_is_that_of_diffusers(torch, prediction):
    theirs = guider('ClassifierFreeGuidance', guidance_scale=7.5, guidance_rescale=0.7)
    expected = theirs.forward(*(torch.tensor(np.asarray(a)) for a in (COND, UNCOND))).pred
    with oracles.float64():
        ours = of_network(guidance.rescaled(linear(7.5), 0.7), prediction)
    close(ours, expected.numpy(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize('threshold', [15.0, 2.0])
def test_projection_is_that_of_diffusers(torch, threshold):
    theirs = guider(
        'AdaptiveProjectedGuidance',
        guidance_scale=4.0,
        adaptive_projected_guidance_rescale=threshold,
        eta=0.3,
        use_original_formulation=True,  # cond + scale; ours and the paper's is scale - 1
    )
    expected = theirs.forward(*(torch.tensor(np.asarray(a)) for a in (COND, UNCOND))).pred
    close(guidance.projected(5.0, eta=0.3, threshold=threshold)(UNCOND, COND), expected.numpy(), atol=1e-5)


def test_zero_star_is_that_of_diffusers(torch):
    theirs = guider('ClassifierFreeZeroStarGuidance', guidance_scale=6.0)
    expected = theirs.forward(*(torch.tensor(np.asarray(a)) for a in (COND, UNCOND))).pred
    close(of_network(guidance.zero_star(6.0), 'flow'), expected.numpy(), rtol=1e-4, atol=1e-4)


def test_a_perturbed_branch_is_that_of_diffusers(torch):
    theirs = guider(
        'PerturbedAttentionGuidance',
        guidance_scale=7.5,
        perturbed_guidance_scale=2.8,
        perturbed_guidance_layers=[0],
        perturbed_guidance_start=0.0,
        perturbed_guidance_stop=1.0,
    )
    u, c, p = PREDICTIONS[:3]
    expected = theirs.forward(*(torch.tensor(np.asarray(a)) for a in (c, u, p))).pred
    close(guidance.perturbed(branches(3), linear(7.5), 2.8)(X, LEVEL), expected.numpy(), atol=1e-5)


def test_thresholding_is_that_of_diffusers(torch):
    diffusers = pytest.importorskip('diffusers')
    theirs = diffusers.DDPMScheduler(
        thresholding=True, dynamic_thresholding_ratio=0.9, sample_max_value=1.5
    )._threshold_sample(torch.tensor(np.asarray(3 * COND)))
    close(guidance.thresholded(says(3 * COND), 0.9, 1.5)(X, LEVEL), theirs.numpy())


def test_guidance_works_at_every_level_of_an_exploding_schedule():
    for t in (0.0, 999.0):
        level = edm.Schedule().level(jnp.array(t))
        rule = guidance.rescaled(linear(3.0), 0.7)
        out = guided(branches(), rule, parameterization.edm)(X, level)
        assert np.isfinite(out).all()
