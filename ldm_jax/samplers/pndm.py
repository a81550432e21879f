"""Pseudo numerical methods: a Runge-Kutta start, then Adams-Bashforth."""

from __future__ import annotations

from typing import ClassVar

import jax
import jax.numpy as jnp
from flax import struct

from ldm_jax.diffusion.evaluations import again
from ldm_jax.diffusion.probability_flow import (
    History,
    adams_bashforth,
    between,
    ddim,
    eps_of,
    reach,
)
from ldm_jax.types import Array, Denoiser, NoiseLevel, PyTree


@struct.dataclass
class Sampler:
    """Three pseudo Runge-Kutta steps of four evaluations, then DDIM's with the noise of Adams-Bashforth 4.

    skip_prk_steps starts like `plms` instead, as Stable Diffusion's own configuration does. The weights are those of
    equal distances, which leaves order 2. Runge-Kutta looks half-way in log-SNR, where diffusers looks half-way in
    time: the same level where log-SNR is linear in time. Its steps to clean data and from no signal are DDIM's.
    Ref: Liu et al. 2022, arXiv:2202.09778, algorithm 2; diffusers' PNDMScheduler.
    """

    skip_prk_steps: bool = struct.field(pytree_node=False, default=False)
    order: ClassVar[int] = 2

    def init(self, x: Array, levels: NoiseLevel, num_steps: Array) -> PyTree:
        return History.empty(x, levels, 3)

    def step(
        self, denoise: Denoiser, x: Array, state: PyTree, here: NoiseLevel, there: NoiseLevel, keys: Array
    ) -> tuple[Array, PyTree]:
        x0 = denoise(x, here)
        eps = eps_of(x, x0, here)
        end = ddim(x0, eps, there)
        starts = (there.sigma > 0) & (here.alpha > 0) & (state.length < (1 if self.skip_prk_steps else 3))
        # No level without noise where there is no start: eps_of would divide by it, and so would its gradient.
        middle, last = jax.lax.cond(starts, lambda: (between(here, there), there), lambda: (here, here))

        def slope(change, level):
            """The noise where DDIM's step to a level ends if it takes eps + change; less eps."""
            moved = ddim(x0, eps, level) + reach(here, level) * change
            return eps_of(moved, again(denoise, starts, moved, level, x0), level) - eps

        if self.skip_prk_steps:
            start = slope(0.0, last) / 2
        else:
            second = slope(0.0, middle)
            third = slope(second, middle)
            start = (2 * second + 2 * third + slope(third, last)) / 6
        multistep = state.correction(adams_bashforth(state.length + 1, 4)[1:], eps)
        change = jnp.where(starts, start, multistep)
        return end + reach(here, there) * change, state.push(eps, here.sigma)
