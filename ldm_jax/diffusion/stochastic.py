"""The mathematics that stochastic samplers share, in h = log(alpha / sigma) at `there` less that at `here`.

With sigma / alpha as the time, every schedule is variance-exploding, and what k-diffusion's samplers do to
x / alpha is said here of x itself, so that variance-preserving, -exploding and flow levels share one form:
a step keeps the fraction exp(-h) of x / alpha and puts 1 - exp(-h) of x0_hat in its place.

k-diffusion draws from a Brownian tree, for the same path whatever the steps are. Increments over intervals
that do not overlap are independent, so a fresh draw at each step has the same law.
"""

from __future__ import annotations

import dataclasses

import jax.numpy as jnp

from ldm_jax.diffusion.probability_flow import exponential_moments, half_log_snr
from ldm_jax.types import Array, NoiseLevel

# Stands for an infinite h, from alpha = 0 or to sigma = 0: exp(-FAR) is 0, and 0 * FAR is not NaN. Steps that long have
# one evaluation, which makes them of first order, as in k-diffusion.
FAR = 1e30


def gap(here: NoiseLevel, there: NoiseLevel) -> Array:
    """h >= 0, at most FAR."""
    return jnp.minimum(half_log_snr(there) - half_log_snr(here), FAR)


def decay(here: NoiseLevel, there: NoiseLevel) -> Array:
    """exp(-h): 0 from alpha = 0 and to sigma = 0."""
    return there.sigma * here.alpha / (there.alpha * here.sigma)


def moments(z: Array, count: int) -> list[Array]:
    """z times the integral of e^(-z (1 - u)) u^j over [0, 1], for j below count and z > 0; the first is 1 - e^-z.

    What a step that forgets x at the rate z weighs the terms of x0_hat's polynomial in u with.
    """
    return [-moment for moment in exponential_moments(-z, count)]


def ancestral(
    here: NoiseLevel, there: NoiseLevel, eta: Array, flow: bool = False
) -> tuple[NoiseLevel, Array, Array]:
    """The parts of an ancestral step: (down, rise, fresh).

    A deterministic step goes to `down` (its t is no time for a network), cleaner than `there`;
    x is multiplied by `rise` and noise of deviation `fresh` brings it up to `there`. eta = 0 adds none.

    flow: the levels are of a flow, alpha = 1 - sigma, and so is `down`, at sigma (1 - eta (1 - sigma / sigma_here)),
        as in ComfyUI. The other rule holds on every schedule: that of DDIM's eta, at 1 DDPM's posterior.

    Ref: Song et al. 2021, arXiv:2010.02502, eq. 16; k-diffusion's get_ancestral_step.
    """
    if flow:
        below = there.sigma * eta * (1 - there.sigma / here.sigma)
        down = dataclasses.replace(there, alpha=there.alpha + below, sigma=there.sigma - below)
        # sigma^2 - (rise sigma_down)^2, factored: as a difference it is noise at eta = 0.
        square = below * (there.sigma * down.alpha + down.sigma * there.alpha)
        return down, there.alpha / down.alpha, jnp.sqrt(jnp.maximum(square, 0.0)) / down.alpha
    new = jnp.sqrt(jnp.maximum(1 - decay(here, there) ** 2, 0.0))
    fresh = there.sigma * jnp.minimum(eta * new, 1.0)
    down = dataclasses.replace(there, sigma=jnp.sqrt(jnp.maximum(there.sigma**2 - fresh**2, 0.0)))
    return down, jnp.ones_like(fresh), fresh


def gather(noise: Array, new: Array, h: Array, eta: Array) -> Array:
    """Noise over sigma, h later: the rest of it and the SDE's own, with new standard normal noise.

    Two parts of a step gather what the whole does, so the noise at an inner level is on the step's own path.
    """
    return jnp.exp(-eta * h) * noise + jnp.sqrt(-jnp.expm1(-2 * eta * h)) * new


def shared(h: Array, part: Array) -> Array:
    """How much of the variance of a step's noise was there when that part of h was done.

    For the reverse SDE that retraces the forward process: its noise, over sigma / alpha, is a Brownian motion in the
    signal-to-noise ratio.
    """
    return jnp.where(h < FAR, jnp.exp(2 * (part - 1) * h) * jnp.expm1(-2 * part * h) / jnp.expm1(-2 * h), 0.0)


def climb(x: Array, here: NoiseLevel, there: NoiseLevel, noise: Array) -> Array:
    """The forward process, from a level to a noisier one."""
    kept = there.alpha / here.alpha
    return kept * x + jnp.sqrt(jnp.maximum(there.sigma**2 - (kept * here.sigma) ** 2, 0.0)) * noise
