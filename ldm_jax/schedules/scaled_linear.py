"""Latent diffusion's noise schedule: linear in the square root of beta ("linear" in CompVis' code)."""

from __future__ import annotations

import dataclasses

import numpy as np

from ldm_jax.schedules import discrete
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
        discrete.check_betas(self.beta_start, self.beta_end, self.num_train_steps)

    def level(self, t: Array) -> NoiseLevel:
        return discrete.level(self, t)

    def time(self, log_snr: Array) -> Array:
        return discrete.time(self, log_snr)

    def alphas_cumprod(self) -> np.ndarray:
        return np.cumprod(
            1 - np.linspace(self.beta_start**0.5, self.beta_end**0.5, self.num_train_steps) ** 2
        )
