"""DDIM backwards: from an image to the noise that DDIM would make it of."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

import jax
import jax.numpy as jnp
from flax import struct

from ldm_jax.diffusion.probability_flow import ddim, eps_of
from ldm_jax.types import Array, Denoiser, NoiseLevel, PyTree


@struct.dataclass
class Sampler:
    """Steps up a table whose levels rise (sampling.ascending), each undoing DDIM's step down.

    That step took its noise from where this one ends. iterations = 1 asks for it with the time of that level, at
    the x that there is, as is usual; more of them ask again at the x that the last one led to, and at a fixed
    point the step is undone exactly. Clean data, a first level with sigma = 0, has no noise to see: it is
    taken for x at the level above, which is diffusers' way too for predictions of eps. Levels above it have noise.
    Walked downwards it is DDIM, with a time input one step late.
    Ref: Song et al. 2021, arXiv:2010.02502, section 4.3; Mokady et al. 2023, arXiv:2211.09794, section 3; fixed
    points: Pan et al. 2023, arXiv:2309.04907; diffusers' DDIMInverseScheduler.
    """

    iterations: int = struct.field(pytree_node=False, default=1)
    order: ClassVar[int] = 1

    def __post_init__(self):
        if self.iterations < 1:
            raise ValueError(f'iterations must be at least 1; got {self.iterations}.')

    def init(self, x: Array, levels: NoiseLevel, num_steps: Array) -> PyTree:
        return ()

    def step(
        self, denoise: Denoiser, x: Array, state: PyTree, here: NoiseLevel, there: NoiseLevel, keys: Array
    ) -> tuple[Array, PyTree]:
        own = dataclasses.replace(here, t=there.t)
        first = jax.tree.map(lambda a, b: jnp.where(here.sigma > 0, a, b), own, there)
        alpha = jnp.where(here.alpha > 0, here.alpha, 1)
        guess, level = x, first
        for _ in range(self.iterations):
            x0 = denoise(guess, level)
            eps = eps_of(guess, x0, level)
            x0 = jnp.where(here.alpha > 0, (x - here.sigma * eps) / alpha, x0)
            guess, level = ddim(x0, eps, there), there
        return guess, state
