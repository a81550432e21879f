"""The probability-flow ODE in the coordinates in which its solvers are simple.

Along x = alpha x0 + sigma eps, with rho = sigma / alpha and lam = log(alpha / sigma), half the log-SNR:

    d(x / alpha) / d rho = eps_hat              k-diffusion's form, here exact for every alpha
    x_t / alpha_t = x_s / alpha_s - integral of e^-lam eps_hat d lam         DPM-Solver's
    x_t / sigma_t = x_s / sigma_s + integral of e^lam x0_hat d lam           DPM-Solver++'s

With x0_hat and eps_hat held fixed each of them is the step of DDIM, alpha_t x0_hat + sigma_t eps_hat, finite at
alpha_s = 0 and at sigma_t = 0. So solvers are written as that step plus weights times differences of predictions,
and weights that would be infinite or 0 / 0 belong to differences that are left out there.
Ref: Song et al. 2021, arXiv:2011.13456, eq. 13; Lu et al. 2022, arXiv:2206.00927, eq. 3.4, and arXiv:2211.01095, eq. 8.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Protocol

import jax.numpy as jnp
from flax import struct

from ldm_jax.diffusion.noise import normal
from ldm_jax.types import Array, NoiseLevel


def half_log_snr(level: NoiseLevel) -> Array:
    """log(alpha / sigma): -inf without signal, inf without noise."""
    return jnp.log(level.alpha) - jnp.log(level.sigma)


def eps_of(x: Array, x0: Array, level: NoiseLevel) -> Array:
    """The noise in x, given its clean part; level [] with sigma > 0."""
    return (x - level.alpha * x0) / level.sigma


def ddim(x0: Array, eps: Array, level: NoiseLevel) -> Array:
    """x at a level [] for this clean part and this noise."""
    return level.alpha * x0 + level.sigma * eps


def reach(here: NoiseLevel, there: NoiseLevel) -> Array:
    """alpha_t (rho_t - rho_s): what eps_hat larger by 1 adds to DDIM's step; 0 where rho_s is infinite."""
    return jnp.where(here.alpha > 0, there.sigma - there.alpha * here.sigma / here.alpha, 0.0)


def between(here: NoiseLevel, there: NoiseLevel, part: Array = 0.5) -> NoiseLevel:
    """The level at that part of the way in log-SNR, one that no table has: t is NaN."""
    alpha = here.alpha ** (1 - part) * there.alpha**part
    sigma = here.sigma ** (1 - part) * there.sigma**part
    return NoiseLevel(t=jnp.full_like(alpha, jnp.nan), alpha=alpha, sigma=sigma)


class Churned(Protocol):
    """The knobs of a sampler with EDM's noise; s_tmin and s_tmax bound the sigma / alpha at which it is added."""

    s_churn: float
    s_tmin: float
    s_tmax: float
    s_noise: float


def churn(
    sampler: Churned, x: Array, here: NoiseLevel, keys: Array, num_steps: Array
) -> tuple[Array, NoiseLevel]:
    """x with its noise raised by a factor, and the level of that; both unchanged where s_churn is 0.

    The factor is 1 + min(s_churn / num_steps, sqrt(2) - 1) where sigma / alpha is in [s_tmin, s_tmax]; fresh noise
    is s_noise times what that needs. Ref: Karras et al. 2022, arXiv:2206.00364, algorithm 2.
    """
    rho = here.sigma / here.alpha
    gain = jnp.minimum(sampler.s_churn / num_steps, math.sqrt(2) - 1)
    gain = jnp.where((sampler.s_tmin <= rho) & (rho <= sampler.s_tmax), gain, 0.0)
    fresh = here.sigma * jnp.sqrt((1 + gain) ** 2 - 1)
    # The signal keeps its scale, so the level has left the schedule's curve and its time is not known.
    level = dataclasses.replace(here, t=jnp.where(gain > 0, jnp.nan, here.t), sigma=here.sigma * (1 + gain))
    return x + fresh * sampler.s_noise * normal(keys, x), level


def exponential_moments(z: Array, count: int) -> list[Array]:
    """z times the integral of e^(z (1 - u)) u^j over [0, 1], for j below count: z j! phi_(j + 1)(z).

    expm1(z) first, each next one j times the last over z less 1: small differences of large numbers at small z,
    where the series is summed instead.
    """
    recursive, series, small = [jnp.expm1(z)], [], jnp.clip(z, -1, 1)
    for j in range(1, count):
        recursive.append(j * recursive[-1] / z - 1)
    for j in range(count):
        terms = [small ** (k + 1) * (math.factorial(j) / math.factorial(k + j + 1)) for k in range(18)]
        series.append(sum(reversed(terms)))
    return [jnp.where(jnp.abs(z) < 1, a, b) for a, b in zip(series, recursive, strict=True)]


