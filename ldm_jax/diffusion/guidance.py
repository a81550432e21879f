"""Guidance maps denoisers to a denoiser, so it composes, and samplers never see it."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from ldm_jax.types import Array, Cond, Denoiser, NoiseLevel


def classifier_free(both: Denoiser, scale: Array) -> Denoiser:
    """uncond + scale (cond - uncond), from one evaluation of twice the batch.

    Args:
        both: a denoiser of 2 B pictures that is bound to `pair(uncond, cond)`.
        scale: [] or [B]; 1 is no guidance, 0 unconditional.

    Linear in x0_hat as in eps, so every parameterization is guided alike.
    Ref: Ho & Salimans 2022, arXiv:2207.12598, eq. 6.
    """

    def denoise(x: Array, level: NoiseLevel) -> Array:
        twice = jax.tree.map(lambda a: jnp.concatenate([a, a]) if a.ndim else a, level)
        uncond, cond = jnp.split(both(jnp.concatenate([x, x]), twice), 2)
        weight = jnp.reshape(scale, (-1,) + (1,) * (x.ndim - 1))
        return uncond + weight * (cond - uncond)

    return denoise


def pair(uncond: Cond, cond: Cond) -> Cond:
    """Two conditionings of B pictures as one of 2 B, the unconditional half first."""
    return jax.tree.map(lambda a, b: jnp.concatenate([a, b]), uncond, cond)
