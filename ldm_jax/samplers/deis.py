"""Diffusion exponential integrator sampler: multistep on the noise in half the log-SNR."""

from __future__ import annotations

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
    """Integrates exactly the polynomial through the last max_order (1 to 3) eps_hat, one evaluation a step.

    It starts with a step of order 1, so the whole is of order 2 for max_order 2 and 3. lower_order_final: the last two
    steps of a run of fewer than 15 are of orders 2 and 1; steps to clean data always of 1.
    Ref: Zhang & Chen 2023, arXiv:2204.13902, with log-rho as time; diffusers' DEISMultistepScheduler.
    """

    max_order: int = struct.field(pytree_node=False, default=3)
    lower_order_final: bool = struct.field(pytree_node=False, default=True)

    @property
    def order(self) -> int:
        return min(self.max_order, 2)

    def init(self, x: Array, levels: NoiseLevel, num_steps: Array) -> PyTree:
        return History.empty(x, levels, self.max_order - 1), *counted(num_steps)

    def step(
        self, denoise: Denoiser, x: Array, state: PyTree, here: NoiseLevel, there: NoiseLevel, keys: Array
    ) -> tuple[Array, PyTree]:
        history, i, num_steps = state
        x0 = denoise(x, here)
        eps = eps_of(x, x0, here)
        lam, lam_there = half_log_snr(here), half_log_snr(there)
        few = self.lower_order_final & (num_steps < 15)
        order = lowered(self.max_order, i, num_steps, there, few=few)
        moments = exponential_moments(lam_there - lam, self.max_order)
        weights = multistep_weights(history, lam, lam_there, order, moments)
        x = ddim(x0, eps, there) - there.sigma * history.correction(weights, eps)
        return x, (history.push(eps, lam), i + 1, num_steps)
