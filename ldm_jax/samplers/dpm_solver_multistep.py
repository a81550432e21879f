"""DPM-Solver and DPM-Solver++, multistep: a polynomial through the last predictions, in half the log-SNR."""

from __future__ import annotations

import jax.numpy as jnp
from flax import struct

from ldm_jax.build import unknown
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

VARIANTS = ['dpmsolver', 'dpmsolver++']
SOLVER_TYPES = ['heun', 'midpoint']


@struct.dataclass
class Sampler:
    """Predictions extrapolated by a polynomial of max_order (1 to 3) points, one evaluation a step; of order 2 at most.

    variant: 'dpmsolver++' extrapolates x0_hat, 'dpmsolver' eps_hat. solver_type: how a step of order 2 weighs the
    slope, 'midpoint' or 'heun', the same to third order. It starts with steps of order 1 and 2; steps to clean data
    are of order 1. lower_order_final: so is the last one of fewer than 15 steps, and the one before is of order 2.
    euler_at_final: the last one is of order 1 whatever their number. Without both and with the other defaults it is
    `dpmpp_2m`. Quirk kept: the second difference of order 3 has half the weight that would make it of order 3.
    Ref: Lu et al. 2022, arXiv:2206.00927 and arXiv:2211.01095; diffusers' DPMSolverMultistepScheduler; with its
    defaults the sampler of CompVis' --dpm_solver.

    Raises ValueError for an order, a variant or a solver_type that is unknown.
    """

    max_order: int = struct.field(pytree_node=False, default=2)
    variant: str = struct.field(pytree_node=False, default='dpmsolver++')
    solver_type: str = struct.field(pytree_node=False, default='midpoint')
    lower_order_final: bool = struct.field(pytree_node=False, default=True)
    euler_at_final: bool = struct.field(pytree_node=False, default=False)

    def __post_init__(self):
        if self.max_order not in (1, 2, 3):
            raise ValueError(f'max_order must be 1, 2 or 3; got {self.max_order}.')
        if self.variant not in VARIANTS:
            raise unknown('variant', self.variant, VARIANTS)
        if self.solver_type not in SOLVER_TYPES:
            raise unknown('solver_type', self.solver_type, SOLVER_TYPES)

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
        data = self.variant == 'dpmsolver++'
        newest, scale = (x0, there.alpha) if data else (eps, there.sigma)
        lam, lam_there = half_log_snr(here), half_log_snr(there)

        few = self.lower_order_final & (num_steps < 15)
        order = lowered(self.max_order, i, num_steps, there, few=few, euler_at_final=self.euler_at_final)
        order = jnp.minimum(order, history.length + 1)
        moments = exponential_moments((lam - lam_there) if data else (lam_there - lam), self.max_order)
        if self.max_order > 1 and self.solver_type == 'midpoint':
            moments[1] = jnp.where(order == 2, moments[0] / 2, moments[1])
        if self.max_order > 2:
            moments[2] = moments[2] / 2
        weights = multistep_weights(history, lam, lam_there, order, moments)
        x = ddim(x0, eps, there) - scale * history.correction(weights, newest)
        return x, (history.push(newest, lam), i + 1, num_steps)
