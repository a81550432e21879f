"""The cosine schedule in continuous time, shifted for the size of the image."""

from __future__ import annotations

import dataclasses

import jax.numpy as jnp

from ldm_jax.schedules import discrete
from ldm_jax.types import Array, NoiseLevel


@dataclasses.dataclass(frozen=True)
class Schedule:
    """Variance-preserving, sigma / alpha = shift tan(pi / 2 u), u = (t + 1) / N; shift > 1 adds noise everywhere.

    t runs over [0, N - 1] and is pure noise at its end: pair it with v, x0 or flow there, never eps.
    Ref: Nichol & Dhariwal 2021, arXiv:2102.09672; shift: Hoogeboom et al. 2023, arXiv:2301.11093, section 3.1.
    """

    shift: float = 1.0
    num_train_steps: int = 1000

    def __post_init__(self):
        discrete.check_steps(self.num_train_steps)
        if not self.shift > 0:
            raise ValueError(f'shift must be above 0, 1 is none; got {self.shift}.')

    def level(self, t: Array) -> NoiseLevel:
        """The noise level at times t (any shape); times beyond either end are clamped to it."""
        t = jnp.asarray(t, float)
        u = (jnp.clip(t, 0, self.num_train_steps - 1) + 1) / self.num_train_steps
        signal = jnp.sin(jnp.pi / 2 * (1 - u))  # cos(pi / 2) is no zero in floating point
        noise = self.shift * jnp.sin(jnp.pi / 2 * u)
        norm = jnp.hypot(signal, noise)
        return NoiseLevel(t=t, alpha=signal / norm, sigma=noise / norm)

    def time(self, log_snr: Array) -> Array:
        """The time at which log(alpha^2 / sigma^2) has this value: the inverse of `level`."""
        u = 2 / jnp.pi * jnp.arctan(jnp.exp(-0.5 * jnp.asarray(log_snr, float)) / self.shift)
        return jnp.clip(u * self.num_train_steps - 1, 0, self.num_train_steps - 1)
