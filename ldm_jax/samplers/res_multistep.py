"""Refined exponential solver: multistep of order 2 in half the log-SNR."""

from __future__ import annotations

from typing import ClassVar

import jax.numpy as jnp
from flax import struct

from ldm_jax.diffusion.probability_flow import (
    History,
    ddim,
    eps_of,
    exponential_moments,
    half_log_snr,
    multistep_weights,
)
from ldm_jax.types import Array, Denoiser, NoiseLevel, PyTree


@struct.dataclass
class Sampler:
    """x0_hat extrapolated by a line, integrated exactly, one evaluation a step; the first is DDIM's. Order 2.

    Steps to clean data are DDIM's too. `dpmpp_2m` takes the line's value in the middle of the step instead.
    Ref: Zhang & Chen 2023, arXiv:2308.02157; ComfyUI's res_multistep without noise.
    """

    order: ClassVar[int] = 2

    def init(self, x: Array, levels: NoiseLevel, num_steps: Array) -> PyTree:
        return History.empty(x, levels, 1)

    def step(
        self, denoise: Denoiser, x: Array, state: PyTree, here: NoiseLevel, there: NoiseLevel, keys: Array
    ) -> tuple[Array, PyTree]:
        x0 = denoise(x, here)
        lam, lam_there = half_log_snr(here), half_log_snr(there)
        moments = exponential_moments(lam - lam_there, 2)
        weights = multistep_weights(state, lam, lam_there, jnp.where(there.sigma > 0, 2, 1), moments)
        x = ddim(x0, eps_of(x, x0, here), there) - there.alpha * state.correction(weights, x0)
        return x, state.push(x0, lam)
