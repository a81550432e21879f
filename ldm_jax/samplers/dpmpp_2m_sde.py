"""DPM-Solver++(2M) for the reverse SDE."""

from __future__ import annotations

from typing import ClassVar

import jax.numpy as jnp
from flax import struct

from ldm_jax.build import unknown
from ldm_jax.diffusion import stochastic
from ldm_jax.diffusion.noise import normal
from ldm_jax.diffusion.probability_flow import counted, lowered
from ldm_jax.types import Array, Denoiser, NoiseLevel, PyTree

VARIANTS = ['heun', 'midpoint']


@struct.dataclass
class Sampler:
    """Second order in the drift, from this step's x0_hat and the last one's; eta = 0 is DPM-Solver++(2M).

    The SDE has eta times the noise variance of the one that retraces the forward process (eta = 1), with the
    drift that keeps the marginals: x / alpha forgets at the rate 1 + eta.
    variant: how x0_hat's slope is weighed, 'midpoint' or 'heun', the same to third order in h.
    The first step and the last one, to clean data, are of first order, as in the reference. One to another end is
    too with lower_order_final, in a run of fewer than 15 steps, or with euler_at_final: diffusers' sde-dpmsolver++.
    Ref: Lu et al. 2022, arXiv:2211.01095, appendix; k-diffusion's sample_dpmpp_2m_sde.

    Raises ValueError for another variant.
    """

    eta: float = 1.0
    s_noise: float = 1.0
    variant: str = struct.field(pytree_node=False, default='midpoint')
    lower_order_final: bool = struct.field(pytree_node=False, default=False)
    euler_at_final: bool = struct.field(pytree_node=False, default=False)
    order: ClassVar[int] = 2

    def __post_init__(self):
        if self.variant not in VARIANTS:
            raise unknown('variant', self.variant, VARIANTS)

    def init(self, x: Array, levels: NoiseLevel, num_steps: Array) -> PyTree:
        return jnp.zeros_like(x), jnp.full((), stochastic.FAR, levels.sigma.dtype), *counted(num_steps)

    def step(
        self, denoise: Denoiser, x: Array, state: PyTree, here: NoiseLevel, there: NoiseLevel, keys: Array
    ) -> tuple[Array, PyTree]:
        last_x0, last_h, i, num_steps = state
        x0, h = denoise(x, here), stochastic.gap(here, there)
        z = (1 + self.eta) * h
        flat, slope = stochastic.moments(z, 2)
        if self.variant == 'midpoint':
            slope = flat / 2
        few = self.lower_order_final & (num_steps < 15)
        order = lowered(2, i, num_steps, there, few=few, euler_at_final=self.euler_at_final)
        slope = slope * jnp.where((h < stochastic.FAR) & (order > 1), h / last_h, 0.0)
        kept = there.sigma / here.sigma * jnp.exp(-self.eta * h)
        fresh = there.sigma * jnp.sqrt(-jnp.expm1(-2 * self.eta * h))
        mean = kept * x + there.alpha * (flat * x0 + slope * (x0 - last_x0))
        return mean + self.s_noise * fresh * normal(keys, x), (x0, h, i + 1, num_steps)
