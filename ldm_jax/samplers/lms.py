"""Linear multistep: Adams-Bashforth in sigma / alpha at the distances there are."""

from __future__ import annotations

from flax import struct

from ldm_jax.diffusion.probability_flow import History, ddim, eps_of, multistep_weights, reach
from ldm_jax.types import Array, Denoiser, NoiseLevel, PyTree


@struct.dataclass
class Sampler:
    """Integrates the polynomial through the last max_order (1 to 4) slopes exactly, one evaluation a step.

    It starts with Euler's step, so the whole is of order 2 for every max_order of 2 and more.
    Ref: k-diffusion's sample_lms, whose quadrature this replaces by the closed form.
    """

    max_order: int = struct.field(pytree_node=False, default=4)

    @property
    def order(self) -> int:
        return min(self.max_order, 2)

    def init(self, x: Array, levels: NoiseLevel, num_steps: Array) -> PyTree:
        return History.empty(x, levels, self.max_order - 1)

    def step(
        self, denoise: Denoiser, x: Array, state: PyTree, here: NoiseLevel, there: NoiseLevel, keys: Array
    ) -> tuple[Array, PyTree]:
        x0 = denoise(x, here)
        eps = eps_of(x, x0, here)
        rho, rho_there = here.sigma / here.alpha, there.sigma / there.alpha
        moments = [1 / (j + 1) for j in range(self.max_order)]
        weights = multistep_weights(state, rho, rho_there, self.max_order, moments)
        x = ddim(x0, eps, there) + reach(here, there) * state.correction(weights, eps)
        return x, state.push(eps, rho)
