"""DPM-Solver++(2M) with CFG++ guidance."""

from __future__ import annotations

from typing import ClassVar

import jax.numpy as jnp
from flax import struct

from ldm_jax.diffusion import cfg_pp, stochastic
from ldm_jax.diffusion.probability_flow import ddim, eps_of
from ldm_jax.types import Array, Denoiser, NoiseLevel, PyTree


@struct.dataclass
class Sampler:
    """Second order, deterministic; without guidance DPM-Solver++(2M).

    The slope is that from the last unconditional to this guided x0_hat, as in ComfyUI's sample_dpmpp_2m_cfg_pp:
    it holds the guidance's pull beside the slope. Ref: Chung et al. 2024, arXiv:2406.08070.
    """

    order: ClassVar[int] = 2

    def init(self, x: Array, levels: NoiseLevel, num_steps: Array) -> PyTree:
        return jnp.zeros_like(x), jnp.full((), stochastic.FAR, levels.sigma.dtype)

    def step(
        self, denoise: Denoiser, x: Array, state: PyTree, here: NoiseLevel, there: NoiseLevel, keys: Array
    ) -> tuple[Array, PyTree]:
        last_uncond, last_h = state
        guided, uncond = cfg_pp.both(denoise, x, here)
        h = stochastic.gap(here, there)
        slope = jnp.where(h < stochastic.FAR, -jnp.expm1(-h) / 2 * h / last_h, 0.0)
        x = ddim(guided, eps_of(x, uncond, here), there)
        return x + there.alpha * slope * (guided - last_uncond), (uncond, h)
