"""Heun++: the slopes at the end of a step and at the end of the next one, weighed by their noise."""

from __future__ import annotations

import math
from typing import ClassVar

import jax
from flax import struct

from ldm_jax.diffusion.evaluations import again
from ldm_jax.diffusion.probability_flow import churn, counted, ddim, eps_of, reach
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
        x, here = churn(
            x,
            here,
            keys,
            num_steps,
            s_churn=self.s_churn,
            s_tmin=self.s_tmin,
            s_tmax=self.s_tmax,
            s_noise=self.s_noise,
        )
        x0 = denoise(x, here)
        eps = eps_of(x, x0, here)
        end = ddim(x0, eps, there)
        beyond = jax.tree.map(lambda a: a[i + 2], levels)  # jax clamps: not used where there is none

        def weight(level):
            return level.sigma / level.alpha * levels.alpha[0] / levels.sigma[0]

        inside = (i + 1 < num_steps) & (there.sigma > 0) & (here.alpha > 0)
        farther = inside & (i + 2 < num_steps) & (beyond.sigma > 0)
        end_x0 = again(denoise, inside, end, there, x0)

        def onward():
            return ddim(end_x0, eps_of(end, end_x0, there), beyond)

        x_beyond = jax.lax.cond(farther, onward, lambda: x)
        beyond_x0 = again(denoise, farther, x_beyond, beyond, x0)

        def corrected():
            change = weight(there) * (eps_of(end, end_x0, there) - eps)

            def three():
                return (change + weight(beyond) * (eps_of(x_beyond, beyond_x0, beyond) - eps)) / 3

            return end + reach(here, there) * jax.lax.cond(farther, three, lambda: change / 2)

        return jax.lax.cond(inside, corrected, lambda: end), (levels, i + 1, num_steps)
