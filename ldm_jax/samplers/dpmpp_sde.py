"""DPM-Solver++ for the reverse SDE, in one step."""

from __future__ import annotations

from typing import ClassVar

import jax
import jax.numpy as jnp
from flax import struct

from ldm_jax.diffusion import stochastic
from ldm_jax.diffusion.noise import normal, split
from ldm_jax.diffusion.probability_flow import between, ddim, eps_of
from ldm_jax.diffusion.trace_once import again
from ldm_jax.types import Array, Denoiser, NoiseLevel, PyTree


@struct.dataclass
class Sampler:
    """Two evaluations a step, the second at the part r of h; eta = 0 is DPM-Solver++(2S) with that r.

    One path of noise serves both: what it has gathered at the inner level is a part of what it gathers in the whole
    step, with the correlation of the SDE's exact solution at eta = 1 (SNR is its Brownian motion's time). In
    k-diffusion, whose tree's time is sigma / alpha, the correlation differs by terms that vanish with h.
    Ref: Lu et al. 2022, arXiv:2211.01095; k-diffusion's sample_dpmpp_sde.
    """

    eta: float = 1.0
    s_noise: float = 1.0
    r: float = 0.5
    order: ClassVar[int] = 2

    def init(self, x: Array, levels: NoiseLevel, num_steps: Array) -> PyTree:
        return ()

    def step(
        self, denoise: Denoiser, x: Array, state: PyTree, here: NoiseLevel, there: NoiseLevel, keys: Array
    ) -> tuple[Array, PyTree]:
        x0, h = denoise(x, here), stochastic.gap(here, there)
        near = h < stochastic.FAR
        # A level between no signal and some has none, and a step to it is 0 / 0: NaN in gradients, though not wanted.
        inner = jax.tree.map(lambda a, b: jnp.where(near, a, b), between(here, there, self.r), there)
        early, late = (normal(k, x) for k in split(keys, 2))
        down, _, fresh = stochastic.ancestral(here, inner, self.eta)
        x_2 = ddim(x0, eps_of(x, x0, here), down) + self.s_noise * fresh * early
        x0_2 = again(denoise, near, x_2, inner, x0)

        down, _, fresh = stochastic.ancestral(here, there, self.eta)
        x0 = x0 + (x0_2 - x0) / (2 * self.r)
        x = ddim(x0, eps_of(x, x0, here), down)
        shared = stochastic.shared(h, self.r)
        noise = jnp.sqrt(shared) * early + jnp.sqrt(1 - shared) * late
        return x + self.s_noise * fresh * noise, state
