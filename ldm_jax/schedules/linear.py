"""The noise schedule of DDPM: linear in beta ("sqrt_linear" in CompVis' code)."""

from __future__ import annotations

import dataclasses

import numpy as np

from ldm_jax.schedules import discrete
from ldm_jax.types import Array, NoiseLevel


@dataclasses.dataclass(frozen=True)
class Schedule:
    """Variance-preserving, beta_i = beta_start + i / (N - 1) (beta_end - beta_start), t over [0, N - 1].

    Ref: Ho et al. 2020, arXiv:2006.11239, section 4.
    """

    beta_start: float = 0.0001
    beta_end: float = 0.02
    num_train_steps: int = 1000

    def __post_init__(self):
        discrete.check_betas(self.beta_start, self.beta_end, self.num_train_steps)

    def level(self, t: Array) -> NoiseLevel:
        return discrete.level(self, t)

    def time(self, log_snr: Array) -> Array:
        return discrete.time(self, log_snr)

    def alphas_cumprod(self) -> np.ndarray:
        return np.cumprod(1 - np.linspace(self.beta_start, self.beta_end, self.num_train_steps))
