"""Pseudo numerical methods: a Runge-Kutta start, then Adams-Bashforth."""

from __future__ import annotations

from typing import ClassVar

import jax.numpy as jnp
from flax import struct

from ldm_jax.diffusion.probability_flow import (
    History,
    adams_bashforth,
    between,
    ddim,
    eps_of,
    reach,
)
from ldm_jax.diffusion.trace_once import parts_again
from ldm_jax.types import Array, Denoiser, NoiseLevel, PyTree


@struct.dataclass
class Sampler:
    """Three pseudo Runge-Kutta steps of four evaluations, then DDIM's with the noise of Adams-Bashforth 4.

    skip_prk_steps starts like `plms` instead, as Stable Diffusion's own configuration does. The weights are those of
    equal distances, which leaves order 2. Runge-Kutta looks half-way in log-SNR, where diffusers looks half-way in
    time: the same level where log-SNR is linear in time. Its steps to clean data, from no signal and a single one
    are DDIM's.
    Ref: Liu et al. 2022, arXiv:2202.09778, algorithm 2; diffusers' PNDMScheduler.
    """

    skip_prk_steps: bool = struct.field(pytree_node=False, default=False)
    order: ClassVar[int] = 2

    def init(self, x: Array, levels: NoiseLevel, num_steps: Array) -> PyTree:
        return History.empty(x, levels, 3), num_steps

    def step(
        self, denoise: Denoiser, x: Array, state: PyTree, here: NoiseLevel, there: NoiseLevel, keys: Array
    ) -> tuple[Array, PyTree]:
        history, num_steps = state
        x0 = denoise(x, here)
        eps = eps_of(x, x0, here)
        end = ddim(x0, eps, there)
        middle = between(here, there)

        starting = (there.sigma > 0) & (here.alpha > 0)
        starting &= history.length < (1 if self.skip_prk_steps else 3)
        starting &= num_steps > 1

        def slope(change, level):
            """The noise where DDIM's step to a level ends if it takes eps + change; less eps."""
            moved = ddim(x0, eps, level) + reach(here, level) * change
            return parts_again(denoise, starting, moved, level, (x0, eps))[1] - eps

        if self.skip_prk_steps:  # improved Euler
            start = slope(0.0, there) / 2
        else:  # Runge-Kutta
            second = slope(0.0, middle)
            third = slope(second, middle)
            start = (2 * second + 2 * third + slope(third, there)) / 6
        weights = adams_bashforth(history.length + 1, 4)[1:]
        change = jnp.where(starting, start, history.correction(weights, eps))
        return end + reach(here, there) * change, (history.push(eps, here.sigma), num_steps)
