"""Latent diffusion's noise schedule: linear in the square root of beta ("linear" in CompVis' code)."""

from __future__ import annotations

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np

from ldm_jax.types import Array, NoiseLevel


@dataclasses.dataclass(frozen=True)
class Schedule:
    """Variance-preserving, beta_i = (sqrt(beta_start) + i / (N - 1) (sqrt(beta_end) - sqrt(beta_start)))^2.

    t runs over [0, N - 1]; between its whole numbers, where training and the reference samplers live,
    log_snr is linear in t. Stable Diffusion's numbers are the defaults.
    Ref: Rombach et al. 2022, arXiv:2112.10752; Ho et al. 2020, arXiv:2006.11239, eq. 4.
    """

    beta_start: float = 0.00085
    beta_end: float = 0.012
    num_train_steps: int = 1000

    def __post_init__(self):
        if not 0 < self.beta_start <= self.beta_end < 1:
            raise ValueError(
                f'Betas must satisfy 0 < beta_start <= beta_end < 1; got {self.beta_start} and {self.beta_end}.'
            )
        if self.num_train_steps < 2:
            raise ValueError(f'num_train_steps must be at least 2; got {self.num_train_steps}.')

    def level(self, t: Array) -> NoiseLevel:
        """The noise level at times t (any shape); times beyond either end are clamped to it."""
        log_snr = jnp.interp(jnp.asarray(t, float), *self._table())
        return NoiseLevel(
            t=jnp.asarray(t, float),
            alpha=jnp.sqrt(jax.nn.sigmoid(log_snr)),
            sigma=jnp.sqrt(jax.nn.sigmoid(-log_snr)),
        )

    def time(self, log_snr: Array) -> Array:
        """The time at which log(alpha^2 / sigma^2) has this value: the inverse of `level`."""
        times, table = self._table()
        return jnp.interp(log_snr, table[::-1], times[::-1])  # interp wants rising abscissae

    def _table(self) -> tuple[Array, Array]:
        table = _log_snr(self.beta_start, self.beta_end, self.num_train_steps)
        return jnp.arange(self.num_train_steps, dtype=float), jnp.asarray(table, float)


@functools.lru_cache
def _log_snr(beta_start: float, beta_end: float, num_train_steps: int) -> np.ndarray:
    # In float64: 1 - alphas_cumprod near t = 0 has lost four digits in float32.
    betas = np.linspace(beta_start**0.5, beta_end**0.5, num_train_steps, dtype=np.float64) ** 2
    alphas_cumprod = np.cumprod(1 - betas)
    return np.log(alphas_cumprod / (1 - alphas_cumprod))
