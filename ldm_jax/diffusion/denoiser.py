"""A network with its parameters and conditioning bound: what samplers and guidance see."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp

from ldm_jax.diffusion.parameterization import Parameterization
from ldm_jax.diffusion.process import per_example
from ldm_jax.types import Array, Cond, Denoiser, NoiseLevel, Schedule

Network = Callable[[Array, Array, Cond], Array]  # (x, t, cond) -> F, parameters bound


def denoiser(network: Network, parameterization: Parameterization, cond: Cond) -> Denoiser:
    """(x [B, ...], level) -> x0_hat [B, ...] by a network that predicts what its parameterization says."""

    def denoise(x: Array, level: NoiseLevel) -> Array:
        s = parameterization(level)
        out = network(per_example(s.c_in, x) * x, s.c_noise, cond)
        return per_example(s.c_skip, x) * x + per_example(s.c_out, x) * out

    return denoise


def on_schedule(denoise: Denoiser, schedule: Schedule) -> Denoiser:
    """The same denoiser for levels that samplers make themselves, which have t = NaN and any scale.

    Such a level [] or [B] stands for the schedule's one of the same signal-to-noise ratio, and x is scaled to that:
    both hold the same alpha x0 + sigma eps but for a factor. Put it outermost, so that guidance sees true levels.
    """

    def moved(x: Array, level: NoiseLevel) -> tuple[Array, NoiseLevel]:
        log_snr = 2 * (jnp.log(level.alpha) - jnp.log(level.sigma))
        found = schedule.level(schedule.time(log_snr))
        # Not the ratio of the alphas or sigmas: either may be 0.
        scale = jnp.hypot(found.alpha, found.sigma) / jnp.hypot(level.alpha, level.sigma)
        own = jnp.isnan(level.t)
        level = jax.tree.map(lambda a, b: jnp.where(own, a, b), found, level)
        return per_example(jnp.where(own, scale, 1), x) * x, level

    def at_schedule(x: Array, level: NoiseLevel) -> Array:
        return denoise(*moved(x, level))

    if hasattr(denoise, 'both'):  # of guided denoisers: CFG++ samplers ask for it
        at_schedule.both = lambda x, level: denoise.both(*moved(x, level))  # type: ignore[attr-defined]
    return at_schedule
