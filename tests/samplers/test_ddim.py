"""DDIM against diffusers, step by step, and its stochastic form against the posterior it stands for."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ldm_jax.diffusion import grids
from ldm_jax.diffusion.sampling import sample
from ldm_jax.samplers.ddim import Sampler
from ldm_jax.schedules.scaled_linear import Schedule
from tests import oracles
from tests.oracles import keys
from tests.tiers import fast

torch = pytest.importorskip('torch')
diffusers = pytest.importorskip('diffusers')


@pytest.mark.parametrize(
    ('grid', 'to_clean', 'steps'),
    fast(2, [('leading', False, 7), ('leading', False, 50), ('trailing', True, 5), ('trailing', True, 50)]),
)
def test_the_trajectory_is_that_of_diffusers(grid, to_clean, steps):
    # trailing: divisors of 1000 only; from others diffusers steps to t - 1000 // S, which is not its next time
    theirs = diffusers.DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule='scaled_linear',
        clip_sample=False,
        set_alpha_to_one=to_clean,
        steps_offset=1 if grid == 'leading' else 0,
        timestep_spacing=grid,
    )
    x = np.random.default_rng(0).standard_normal((2, 3, 4))
    with oracles.float64():
        levels = grids.named(grid)(Schedule(), steps)
        # their table is float32: take ours, so that what differs is the step
        theirs.alphas_cumprod = torch.from_numpy(np.array(Schedule().level(jnp.arange(1000)).alpha ** 2))
        theirs.final_alpha_cumprod = torch.tensor(
            1.0 if to_clean else float(theirs.alphas_cumprod[0]), dtype=torch.float64
        )
        theirs.set_timesteps(steps)
        np.testing.assert_array_equal(levels.t[:-1], theirs.timesteps.numpy())

        expected = torch.from_numpy(x)
        for t in theirs.timesteps:
            eps = torch.tanh(expected * (1 + t / 1000))  # a network
            expected = theirs.step(eps, t, expected).prev_sample

        def denoise(x, level):
            return (x - level.sigma * jnp.tanh(x * (1 + level.t / 1000))) / level.alpha

        ours = sample(Sampler(), denoise, jnp.asarray(x), levels, keys(x))
        assert oracles.relative_error(ours, expected.numpy()) < 1e-8


@pytest.mark.slow
def test_deterministic_sampling_ignores_its_key():
    levels = Schedule().level(jnp.linspace(999, 0, 9))
    x = jax.random.normal(jax.random.key(0), (3, 5))
    first, second = (sample(Sampler(), lambda x, level: jnp.tanh(x), x, levels, keys(x, k)) for k in (1, 2))
    np.testing.assert_array_equal(first, second)


@pytest.mark.slow
@pytest.mark.parametrize('eta', [0.5, 1.0])
def test_stochastic_sampling_ends_in_the_data_distribution(eta):
    levels = Schedule().level(jnp.linspace(999.0, 0.0, 401))

    def denoise(x, level):  # of data N(1, 0.25)
        return 1 + level.alpha * 0.25 / (level.alpha**2 * 0.25 + level.sigma**2) * (x - level.alpha)

    x = jax.random.normal(jax.random.key(0), (20000,))
    out = sample(Sampler(eta=eta), denoise, x, levels, keys(x, 1))
    np.testing.assert_allclose([out.mean(), out.std()], [1.0, 0.5], atol=0.02)
