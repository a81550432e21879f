"""DPM-Solver++(3M): multistep of three predictions in half the log-SNR."""

from __future__ import annotations

from typing import ClassVar

import jax.numpy as jnp
from flax import struct

from ldm_jax.diffusion.probability_flow import (
    History,
    counted,
    ddim,
    eps_of,
    exponential_moments,
    half_log_snr,
    lowered,
    multistep_weights,
)
from ldm_jax.types import Array, Denoiser, NoiseLevel, PyTree


@struct.dataclass
class Sampler:
    """x0_hat extrapolated by a parabola, one evaluation a step; starts with a step of order 1 and one of order 2.

    lower_order_final: the last two steps of a run of fewer than 15 are of orders 2 and 1; to clean data always 1.
    Quirk kept: the parabola's second difference has half the weight that would make the scheme of order 3, so it is
    of order 2, as its start is; the step of order 2 is that of `dpmpp_2m`.
    Ref: Lu et al. 2022, arXiv:2211.01095; diffusers' DPMSolverMultistepScheduler, dpmsolver++ of order 3.
    """

    lower_order_final: bool = struct.field(pytree_node=False, default=True)
    order: ClassVar[int] = 2

    def init(self, x: Array, levels: NoiseLevel, num_steps: Array) -> PyTree:
        return History.empty(x, levels, 2), *counted(num_steps)

    def step(
        self, denoise: Denoiser, x: Array, state: PyTree, here: NoiseLevel, there: NoiseLevel, keys: Array
    ) -> tuple[Array, PyTree]:
        history, i, num_steps = state
        x0 = denoise(x, here)
        lam, lam_there = half_log_snr(here), half_log_snr(there)
        few = self.lower_order_final & (num_steps < 15)
        order = jnp.minimum(lowered(3, i, num_steps, there, few=few), history.length + 1)
        whole, first, second = exponential_moments(lam - lam_there, 3)
        moments = [whole, jnp.where(order == 2, whole / 2, first), second / 2]
        weights = multistep_weights(history, lam, lam_there, order, moments)
        x = ddim(x0, eps_of(x, x0, here), there) - there.alpha * history.correction(weights, x0)
        return x, (history.push(x0, lam), i + 1, num_steps)
