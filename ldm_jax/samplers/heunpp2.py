"""Heun++: the slopes at the end of a step and at the end of the next one, weighed by their noise."""

from __future__ import annotations

import math
from typing import ClassVar

import jax
import jax.numpy as jnp
from flax import struct

from ldm_jax.diffusion.probability_flow import churn, counted, ddim, eps_of, reach
from ldm_jax.diffusion.trace_once import parts_again
from ldm_jax.types import Array, Denoiser, NoiseLevel, PyTree


@struct.dataclass
class Sampler:
    """Three evaluations a step, two in the last but one, one in the last; noise is added before it by `churn`.

    With rho = sigma / alpha, the slopes at the next two levels weigh rho / (3 rho_0) each, in the last but one step
    the next level's rho / (2 rho_0), where rho_0 is the run's first; the slope here weighs the rest. Such means are
    of order 1. s_tmin and s_tmax bound the sigma / alpha at which noise is added.
    Ref: sd-webui-samplers-scheduler's Heun++; ComfyUI's heunpp2.
    """

    s_churn: float = 0.0
    s_tmin: float = 0.0
    s_tmax: float = math.inf
    s_noise: float = 1.0
    order: ClassVar[int] = 1

    def init(self, x: Array, levels: NoiseLevel, num_steps: Array) -> PyTree:
        return levels, *counted(num_steps)

    def step(
        self, denoise: Denoiser, x: Array, state: PyTree, here: NoiseLevel, there: NoiseLevel, keys: Array
    ) -> tuple[Array, PyTree]:
        levels, i, num_steps = state
        x, here = churn(self, x, here, keys, num_steps)
        x0 = denoise(x, here)
        eps = eps_of(x, x0, here)
        end = ddim(x0, eps, there)
        beyond = jax.tree.map(lambda a: a[i + 2], levels)  # jax clamps: not used where there is none

        def weight(level):
            return level.sigma / level.alpha * levels.alpha[0] / levels.sigma[0]

        inside = (i + 1 < num_steps) & (there.sigma > 0) & (here.alpha > 0)
        parts = parts_again(denoise, inside, end, there, (x0, eps))
        change = weight(there) * (parts[1] - eps)
        farther = inside & (i + 2 < num_steps) & (beyond.sigma > 0)
        _, last = parts_again(denoise, farther, ddim(*parts, beyond), beyond, parts)
        change = jnp.where(farther, (change + weight(beyond) * (last - eps)) / 3, change / 2)
        return end + reach(here, there) * change, (levels, i + 1, num_steps)
