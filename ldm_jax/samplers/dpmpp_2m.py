"""DPM-Solver++(2M): multistep of order 2 in half the log-SNR."""

from __future__ import annotations

from typing import ClassVar

import jax.numpy as jnp
from flax import struct

from ldm_jax.diffusion.probability_flow import History, ddim, eps_of, half_log_snr
from ldm_jax.types import Array, Denoiser, NoiseLevel, PyTree


@struct.dataclass
class Sampler:
    """Takes the extrapolated x0_hat in the middle of a step for the whole of it, one evaluation each. Order 2.

    The first step and those to clean data are DDIM's, as in k-diffusion.
    Ref: Lu et al. 2022, arXiv:2211.01095, algorithm 2; k-diffusion's sample_dpmpp_2m.
    """

    order: ClassVar[int] = 2

    def init(self, x: Array, levels: NoiseLevel, num_steps: Array) -> PyTree:
        return History.empty(x, levels, 1)

    def step(
        self, denoise: Denoiser, x: Array, state: PyTree, here: NoiseLevel, there: NoiseLevel, keys: Array
    ) -> tuple[Array, PyTree]:
        x0 = denoise(x, here)
        lam, lam_there = half_log_snr(here), half_log_snr(there)
        h = lam_there - lam
        ratio = h / (lam - state.nodes[0])
        weight = jnp.where(
            (state.length > 0) & (there.sigma > 0), there.alpha * jnp.expm1(-h) * ratio / 2, 0.0
        )
        x = ddim(x0, eps_of(x, x0, here), there) + state.correction([weight], x0)
        return x, state.push(x0, lam)
