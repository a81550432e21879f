"""Replaying a step around one network: the same answers, gradients and skipped evaluations as the step as written."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.extend.core import jaxprs_in_params
from jax.sharding import PartitionSpec as P

from ldm_jax import build
from ldm_jax.diffusion.guidance import Guided
from ldm_jax.diffusion.sampling import sample
from ldm_jax.diffusion.trace_once import again, once, parts_again
from ldm_jax.schedules.scaled_linear import Schedule
from ldm_jax.types import NoiseLevel
from tests.oracles import keys

X = jnp.linspace(-1.0, 1.0, 16).reshape(8, 2)


def level(sigma):
    return NoiseLevel(t=jnp.nan, alpha=jnp.asarray(0.8), sigma=jnp.asarray(sigma))


def denoise(x, level):
    return jnp.tanh(x + level.sigma)


GUIDED = Guided(lambda x, level: (denoise(x, level), denoise(x, level) / 2))


def three(x, wanted, denoise):
    """A step whose second evaluation depends on the first, and its third on both."""
    first = denoise(x, level(0.5))
    second = again(denoise, wanted, x + first, level(0.3), 3 * first)
    third = denoise(x * second + first, level(0.1))
    return first + 2 * second + 4 * third, {'memory': third, 'count': jnp.asarray(3)}


def mixed(x, wanted, denoise):
    """A step that asks for both predictions, and for the guided one alone."""
    guided, uncond = denoise.both(x, level(0.5))
    second = again(denoise, wanted, x + uncond, level(0.3), guided)
    return guided + 2 * uncond + 4 * second


@pytest.mark.parametrize('wanted', [True, False])
@pytest.mark.parametrize(('step', 'denoise'), [(three, denoise), (three, GUIDED), (mixed, GUIDED)])
def test_a_replayed_step_is_the_step(step, denoise, wanted):
    expected = step(X, jnp.asarray(wanted), denoise)
    found = jax.jit(lambda x, wanted: once(functools.partial(step, x, wanted), denoise, x))(X, wanted)
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-6), found, expected)
    assert jax.tree.map(jnp.result_type, found) == jax.tree.map(jnp.result_type, expected)


@pytest.mark.parametrize('wanted', [True, False])
def test_gradients_are_those_of_the_step(wanted):
    def loss(run, scale):
        def scaled(x, level):
            return denoise(scale * x, level)

        return jnp.sum(run(functools.partial(three, X, jnp.asarray(wanted)), scaled, X)[0] ** 2)

    expected = jax.grad(functools.partial(loss, lambda step, denoise, x: step(denoise)))(1.3)
    np.testing.assert_allclose(jax.grad(functools.partial(loss, once))(1.3), expected, rtol=1e-5)


def test_what_is_not_wanted_may_have_no_noise_and_has_finite_gradients():
    def loss(x, sigma, run):
        def step(denoise):
            x0 = denoise(x, level(0.5))
            _, eps = parts_again(denoise, sigma > 0, 0.8 * x0, level(sigma), (x0, x))
            return jnp.sum(eps)

        return run(step, denoise, x)

    for run in (once, lambda step, denoise, x: step(denoise)):
        np.testing.assert_array_equal(jax.grad(loss)(X, 0.0, run), 1)
        assert np.isfinite(jax.grad(loss, 1)(X, 0.0, run))
        x = 0.8 * denoise(X, level(0.5))
        value = jnp.sum(x - 0.8 * denoise(x, level(0.2))) / 0.2
        np.testing.assert_allclose(loss(X, 0.2, run), value, rtol=1e-4)


def shapes(jaxpr):
    """Shapes of all that a program computes, in its loops, branches and functions too."""
    for eqn in jaxpr.eqns:
        yield from (var.aval.shape for var in eqn.outvars)
        for inner in jaxprs_in_params(eqn.params):
            yield from shapes(inner)


@pytest.mark.parametrize('name', ['euler', 'heun', 'seeds_3', 'tcd'])
def test_gradients_keep_neither_weights_nor_activations_of_every_evaluation(name):
    """The network has a width that nothing else has: it would be seen in an array of more dimensions."""
    levels = Schedule().level(jnp.linspace(900.0, 100.0, 6))

    def loss(weights):
        def network(x, level):
            return jnp.tanh(x @ weights) @ weights.T

        sampler = build.build('samplers', dict(name=name))
        return jnp.sum(sample(sampler, network, X, levels, keys(X), differentiable=True))

    program = jax.make_jaxpr(jax.grad(loss))(jnp.ones((2, 101)))
    found = {shape for shape in shapes(program.jaxpr) if 101 in shape}
    assert (8, 101) in found
    assert max(map(len, found)) == 2


def test_conditions_may_differ_in_a_batch_and_devices_may_share_it():
    wanted = jnp.arange(8) % 2 == 0

    def one(x, wanted):
        return once(functools.partial(three, x[None], wanted), denoise, x[None])[0][0]

    expected = jnp.stack([three(x[None], w, denoise)[0][0] for x, w in zip(X, wanted, strict=True)])
    np.testing.assert_allclose(jax.vmap(one)(X, wanted), expected, rtol=1e-6)
    mesh = jax.make_mesh((8,), ('data',), axis_types=(jax.sharding.AxisType.Auto,))

    def share(x, wanted):
        return one(x[0], wanted[0])[None]

    for check in (False, True):
        shared = jax.shard_map(share, mesh=mesh, in_specs=P('data'), out_specs=P('data'), check_vma=check)
        np.testing.assert_allclose(jax.jit(shared)(X, wanted), expected, rtol=1e-6)


def test_a_single_evaluation_may_be_anywhere_and_one_of_several_not():
    def inside(denoise):
        return jax.lax.cond(X[0, 0] < 0, lambda x: denoise(2 * x, level(0.5)), lambda x: x, X)

    np.testing.assert_allclose(once(inside, denoise, X), denoise(2 * X, level(0.5)), rtol=1e-6)
    with pytest.raises(ValueError, match=r'in 2 places .* lax.cond.*trace_once.again'):
        once(lambda denoise: denoise(inside(denoise), level(0.1)), denoise, X)