def interpolatory(nodes: Sequence[Array], moments: Sequence[Array], order: Array) -> list[Array]:
    """Weights w with sum_k w_k p(nodes_k) = L(p) for each polynomial p of degree below order, L(u^j) = moments_j.

    Nodes and moments from `order` on (traced) are ignored, whatever they are, and those weights 0: that is how
    multistep solvers start, and how they lower their order. All scalars; as many moments as nodes.
    """
    count = len(nodes)
    # Distinct stand-ins for missing nodes, so that nothing is 0 / 0 even where it is not selected.
    nodes = [jnp.where(k < order, node, 2.0 + k) for k, node in enumerate(nodes)]
    moments = [jnp.where(j < order, moment, 0.0) for j, moment in enumerate(moments)]
    weights = [jnp.zeros(())] * count
    newton = [jnp.ones(())]  # coefficients of prod_(l < j) (u - nodes_l), constant first
    for j in range(count):
        value = sum(c * moment for c, moment in zip(newton, moments, strict=False))
        for k in range(j + 1):
            gaps = math.prod(nodes[k] - nodes[other] for other in range(j + 1) if other != k)
            weights[k] += jnp.where(j < order, value / gaps, 0.0)
        shifted = [jnp.zeros(()), *newton]
        newton = [a - nodes[j] * b for a, b in zip(shifted, [*newton, 0.0], strict=True)]
    return weights


# By order: weights of the newest slope and those before it, at equal distances.
ADAMS_BASHFORTH = (
    (1.0, 0.0, 0.0, 0.0),
    (3 / 2, -1 / 2, 0.0, 0.0),
    (23 / 12, -16 / 12, 5 / 12, 0.0),
    (55 / 24, -59 / 24, 37 / 24, -9 / 24),
)


def adams_bashforth(order: Array, count: int) -> Array:
    """Row `order` (1 to 4, traced) of the table above, its first `count` weights."""
    return jnp.asarray(ADAMS_BASHFORTH)[order - 1, :count]


@struct.dataclass
class History:
    """Predictions of the last levels, newest first, and where on the solver's axis they were made."""

    values: tuple[Array, ...]  # each [B, ...]
    nodes: tuple[Array, ...]  # each []
    length: Array  # integer []: how many of them are there; those at infinity do not count

    @classmethod
    def empty(cls, x: Array, levels: NoiseLevel, size: int) -> History:
        """Room for `size` predictions like x."""
        return cls(
            values=(jnp.zeros_like(x),) * size,
            nodes=(jnp.zeros_like(levels.sigma[0]),) * size,
            length=jnp.zeros((), jnp.int32),
        )

    def push(self, value: Array, node: Array) -> History:
        """With one more in front, the oldest forgotten."""
        size = len(self.values)
        grown = jnp.minimum(self.length + 1, size)
        return History(
            values=(value, *self.values)[:size],
            nodes=(node, *self.nodes)[:size],
            length=jnp.where(jnp.isfinite(node), grown, 0),  # a level without signal is the first, if any
        )

    def correction(self, weights: Sequence[Array], newest: Array) -> Array:
        """sum_k weights_k (values_k - newest) [B, ...], for as many as there are weights."""
        return sum(
            (w * (value - newest) for w, value in zip(weights, self.values, strict=False)),
            start=jnp.zeros_like(newest),
        )


def multistep_weights(
    history: History, here: Array, there: Array, order: Array, moments: Sequence[Array]
) -> list[Array]:
    """Weights of the history's values in a step from here to there on its axis, by interpolation.

    moments: of u^j over the step, u = 0 at here and 1 at there; their number is the highest order. order: [], the
    one wanted; there may be too little history for it.
    """
    nodes = [jnp.zeros(()), *((node - here) / (there - here) for node in history.nodes)]
    count = len(moments)
    return interpolatory(nodes[:count], moments, jnp.minimum(order, history.length + 1))[1:]


def lowered(
    order: Array,
    i: Array,
    num_steps: Array,
    there: NoiseLevel,
    *,
    few: Array = True,
    euler_at_final: bool = False,
) -> Array:
    """The order of step i: 1 in the last, at most 2 in the last but one if `few`; 1 to clean data in any case.

    euler_at_final: 1 in the last without `few`.
    """
    order = jnp.where(few, jnp.minimum(order, num_steps - i), order)
    order = jnp.where(euler_at_final & (i == num_steps - 1), 1, order)
    return jnp.where(there.sigma > 0, order, 1)


def counted(num_steps: Array) -> tuple[Array, Array]:
    """The memory of a sampler that must know where in the run it is: the step's index and their number."""
    return jnp.zeros((), jnp.int32), jnp.asarray(num_steps, jnp.int32)
