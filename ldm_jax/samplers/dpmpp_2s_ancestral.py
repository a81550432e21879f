"""DPM-Solver++(2S) steps that go below the next level and come back up to it with noise ("DPM++ 2S a")."""

from __future__ import annotations

from typing import ClassVar

from flax import struct

from ldm_jax.diffusion import stochastic
from ldm_jax.diffusion.noise import normal
from ldm_jax.diffusion.probability_flow import between, ddim, eps_of
from ldm_jax.diffusion.trace_once import again
from ldm_jax.types import Array, Denoiser, NoiseLevel, PyTree


@struct.dataclass
class Sampler:
    """Second order in one step, by an evaluation at half of h; eta = 0 is DPM-Solver++(2S).

    Ref: Lu et al. 2022, arXiv:2211.01095, algorithm 1; k-diffusion's sample_dpmpp_2s_ancestral;
    flow: ComfyUI's sample_dpmpp_2s_ancestral_RF, which evaluates at sigma 0.9999 in a first step from sigma = 1,
    where here that step is of first order.
    """

    eta: float = 1.0
    s_noise: float = 1.0
    flow: bool = struct.field(pytree_node=False, default=False)  # the rule of stochastic.ancestral
    order: ClassVar[int] = 2

    def init(self, x: Array, levels: NoiseLevel, num_steps: Array) -> PyTree:
        return ()

    def step(
        self, denoise: Denoiser, x: Array, state: PyTree, here: NoiseLevel, there: NoiseLevel, keys: Array
    ) -> tuple[Array, PyTree]:
        down, rise, fresh = stochastic.ancestral(here, there, self.eta, self.flow)
        x0 = denoise(x, here)
        middle = between(here, down)
        x_2 = ddim(x0, eps_of(x, x0, here), middle)
        near = stochastic.gap(here, down) < stochastic.FAR
        x0 = again(denoise, near, x_2, middle, x0)
        x = ddim(x0, eps_of(x, x0, here), down)
        return rise * x + self.s_noise * fresh * normal(keys, x), state
