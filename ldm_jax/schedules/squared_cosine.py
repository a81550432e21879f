"""The cosine schedule as a table of capped betas ("squaredcos_cap_v2" in diffusers): unCLIP's and Karlo's."""

from __future__ import annotations

import dataclasses

import numpy as np

from ldm_jax.schedules import discrete
from ldm_jax.types import Array, NoiseLevel


@dataclasses.dataclass(frozen=True)
class Schedule:
    """Variance-preserving; alpha^2 = f((i + 1) / N) / f(0) with f(u) = cos^2(pi / 2 (u + offset) / (1 + offset)).

    t = i runs over [0, N - 1]. No beta exceeds max_beta, which keeps the last signal above zero.
    Ref: Nichol & Dhariwal 2021, arXiv:2102.09672, eq. 17.
    """

    offset: float = 0.008
    max_beta: float = 0.999
    num_train_steps: int = 1000

    def __post_init__(self):
        discrete.check_steps(self.num_train_steps)
        if not 0 < self.max_beta < 1:
            raise ValueError(f'max_beta must be between 0 and 1; got {self.max_beta}.')

    def level(self, t: Array) -> NoiseLevel:
        return discrete.level(self, t)

    def time(self, log_snr: Array) -> Array:
        return discrete.time(self, log_snr)

    def alphas_cumprod(self) -> np.ndarray:
        u = np.linspace(0, 1, self.num_train_steps + 1)
        f = np.cos(np.pi / 2 * (u + self.offset) / (1 + self.offset)) ** 2
        return np.cumprod(np.maximum(f[1:] / f[:-1], 1 - self.max_beta))
