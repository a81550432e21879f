"""Extended reverse-time SDE solvers: a family of SDEs with one ODE's marginals, solved to third order."""

from __future__ import annotations

from typing import ClassVar

import jax.numpy as jnp
import numpy as np
from flax import struct

from ldm_jax.diffusion import stochastic
from ldm_jax.diffusion.noise import normal
from ldm_jax.types import Array, Denoiser, NoiseLevel, PyTree

# Gauss-Legendre, exact to rounding; the references sum 100 or 200 equal pieces, which is off by 1e-3 of a step's
# second-order part and makes the solver of first order in the end.
# Tuples: a float64 array that one trace has closed over as float32 would stay so for traces in float64.
POINTS, WEIGHTS = (tuple((a / 2).tolist()) for a in np.polynomial.legendre.leggauss(24))


@struct.dataclass
class Sampler:
    """ER-SDE-Solver-1 to -3, by `max_order`; the first steps and the last one have less.

    With u = sigma / alpha, noise is scaled by phi(u) = u (exp(u^0.3) + 10)^eta: eta = 1 is the paper's best,
    eta = 0 the probability-flow ODE, for which phi(u) = u.
    Ref: Cui et al. 2023, arXiv:2309.06169, eq. 18, 20, 22 and the choice of 5; ComfyUI's sample_er_sde.

    Raises ValueError for a max_order that is not 1, 2 or 3.
    """

    eta: float = 1.0
    s_noise: float = 1.0
    max_order: int = struct.field(pytree_node=False, default=3)
    order: ClassVar[int] = 2  # of the whole walk, whose first step is of first order

    def __post_init__(self):
        if self.max_order not in (1, 2, 3):
            raise ValueError(f'max_order must be 1, 2 or 3; got {self.max_order}.')

    def init(self, x: Array, levels: NoiseLevel, num_steps: Array) -> PyTree:
        # An x0_hat from there has no slope to here; not FAR, which is where a grid with alpha = 0 starts.
        far = jnp.full((), -stochastic.FAR, levels.sigma.dtype)
        return jnp.zeros_like(x), jnp.zeros_like(x), far, far

    def step(
        self, denoise: Denoiser, x: Array, state: PyTree, here: NoiseLevel, there: NoiseLevel, keys: Array
    ) -> tuple[Array, PyTree]:
        last_x0, last_slope, u_1, u_2 = state
        x0 = denoise(x, here)
        u = jnp.minimum(here.sigma / here.alpha, stochastic.FAR)
        end = there.sigma / there.alpha
        ratio = (_scale(end) / _scale(u)) ** self.eta
        kept = stochastic.decay(here, there) * ratio
        slope = (x0 - last_x0) / (u - u_1)
        bend = (slope - last_slope) / ((u - u_2) / 2)
        mean = there.sigma / here.sigma * ratio * x + there.alpha * (1 - kept) * x0
        first, second = self._weights(u, end)
        if self.max_order > 1:
            mean += there.alpha * first * slope
        if self.max_order > 2:
            mean += there.alpha * second * bend
        fresh = there.sigma * jnp.sqrt(jnp.maximum(1 - ratio**2, 0.0))
        return mean + self.s_noise * fresh * normal(keys, x), (x0, slope, u, u_1)

    def _weights(self, u: Array, end: Array) -> tuple[Array, Array]:
        """Weights of the first and second derivative of x0_hat in u; 0 where u or end is no level to integrate to."""
        inside = (end > 0) & (u < stochastic.FAR)
        u, end = jnp.where(inside, u, 2.0), jnp.where(inside, end, 1.0)
        span = jnp.log(u / end)
        points = end * jnp.exp(span * (jnp.asarray(POINTS) + 0.5))
        shares = (self._phi(end) / self._phi(points) - 1) * points * span * jnp.asarray(WEIGHTS)
        first, second = jnp.sum(shares), jnp.sum(shares * (points - u))
        return jnp.where(inside, first, 0.0), jnp.where(inside, second, 0.0)

    def _phi(self, u: Array) -> Array:
        return u * _scale(u) ** self.eta


def _scale(u: Array) -> Array:
    return jnp.exp(u**0.3) + 10
