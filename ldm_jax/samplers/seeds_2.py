"""SEEDS-2: an exponential integrator of two stages for the reverse SDE."""

from __future__ import annotations

from typing import ClassVar

import jax.numpy as jnp
from flax import struct

from ldm_jax.build import unknown
from ldm_jax.diffusion import stochastic
from ldm_jax.diffusion.noise import normal, split
from ldm_jax.diffusion.probability_flow import between
from ldm_jax.diffusion.trace_once import again
from ldm_jax.types import Array, Denoiser, NoiseLevel, PyTree

VARIANTS = ['phi_1', 'phi_2']


@struct.dataclass
class Sampler:
    """The SDE of dpmpp_2m_sde; its second evaluation is at the part r of h, on the noise's own path.

    variant: how the second x0_hat is weighed: 'phi_1' as in DPM-Solver++, 'phi_2' by the exact integral of a
    straight line. With 'phi_2' and r = 1 it is ComfyUI's exp_heun_2_x0_sde, and with eta = 0 exp_heun_2_x0.
    Ref: Gonzalez et al. 2023, arXiv:2305.14267; ComfyUI's sample_seeds_2.

    Raises ValueError for another variant.
    """

    eta: float = 1.0
    s_noise: float = 1.0
    r: float = 0.5
    variant: str = struct.field(pytree_node=False, default='phi_1')
    order: ClassVar[int] = 2

    def __post_init__(self):
        if self.variant not in VARIANTS:
            raise unknown('variant', self.variant, VARIANTS)

    def init(self, x: Array, levels: NoiseLevel, num_steps: Array) -> PyTree:
        return ()

    def step(
        self, denoise: Denoiser, x: Array, state: PyTree, here: NoiseLevel, there: NoiseLevel, keys: Array
    ) -> tuple[Array, PyTree]:
        x0, h = denoise(x, here), stochastic.gap(here, there)
        inner = between(here, there, self.r)
        first, second = split(keys, 2)

        flat, _ = stochastic.moments(self.r * h * (1 + self.eta), 2)
        gathered = stochastic.gather(0.0, normal(first, x), self.r * h, self.eta)
        kept = jnp.exp(-self.r * h * self.eta) / here.sigma
        x_2 = inner.sigma * (kept * x + self.s_noise * gathered) + inner.alpha * flat * x0
        x0_2 = again(denoise, h < stochastic.FAR, x_2, inner, x0)

        flat, slope = stochastic.moments(h * (1 + self.eta), 2)
        slope = slope if self.variant == 'phi_2' else flat / 2
        gathered = stochastic.gather(gathered, normal(second, x), (1 - self.r) * h, self.eta)
        kept = jnp.exp(-h * self.eta) / here.sigma
        x = there.sigma * (kept * x + self.s_noise * gathered)
        return x + there.alpha * (flat * x0 + slope / self.r * (x0_2 - x0)), state
