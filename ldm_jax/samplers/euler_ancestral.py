"""Euler steps that go below the next level and come back up to it with noise ("Euler a")."""

from __future__ import annotations

from typing import ClassVar

from flax import struct

from ldm_jax.diffusion import stochastic
from ldm_jax.diffusion.noise import normal
from ldm_jax.diffusion.probability_flow import ddim, eps_of
from ldm_jax.types import Array, Denoiser, NoiseLevel, PyTree


@struct.dataclass
class Sampler:
    """Euler ancestral; eta = 0 is Euler's method, which is DDIM.

    On variance-preserving levels it is DDIM with that eta, up to s_noise; unlike DDIM's, its formula also holds
    on others. Ref: k-diffusion's sample_euler_ancestral; flow: ComfyUI's sample_euler_ancestral_RF.
    """

    eta: float = 1.0
    s_noise: float = 1.0  # deviation of the noise, by convention not far above 1
    flow: bool = struct.field(pytree_node=False, default=False)  # the rule of stochastic.ancestral
    order: ClassVar[int] = 1

    def init(self, x: Array, levels: NoiseLevel, num_steps: Array) -> PyTree:
        return ()

    def step(
        self, denoise: Denoiser, x: Array, state: PyTree, here: NoiseLevel, there: NoiseLevel, keys: Array
    ) -> tuple[Array, PyTree]:
        down, rise, fresh = stochastic.ancestral(here, there, self.eta, self.flow)
        x0 = denoise(x, here)
        x = ddim(x0, eps_of(x, x0, here), down)
        return rise * x + self.s_noise * fresh * normal(keys, x), state
