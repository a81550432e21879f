"""What a sampler's program holds and what it runs: the network once, evaluated as often as the sampler says."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.extend.core import jaxprs_in_params

from ldm_jax import build
from ldm_jax.diffusion.guidance import Guided
from ldm_jax.diffusion.process import per_example
from ldm_jax.diffusion.sampling import ascending, sample
from ldm_jax.schedules.scaled_linear import Schedule
from ldm_jax.types import NoiseLevel
from tests import oracles
from tests.oracles import keys

VARIANTS = [
    dict(name='ddim_inverse', iterations=3),
    dict(name='pndm', skip_prk_steps=True),
    dict(name='sa_solver', pece=True),
]
SPECS = [dict(name=name) for name in build.names('samplers')] + VARIANTS
X = jnp.linspace(-2, 2, 12).reshape(3, 4)
STEPS = 6


def network(x, level):
    """A denoiser with a function that nothing else in a sampler uses."""
    return jax.scipy.special.i1e(x) + per_example(level.alpha, x)


def guided(x, level):
    answer = network(x, level)
    return answer, answer - 0.1


def to_clean(steps):
    """Levels from some signal to clean data."""
    levels = Schedule().level(jnp.linspace(900.0, 100.0, steps))
    return jax.tree.map(lambda a, end: jnp.append(a, end), levels, NoiseLevel(t=0.0, alpha=1.0, sigma=0.0))


def table(spec):
    return ascending(to_clean(STEPS)) if spec['name'] == 'ddim_inverse' else to_clean(STEPS)


def occurrences(jaxpr, name):
    """How often a primitive is in a program, those inside of its loops, branches and functions included."""
    inner = (sub for eqn in jaxpr.eqns for sub in jaxprs_in_params(eqn.params))
    return sum(eqn.primitive.name == name for eqn in jaxpr.eqns) + sum(
        occurrences(sub, name) for sub in inner
    )


@pytest.mark.slow
@pytest.mark.parametrize('spec', SPECS, ids=str)
def test_the_program_has_the_network_once(spec):
    sampler = build.build('samplers', spec)

    for differentiable in [False] if hasattr(sampler, 'solve') else [False, True]:

        def run(sampler, x, levels, keys, differentiable=differentiable):
            return sample(sampler, Guided(guided), x, levels, keys, differentiable=differentiable)

        program = jax.make_jaxpr(run)(sampler, X, table(spec), keys(X))
        assert occurrences(program.jaxpr, 'bessel_i1e') == 1


# Where it is not one a step. The last of the steps goes to clean data, where there is no second evaluation.
TWO = 2 * STEPS - 1
EVALUATIONS = {
    'ddim_inverse 3': 3 * STEPS,
    'dpm2': TWO,
    'dpm2_ancestral': TWO,
    'dpm_fast': STEPS + 1,  # with DDIM's step to clean data
    'dpmpp_2s_ancestral': TWO,
    'dpmpp_2s_ancestral_cfg_pp': TWO,
    'dpmpp_sde': TWO,
    'heun': TWO,
    'heunpp2': 3 * (STEPS - 2) + 2 + 1,
    'plms': STEPS + 1,
    'pndm': 4 * 3 + STEPS - 3,
    'pndm True': STEPS + 1,
    'restart': TWO,
    'sa_solver True': TWO,  # not in the first step, which corrects nothing
    'seeds_2': TWO,
    'seeds_3': 3 * STEPS - 2,
}


def evaluations(sampler, levels, start=X):
    """How often a run has evaluated the network, and its result."""
    calls = []

    def counted(x, level):
        jax.debug.callback(lambda: calls.append(1))
        return guided(x, level)

    out = jax.jit(lambda sampler: sample(sampler, Guided(counted), start, levels, keys(start)))(sampler)
    jax.effects_barrier()
    assert np.isfinite(out).all()
    return len(calls)


@pytest.mark.slow
@pytest.mark.parametrize('spec', [spec for spec in SPECS if spec['name'] != 'dpm_adaptive'], ids=str)
def test_a_run_evaluates_as_often_as_the_sampler_says(spec):
    expected = EVALUATIONS.get(' '.join(map(str, spec.values())), STEPS)
    assert evaluations(build.build('samplers', spec), table(spec)) == expected


@pytest.mark.parametrize(('name', 'a_step'), [('restart', 2), ('tcd', 1)])
def test_steps_up_cost_no_evaluation(name, a_step):
    levels = jax.tree.map(lambda a: a[jnp.array([0, 1, 2, 3, 1, 2, 3, 4])], to_clean(STEPS))
    assert evaluations(build.build('samplers', dict(name=name)), levels) == 6 * a_step


@pytest.mark.slow
@pytest.mark.parametrize('spec', [spec for spec in SPECS if not spec['name'].startswith('dpm_')], ids=str)
def test_evaluations_that_are_left_out_at_both_ends_leave_gradients_alone(spec):
    """Where a run starts from pure noise and where it ends on clean data, by finite differences."""
    if spec['name'] == 'ddim_inverse':
        levels = table(spec)
    else:
        levels = jax.tree.map(lambda a, end: a.at[0].set(end), table(spec), NoiseLevel(999.0, 0.0, 1.0))

    def loss(shift, x):
        def shifted(x, level):
            return tuple(answer + shift * jnp.sin(3 * x) for answer in guided(x, level))

        sampler = build.build('samplers', spec)
        return jnp.sum(sample(sampler, Guided(shifted), x, levels, keys(x), differentiable=True) ** 2)

    with oracles.float64():
        levels, x = jax.tree.map(lambda a: jnp.asarray(a, jnp.float64), (levels, X))
        slope = jax.jit(jax.value_and_grad(loss))
        middle, after, before = (slope(0.1 + h, x) for h in (0, 1e-6, -1e-6))
        np.testing.assert_allclose(middle[1], (after[0] - before[0]) / 2e-6, rtol=1e-5)
