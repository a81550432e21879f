"""Stochastic Adams: multistep predictor and corrector for a family of SDEs."""

from __future__ import annotations

import jax.numpy as jnp
from flax import struct

from ldm_jax.diffusion import stochastic
from ldm_jax.diffusion.noise import normal
from ldm_jax.diffusion.probability_flow import interpolatory
from ldm_jax.diffusion.trace_once import again
from ldm_jax.types import Array, Denoiser, NoiseLevel, PyTree


@struct.dataclass
class Sampler:
    """SA-Solver for data prediction: each step first corrects the last one with the new x0_hat, then predicts.

    A corrector of order 1 leaves the last step as it is but for x0_hat, which is the new one. The corrector
    goes over the noise that the predictor drew, so a step still draws once.
    Ref: Xue et al. 2023, arXiv:2309.05019, eq. 14, 17 and algorithm 1; orders by step and `simple` as in
    diffusers' SASolverScheduler.

    Raises ValueError for an order beyond 4.
    """

    eta: float = 1.0  # the paper's tau, between t_min and t_max; 0 elsewhere
    s_noise: float = 1.0
    t_min: float = 200.0
    t_max: float = 800.0
    predictor: int = struct.field(pytree_node=False, default=2)  # orders, from 1 to 4
    corrector: int = struct.field(pytree_node=False, default=2)
    pece: bool = struct.field(pytree_node=False, default=False)  # evaluate again at the corrected x
    simple: bool = struct.field(pytree_node=False, default=True)  # the paper's short weights for order 2
    lower_order_final: bool = struct.field(pytree_node=False, default=True)

    def __post_init__(self):
        if not (1 <= self.predictor <= 4 and 1 <= self.corrector <= 4):
            raise ValueError(f'Orders must be between 1 and 4; got {self.predictor} and {self.corrector}.')

    @property
    def order(self) -> int:
        highest = max(self.predictor, self.corrector)
        return min(highest, 2) if self.lower_order_final else highest

    def init(self, x: Array, levels: NoiseLevel, num_steps: Array) -> PyTree:
        size = max(self.predictor, self.corrector)
        far = jnp.full((), stochastic.FAR, levels.sigma.dtype)
        # x0_hat, h from each to the one after; newest first
        history = (jnp.zeros_like(x),) * size, (far,) * size
        return jnp.zeros((), jnp.int32), num_steps, x, far, history

    def step(
        self, denoise: Denoiser, x: Array, state: PyTree, here: NoiseLevel, there: NoiseLevel, keys: Array
    ) -> tuple[Array, PyTree]:
        i, num_steps, base, last_z, (x0s, gaps) = state
        left = num_steps - i if self.lower_order_final else self.predictor + self.corrector
        x0s = (denoise(x, here), *x0s[:-1])

        behind = jnp.cumsum(jnp.stack([jnp.zeros_like(gaps[0]), *gaps[:-1]]))  # in h, of each x0_hat
        nodes = list(1 - behind / gaps[0])[: self.corrector]
        weights = self._weights(nodes, last_z, jnp.minimum(i + 1, left + 2))
        x = jnp.where(i > 0, base + here.alpha * _dot(weights, x0s), x)
        if self.pece:
            x0s = (again(denoise, i > 0, x, here, x0s[0]), *x0s[1:])

        h = stochastic.gap(here, there)
        tau2 = jnp.where((here.t >= self.t_min) & (here.t <= self.t_max), self.eta, 0.0) ** 2
        z = (1 + tau2) * h
        nodes = list(-behind / h)[: self.predictor]
        weights = self._weights(nodes, z, jnp.minimum(i + 1, left))
        fresh = there.sigma * jnp.sqrt(-jnp.expm1(-2 * tau2 * h))
        base = there.sigma / here.sigma * jnp.exp(-tau2 * h) * x + self.s_noise * fresh * normal(keys, x)
        x = base + there.alpha * _dot(weights, x0s)
        return x, (i + 1, num_steps, base, z, (x0s, (h, *gaps[:-1])))

    def _weights(self, nodes: list[Array], z: Array, order: Array) -> list[Array]:
        """Weights of x0_hat at the first `order` (traced) nodes, in a step from 0 to 1 that forgets x at the rate z."""
        about = stochastic.moments(z, len(nodes))
        order = jnp.clip(order, 1, len(nodes))
        if self.simple and len(nodes) > 1:  # equal up to second order in z, and no number for an infinite z
            about[1] = jnp.where((order == 2) & (z < stochastic.FAR), z / 2, about[1])
        return interpolatory(nodes, about, order)


def _dot(weights: Array, x0s: tuple[Array, ...]) -> Array:
    return sum(weight * x0 for weight, x0 in zip(weights, x0s, strict=False))
