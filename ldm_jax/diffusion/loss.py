"""The denoising loss, a pure function of parameters, batch and draws."""

from __future__ import annotations

import jax.numpy as jnp
from flax import struct

from ldm_jax.diffusion.denoiser import Network
from ldm_jax.diffusion.parameterization import Parameterization, target
from ldm_jax.diffusion.process import add_noise, per_example
from ldm_jax.types import Array, Cond, Schedule


@struct.dataclass
class Draws:
    """All the randomness of one denoising step, drawn outside the loss."""

    t: Array  # [B] schedule times
    eps: Array  # [B, ...] noise, of the clean batch's shape


def denoising(
    network: Network,
    schedule: Schedule,
    parameterization: Parameterization,
    x0: Array,
    cond: Cond,
    draws: Draws,
) -> Array:
    """Mean squared error of the network's own prediction, each picture's mean: x0 [B, ...] -> [B], float32.

    With parameterization eps this is L_simple. Ref: Ho et al. 2020, arXiv:2006.11239, eq. 14.
    """
    level = schedule.level(draws.t)
    x = add_noise(x0, draws.eps, level)
    s = parameterization(level)
    out = network(per_example(s.c_in, x) * x, s.c_noise, cond)
    error = (out - target(s, x, x0)).astype(jnp.float32)
    return jnp.mean(error**2, axis=tuple(range(1, error.ndim)))
