"""A step of DPM-Solver of order 1, 2 or 3 between levels that are given by lam, half their log-SNR.

x is held at unit scale here, alpha^2 + sigma^2 = 1, where both ends of lam, -inf and inf, are finite.
Ref: Lu et al. 2022, arXiv:2206.00927, algorithms 1 and 2; k-diffusion's DPMSolver.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import struct

from ldm_jax.diffusion.probability_flow import ddim, eps_of, exponential_moments, half_log_snr
from ldm_jax.diffusion.process import per_example
from ldm_jax.types import Array, Denoiser, NoiseLevel


def level_at(lam: Array) -> NoiseLevel:
    """The level of unit scale at lam [] or [B]; its t is NaN."""
    return NoiseLevel(
        t=jnp.full_like(lam, jnp.nan),
        alpha=jnp.sqrt(jax.nn.sigmoid(2 * lam)),
        sigma=jnp.sqrt(jax.nn.sigmoid(-2 * lam)),
    )


@struct.dataclass
class Ends:
    """A table's ends, and the levels next to them where an end has no signal or no noise."""

    scale: Array  # of x at the first level, which unit scale divides by
    last_scale: Array
    first: Array  # lam of the first level, -inf where it has no signal
    start: Array  # the first finite lam
    stop: Array  # the last finite lam
    last: Array  # lam of the last level, inf where it has no noise

    @classmethod
    def of(cls, levels: NoiseLevel, num_steps: Array) -> Ends:
        """The ends of the first num_steps + 1 levels."""
        lam = half_log_snr(levels)
        norm = jnp.hypot(levels.alpha, levels.sigma)
        start = jnp.where(jnp.isfinite(lam[0]), lam[0], lam[jnp.minimum(1, num_steps)])
        stop = jnp.where(jnp.isfinite(lam[num_steps]), lam[num_steps], lam[jnp.maximum(num_steps - 1, 0)])
        stop = jnp.maximum(start, stop)  # no room between them: a single step from noise to data
        return cls(norm[0], norm[num_steps], lam[0], start, stop, lam[num_steps])


def step(
    denoise: Denoiser, x: Array, lam: Array, there: Array, order: Array, size: int, r1: Array
) -> tuple[Array, Array, Array]:
    """x [B, ...] at unit scale from lam to there ([] or [B]), as by the orders 1, 2 and 3.

    Args:
        order: integer [], 1 to size: how often to evaluate. The answers of higher orders are not to be used.
        size: at most 3; the network is in the program once whatever it is.
        r1: where in the step, of [0, 1], the second evaluation is: 1/2 for order 2, 1/3 for order 3.
    """
    h = there - lam
    inside = jnp.isfinite(h)  # else only the first order is of use, but others must not be NaN
    fractions = jnp.stack([jnp.zeros_like(r1), r1, jnp.full_like(r1, 2 / 3), jnp.ones_like(r1)])

    def at(fraction):
        level = level_at(jnp.where(inside, lam + fraction * h, lam))
        return level, jax.tree.map(lambda a: per_example(a, x), level)

    def evaluate(j, carry):
        u, x0, eps = carry
        level, wide = at(fractions[j])
        predicted = denoise(u, level)
        eps = eps.at[j].set(eps_of(u, predicted, wide))
        x0 = jnp.where(j == 0, predicted, x0)
        _, wide = at(fractions[j + 1])
        bend = exponential_moments(fractions[2] * jnp.where(inside, h, 1.0), 2)[1]
        bend = jnp.where(j == 1, fractions[2] / r1 * bend, 0.0)
        u = ddim(x0, eps[0], wide) - wide.sigma * per_example(bend, x) * (eps[1] - eps[0])
        return u, x0, eps

    start = x, jnp.zeros_like(x), jnp.zeros((3, *x.shape), x.dtype)
    _, x0, eps = jax.lax.fori_loop(0, jnp.minimum(order, size), evaluate, start)
    wide = jax.tree.map(lambda a: per_example(a, x), level_at(there))
    whole, bend = (per_example(m, x) * wide.sigma for m in exponential_moments(jnp.where(inside, h, 1.0), 2))
    first = ddim(x0, eps[0], wide)
    return (
        first,
        first - whole / (2 * r1) * (eps[1] - eps[0]),
        first - bend / fractions[2] * (eps[2] - eps[0]),
    )


def split_noise(lam: Array, there: Array, stop: Array, eta: Array) -> tuple[Array, Array]:
    """A step with fresh noise: the level further down to solve to instead of `there`, and how much to add then.

    Returns its lam, at most stop, and the standard deviation of what leads from it to `there`, at unit scale.
    eta: of the noise that DDPM's step would add; 0 gives `there` itself and 0.
    """
    share = jnp.minimum(1.0, eta * jnp.sqrt(jnp.maximum(-jnp.expm1(2 * (lam - there)), 0.0)))
    down = there - jnp.log1p(-(share**2)) / 2
    down = jnp.where(share > 0, jnp.minimum(down, jnp.maximum(stop, there)), there)
    added = jnp.sqrt(jnp.maximum(-jnp.expm1(2 * (there - down)), 0.0))
    return down, level_at(there).sigma * jnp.where(down > there, added, 0.0)


def raised(x: Array, down: Array, there: Array, fresh: Array) -> Array:
    """x from the lower level of `split_noise` to there: the signal rescaled, the noise `fresh` added."""
    scale = jnp.where(down > there, level_at(there).alpha / level_at(down).alpha, 1.0)
    return per_example(scale, x) * x + fresh
