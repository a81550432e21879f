"""Euler steps with CFG++ guidance, ancestral where eta > 0."""

from __future__ import annotations

from typing import ClassVar

from flax import struct

from ldm_jax.diffusion import cfg_pp, stochastic
from ldm_jax.diffusion.noise import normal
from ldm_jax.diffusion.probability_flow import ddim, eps_of
from ldm_jax.types import Array, Denoiser, NoiseLevel, PyTree


@struct.dataclass
class Sampler:
    """x0_guided with the unconditional noise. eta = 0 is DDIM CFG++, eta = 1 Euler ancestral CFG++.

    Ref: Chung et al. 2024, arXiv:2406.08070, algorithm 2; ComfyUI's sample_euler_ancestral_cfg_pp, the form that
    divides x by alpha, so that flow models are sampled right too. Without guidance it is euler_ancestral.
    """

    eta: float = 0.0
    s_noise: float = 1.0
    order: ClassVar[int] = 1

    def init(self, x: Array, levels: NoiseLevel, num_steps: Array) -> PyTree:
        return ()

    def step(
        self, denoise: Denoiser, x: Array, state: PyTree, here: NoiseLevel, there: NoiseLevel, keys: Array
    ) -> tuple[Array, PyTree]:
        guided, uncond = cfg_pp.both(denoise, x, here)
        down, _, fresh = stochastic.ancestral(here, there, self.eta)
        x = ddim(guided, eps_of(x, uncond, here), down)
        return x + self.s_noise * fresh * normal(keys, x), state
