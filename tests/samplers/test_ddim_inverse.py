"""DDIM backwards against diffusers, step by step, and that DDIM leads back to where it began."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ldm_jax.diffusion import grids, parameterization
from ldm_jax.diffusion.denoiser import denoiser
from ldm_jax.diffusion.sampling import ascending, sample
from ldm_jax.samplers import ddim
from ldm_jax.samplers.ddim_inverse import Sampler
from ldm_jax.schedules.scaled_linear import Schedule
from ldm_jax.types import Cond
from tests import oracles
from tests.contracts.test_ode_samplers import mixture_denoiser
from tests.oracles import keys


@pytest.mark.parametrize(
    ('grid', 'end', 'prediction', 'steps'),
    [
        ('leading', 'clean', 'eps', 7),
        ('leading', 'first', 'eps', 50),
        ('leading', 'first', 'v', 50),
        ('trailing', 'clean', 'eps', 50),
        ('trailing', 'first', 'v', 5),
    ],
)
def test_the_trajectory_is_that_of_diffusers(grid, end, prediction, steps):
    torch, diffusers = pytest.importorskip('torch'), pytest.importorskip('diffusers')
    theirs = diffusers.DDIMInverseScheduler(
        clip_sample=False,
        set_alpha_to_one=end == 'clean',
        steps_offset=1 if grid == 'leading' else 0,
        timestep_spacing=grid,
        prediction_type={'eps': 'epsilon', 'v': 'v_prediction'}[prediction],
    )
    x = np.random.default_rng(0).standard_normal((2, 3, 4))
    with oracles.float64():
        levels = ascending(grids.named(dict(name=grid, end=end))(Schedule(), steps))
        theirs.alphas_cumprod = torch.from_numpy(np.array(Schedule().level(jnp.arange(1000)).alpha ** 2))
        first = 1.0 if end == 'clean' else float(theirs.alphas_cumprod[0])
        theirs.initial_alpha_cumprod = torch.tensor(first, dtype=torch.float64)
        theirs.set_timesteps(steps)
        np.testing.assert_array_equal(levels.t[1:], theirs.timesteps.numpy())

        expected = torch.from_numpy(x)
        for t in theirs.timesteps:
            expected = theirs.step(torch.tanh(expected * (1 + t / 1000)), t, expected).prev_sample

        def network(x, t, cond):
            return jnp.tanh(x * (1 + t / 1000))

        denoise = denoiser(network, parameterization.named(prediction), Cond())
        ours = sample(Sampler(), denoise, jnp.asarray(x), levels, keys(x))
        assert oracles.relative_error(ours, expected.numpy()) < 1e-8


@pytest.mark.slow
@pytest.mark.parametrize('end', ['clean', 'first'])
def test_ddim_leads_back_nearer_with_more_steps_and_exactly_with_iterations(end):
    with oracles.float64():
        x = jnp.linspace(-2, 2, 9)

        def distance(steps, iterations):
            levels = grids.named(dict(name='leading', end=end))(Schedule(), steps)

            @jax.jit
            def there_and_back(x):
                noise = sample(
                    Sampler(iterations=iterations), mixture_denoiser, x, ascending(levels), keys(x)
                )
                return noise, sample(ddim.Sampler(), mixture_denoiser, noise, levels, keys(x))

            noise, back = there_and_back(x)
            assert np.abs(noise - x).max() > 0.1
            return np.abs(back - x).max()

        coarse, fine = distance(50, 1), distance(200, 1)
        assert 0.01 < coarse < 0.5
        assert coarse / fine == pytest.approx(4, rel=0.2)
        assert distance(50, 40) < 1e-9


def test_no_iteration_is_an_error():
    with pytest.raises(ValueError, match='iterations must be at least 1; got 0'):
        Sampler(iterations=0)
