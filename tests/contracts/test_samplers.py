"""What every sampler must do, with denoisers whose answers are known in closed form."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ldm_jax import build
from ldm_jax.diffusion.sampling import sample
from ldm_jax.schedules.scaled_linear import Schedule
from tests.oracles import keys
from tests.tiers import fast

# CFG++ needs two predictions at a time; test_stochastic_samplers.py has it, and all that draw noise by default.
NAMES = [name for name in build.names('samplers') if not name.endswith('_cfg_pp')]
STOCHASTIC = {
    'ddpm', 'dpm2_ancestral', 'dpmpp_2m_sde', 'dpmpp_2s_ancestral', 'dpmpp_3m_sde', 'dpmpp_sde', 'er_sde',
    'euler_ancestral', 'lcm', 'restart', 'sa_solver', 'seeds_2', 'seeds_3', 'tcd',
}  # fmt: skip


@pytest.mark.parametrize('name', NAMES)
def test_perfect_denoiser_keeps_alpha_x0_plus_sigma_unit_noise(name):  # deterministic or not
    x0, eps = 0.3, jax.random.normal(jax.random.key(0), (64, 256))
    levels = Schedule().level(jnp.linspace(900, 200, 6))
    x = levels.alpha[0] * x0 + levels.sigma[0] * eps
    sampler = build.build('samplers', dict(name=name))
    out = sample(sampler, lambda x, level: jnp.full_like(x, x0), x, levels, keys(x, 1))
    noise = (out - levels.alpha[-1] * x0) / levels.sigma[-1]
    assert abs(noise.mean()) < 0.03
    assert abs(noise.std() - 1) < 0.03


@pytest.mark.parametrize('name', fast(8, NAMES))
def test_the_last_step_to_clean_data_is_the_denoisers_answer_and_finite(name):
    level = Schedule().level(jnp.array([500.0, 20.0]))
    clean = jax.tree.map(lambda a, end: jnp.append(a, end), level, type(level)(t=0.0, alpha=1.0, sigma=0.0))
    out = sample(
        build.build('samplers', dict(name=name)),
        lambda x, level: 0.25 + 0 * x,
        jnp.ones((2, 3)),
        clean,
        keys(jnp.ones(2)),
    )
    np.testing.assert_allclose(out, 0.25, atol=1e-6)
