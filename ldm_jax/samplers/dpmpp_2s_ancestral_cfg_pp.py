"""DPM-Solver++(2S), ancestral, with CFG++ guidance."""

from __future__ import annotations

from typing import ClassVar

from flax import struct

from ldm_jax.diffusion import cfg_pp, stochastic
from ldm_jax.diffusion.noise import normal
from ldm_jax.diffusion.probability_flow import between, ddim, eps_of
from ldm_jax.diffusion.trace_once import again
from ldm_jax.types import Array, Denoiser, NoiseLevel, PyTree


@struct.dataclass
class Sampler:
    """dpmpp_2s_ancestral whose noise is the unconditional one; without guidance the same.

    Ref: Chung et al. 2024, arXiv:2406.08070; ComfyUI's sample_dpmpp_2s_ancestral_cfg_pp, which takes only the
    guided x0_hat at the midpoint.
    """

    eta: float = 1.0
    s_noise: float = 1.0
    order: ClassVar[int] = 2

    def init(self, x: Array, levels: NoiseLevel, num_steps: Array) -> PyTree:
        return ()

    def step(
        self, denoise: Denoiser, x: Array, state: PyTree, here: NoiseLevel, there: NoiseLevel, keys: Array
    ) -> tuple[Array, PyTree]:
        guided, uncond = cfg_pp.both(denoise, x, here)
        down, rise, fresh = stochastic.ancestral(here, there, self.eta)
        middle, pull = between(here, down), guided - uncond
        x_2 = ddim(guided, eps_of(x, uncond, here), middle)
        near = stochastic.gap(here, down) < stochastic.FAR
        guided = again(denoise, near, x_2, middle, guided)
        x = ddim(guided, eps_of(x + here.alpha * pull, guided, here), down)
        return rise * x + self.s_noise * fresh * normal(keys, x), state
