"""Heun's method in sigma / alpha: the sampler of EDM."""

from __future__ import annotations

import math
from typing import ClassVar

from flax import struct

from ldm_jax.diffusion.probability_flow import churn, ddim, eps_of, reach
from ldm_jax.diffusion.trace_once import parts_again
from ldm_jax.types import Array, Denoiser, NoiseLevel, PyTree


@struct.dataclass
class Sampler:
    """The mean of the slopes at both ends of a step, two evaluations; noise is added before it by `churn`.

    s_tmin and s_tmax bound the sigma / alpha at which noise is added. Steps to clean data are Euler's, as published,
    and so are those from no signal at all, where sigma / alpha is infinite. Order 2.
    flow: for levels of a flow, alpha = 1 - sigma: the mean of the velocities eps - x0 over sigma, from no signal too,
    as diffusers' FlowMatchHeunDiscreteScheduler.
    Ref: Karras et al. 2022, arXiv:2206.00364, algorithm 2; k-diffusion's sample_heun.
    """

    s_churn: float = 0.0
    s_tmin: float = 0.0
    s_tmax: float = math.inf
    s_noise: float = 1.0
    flow: bool = struct.field(pytree_node=False, default=False)
    order: ClassVar[int] = 2

    def init(self, x: Array, levels: NoiseLevel, num_steps: Array) -> PyTree:
        return num_steps

    def step(
        self, denoise: Denoiser, x: Array, state: PyTree, here: NoiseLevel, there: NoiseLevel, keys: Array
    ) -> tuple[Array, PyTree]:
        x, here = churn(self, x, here, keys, state)
        x0 = denoise(x, here)
        eps = eps_of(x, x0, here)
        end = ddim(x0, eps, there)
        inside = (there.sigma > 0) & (self.flow | (here.alpha > 0))
        _, after = parts_again(denoise, inside, end, there, (x0, eps))
        span = (there.sigma - here.sigma) / there.alpha if self.flow else reach(here, there)
        return end + span * (after - eps) / 2, state
