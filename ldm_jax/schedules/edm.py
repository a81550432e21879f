"""EDM's noise: nothing is scaled down, the noise grows."""

from __future__ import annotations

import dataclasses

import jax.numpy as jnp

from ldm_jax.schedules import discrete
from ldm_jax.types import Array, NoiseLevel


@dataclasses.dataclass(frozen=True)
class Schedule:
    """Variance-exploding: alpha = 1, sigma^(1/rho) linear in t from sigma_min to sigma_max, t over [0, N - 1].

    Evenly spaced times are therefore EDM's sampling grid. The network's time input is log(sigma) / 4 by the
    parameterization 'edm', not t.
    Ref: Karras et al. 2022, arXiv:2206.00364, eq. 5 and table 1.
    """

    sigma_min: float = 0.002
    sigma_max: float = 80.0
    rho: float = 7.0
    num_train_steps: int = 1000

    def __post_init__(self):
        discrete.check_steps(self.num_train_steps)
        if not 0 < self.sigma_min < self.sigma_max:
            raise ValueError(
                f'Sigmas must satisfy 0 < sigma_min < sigma_max; got {self.sigma_min} and {self.sigma_max}.'
            )
        if not self.rho > 0:
            raise ValueError(f'rho must be above 0; got {self.rho}.')

    def level(self, t: Array) -> NoiseLevel:
        """The noise level at times t (any shape); times beyond either end are clamped to it."""
        t = jnp.asarray(t, float)
        low, high = self._ends()
        share = jnp.clip(t, 0, self.num_train_steps - 1) / (self.num_train_steps - 1)
        return NoiseLevel(t=t, alpha=jnp.ones_like(t), sigma=(low + share * (high - low)) ** self.rho)

    def time(self, log_snr: Array) -> Array:
        """The time at which log(alpha^2 / sigma^2) has this value: the inverse of `level`."""
        low, high = self._ends()
        root = jnp.exp(-0.5 / self.rho * jnp.asarray(log_snr, float))
        return jnp.clip((root - low) / (high - low), 0, 1) * (self.num_train_steps - 1)

    def _ends(self) -> tuple[float, float]:
        return self.sigma_min ** (1 / self.rho), self.sigma_max ** (1 / self.rho)
