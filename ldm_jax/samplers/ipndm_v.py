"""Improved pseudo numerical method with weights for the distances there are."""

from __future__ import annotations

import itertools

import jax.numpy as jnp
from flax import struct

from ldm_jax.diffusion.probability_flow import History, ddim, eps_of, reach
from ldm_jax.types import Array, Denoiser, NoiseLevel, PyTree


@struct.dataclass
class Sampler:
    """`ipndm` whose weights follow the steps in sigma / alpha; max_order 1 to 4, one evaluation a step.

    Quirks kept, so that images are those of ComfyUI: the weights of orders 3 and 4 are not quite those of
    Adams-Bashforth (`lms` has them), and those of order 4 do not even add up to 1 where the ratio of steps changes.
    The first step is Euler's, which leaves order 2 for every max_order of 2 and more; to clean data it takes x0_hat.
    Ref: Zhou et al. 2024, arXiv:2312.00094 (diff-sampler); ComfyUI's ipndm_v.
    """

    max_order: int = struct.field(pytree_node=False, default=4)

    @property
    def order(self) -> int:
        return min(self.max_order, 2)

    def init(self, x: Array, levels: NoiseLevel, num_steps: Array) -> PyTree:
        return History.empty(x, levels, 3)

    def step(
        self, denoise: Denoiser, x: Array, state: PyTree, here: NoiseLevel, there: NoiseLevel, keys: Array
    ) -> tuple[Array, PyTree]:
        x0 = denoise(x, here)
        eps = eps_of(x, x0, here)
        rho = here.sigma / here.alpha
        order = jnp.where(there.sigma > 0, jnp.minimum(self.max_order, state.length + 1), 1)
        weights = _weights(there.sigma / there.alpha - rho, rho, state.nodes, order)
        change = (sum(weights) - 1) * eps + state.correction(weights[1:], eps)
        return ddim(x0, eps, there) + reach(here, there) * change, state.push(eps, rho)


def _weights(h: Array, rho: Array, before: tuple[Array, ...], order: Array) -> list[Array]:
    """Weights of the slopes at rho and the three levels before it, for a step h; orders below 4 ignore the oldest."""
    # A missing step is of length 1: it has no weight, but must not make a NaN; rho too may be infinite.
    rho = jnp.where(order > 1, rho, 0.0)
    nodes = [jnp.where(k < order, node, rho - k) for k, node in enumerate((rho, *before))]
    h1, h2, h3 = (a - b for a, b in itertools.pairwise(nodes))
    slope = h / h1 / 2
    third = (1 - h / (3 * (h + h1)) * (h * (h + h1)) / (h1 * (h1 + h2))) / 2
    fourth = (1 - h / (3 * (h + h1))) / 2 + (1 - h / (2 * (h + h1))) * h / (6 * (h + h1 + h2))
    fourth = fourth * (h * (h + h1) * (h + h1 + h2)) / (h1 * (h1 + h2) * (h1 + h2 + h3))
    slope, third, fourth = (
        jnp.where(order > k, a, 0.0) for k, a in enumerate((slope, third, fourth), start=1)
    )
    r12, r23, ratio = h1 / h2, h2 / h3, h1 * (h1 + h2) / (h2 * (h2 + h3))
    return [
        1 + slope + third + fourth,
        -slope - (1 + r12) * third - (1 + r12 + ratio) * fourth,
        r12 * third + (r12 + ratio * (1 + r23)) * fourth,
        -ratio * r12 * fourth,
    ]
