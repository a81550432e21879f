"""The mathematics that stochastic samplers share, in h = log(alpha / sigma) at `there` less that at `here`.

With sigma / alpha as the time, every schedule is variance-exploding, and what k-diffusion's samplers do to
x / alpha is said here of x itself, so that variance-preserving, -exploding and flow levels share one form:
a step keeps the fraction exp(-h) of x / alpha and puts 1 - exp(-h) of x0_hat in its place.

k-diffusion draws from a Brownian tree, for the same path whatever the steps are. Increments over intervals
that do not overlap are independent, so a fresh draw at each step has the same law.
"""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp

from ldm_jax.types import Array, Denoiser, NoiseLevel

FAR = 1e30  # stands for an infinite h, from alpha = 0 or to sigma = 0: exp(-FAR) is 0, and 0 * FAR is not NaN
_SERIES = 18  # terms that reach float64 precision up to 1


def gap(here: NoiseLevel, there: NoiseLevel) -> Array:
    """h >= 0, at most FAR."""
    rise = jnp.log(there.alpha) - jnp.log(there.sigma) - jnp.log(here.alpha) + jnp.log(here.sigma)
    return jnp.minimum(rise, FAR)


def decay(here: NoiseLevel, there: NoiseLevel) -> Array:
    """exp(-h): 0 from alpha = 0 and to sigma = 0."""
    return there.sigma * here.alpha / (there.alpha * here.sigma)


def moments(z: Array, num: int) -> list[Array]:
    """z times the integral of exp(-z (1 - v)) v^k over v in [0, 1], for k = 0 .. num - 1 and z > 0.

    What an exponential integrator weighs the k-th derivative with: the first is 1 - exp(-z). The recurrence
    over k cancels where z is small; the series takes over there.
    """
    tiny = jnp.minimum(z, 1.0)
    high = -jnp.expm1(-z)
    found = [high]
    for k in range(1, num):
        high = 1 - k * high / z
        low = tiny * sum(
            (-tiny) ** j * (math.factorial(k) / math.factorial(k + j + 1)) for j in range(_SERIES)
        )
        found.append(jnp.where(z < 1, low, high))
    return found


def between(here: NoiseLevel, there: NoiseLevel, part: Array) -> NoiseLevel:
    """The level whose h from `here` is that part of the whole; `here` itself where that is FAR.

    Variance-preserving whatever the others are, with t = NaN: a sampler's own level.
    """
    h = gap(here, there)
    log_snr = 2 * (jnp.log(here.alpha) - jnp.log(here.sigma) + part * h)
    alpha, sigma = jnp.sqrt(jax.nn.sigmoid(log_snr)), jnp.sqrt(jax.nn.sigmoid(-log_snr))
    own = NoiseLevel(t=jnp.full_like(h, jnp.nan), alpha=alpha, sigma=sigma)
    return jax.tree.map(lambda a, b: jnp.where(h < FAR, a, b), own, here)


def again(denoise: Denoiser, x: Array, level: NoiseLevel, h: Array, x0: Array) -> Array:
    """A step's second x0_hat; the first one, without an evaluation, where the step's h is FAR.

    So a step from pure noise or to clean data is of first order, as in k-diffusion.
    """
    return jax.lax.cond(h < FAR, lambda: denoise(x, level), lambda: x0)


def ancestral(
    here: NoiseLevel, there: NoiseLevel, eta: Array, flow: bool = False
) -> tuple[NoiseLevel, Array, Array]:
    """The parts of an ancestral step: (down, rise, fresh).

    A deterministic step goes to `down` (its t is not a time to ask a network at), cleaner than `there`;
    x is multiplied by `rise` and noise of deviation `fresh` brings it up to `there`. eta = 0 adds none.

    flow: go down to sigma (1 - eta (1 - sigma / sigma_here)), and alpha to 1 less that, as ComfyUI does with
        flow models (alpha = 1 - sigma); the other rule is that of DDIM's eta, at 1 DDPM's posterior. Each of
        them keeps the marginals, on any schedule.

    Ref: Song et al. 2021, arXiv:2010.02502, eq. 16; k-diffusion's get_ancestral_step.
    """
    if flow:
        sigma = there.sigma * (1 - eta * (1 - there.sigma / here.sigma))
        rise = there.alpha / (1 - sigma)
        down = there.replace(alpha=1 - sigma, sigma=sigma)
        return down, rise, jnp.sqrt(jnp.maximum(there.sigma**2 - (rise * sigma) ** 2, 0.0))
    new = jnp.sqrt(jnp.maximum(1 - decay(here, there) ** 2, 0.0))
    fresh = there.sigma * jnp.minimum(eta * new, 1.0)
    down = there.replace(sigma=jnp.sqrt(jnp.maximum(there.sigma**2 - fresh**2, 0.0)))
    return down, jnp.ones_like(fresh), fresh


def gather(noise: Array, new: Array, h: Array, eta: Array) -> Array:
    """Noise over sigma, h later: what is left of it and what the SDE adds, with new standard normal noise.

    Two parts of a step gather what the whole does, so the noise at an inner level is on the step's own path.
    """
    return jnp.exp(-eta * h) * noise + jnp.sqrt(-jnp.expm1(-2 * eta * h)) * new


def shared(h: Array, part: Array) -> Array:
    """How much of the variance of a step's noise was there when that part of h was done.

    For the reverse SDE that retraces the forward process: its noise, over sigma / alpha, is a Brownian motion in the
    signal-to-noise ratio.
    """
    return jnp.where(h < FAR, jnp.exp(2 * (part - 1) * h) * jnp.expm1(-2 * part * h) / jnp.expm1(-2 * h), 0.0)


def ddim(x: Array, x0: Array, here: NoiseLevel, there: NoiseLevel) -> Array:
    """x with its noise scaled from sigma to sigma and its x0 from alpha to alpha, here to there.

    Euler's step in sigma / alpha, and the exponential integrator's of first order.
    """
    kept = there.sigma / here.sigma
    return kept * x + (there.alpha - kept * here.alpha) * x0


def climb(x: Array, here: NoiseLevel, there: NoiseLevel, noise: Array) -> Array:
    """The forward process, from a level to a noisier one."""
    kept = there.alpha / here.alpha
    return kept * x + jnp.sqrt(jnp.maximum(there.sigma**2 - (kept * here.sigma) ** 2, 0.0)) * noise
