"""Flow matching: the straight line between image and noise."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp

from ldm_jax.schedules import discrete
from ldm_jax.types import Array, NoiseLevel


@dataclasses.dataclass(frozen=True)
class Schedule:
    """alpha = 1 - sigma, sigma = shift u / (1 + (shift - 1) u), u = (t + 1) / N; shift > 1 adds noise everywhere.

    t runs over [0, N - 1] and is pure noise at its end. `shift` is Stable Diffusion 3's (3.0 there).
    Ref: Lipman et al. 2023, arXiv:2210.02747; shift: Esser et al. 2024, arXiv:2403.03206, eq. 23.
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
        total = 1 + (self.shift - 1) * u
        return NoiseLevel(t=t, alpha=(1 - u) / total, sigma=self.shift * u / total)

    def time(self, log_snr: Array) -> Array:
        """The time at which log(alpha^2 / sigma^2) has this value: the inverse of `level`."""
        # u / (1 - u) = sigma / alpha / shift; a sigmoid, so that pure noise (log_snr = -inf) has its time too
        u = jax.nn.sigmoid(-0.5 * jnp.asarray(log_snr, float) - jnp.log(self.shift))
        return jnp.clip(u * self.num_train_steps - 1, 0, self.num_train_steps - 1)
