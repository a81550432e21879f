"""A table of betas as it is: what diffusers calls trained_betas."""

from __future__ import annotations

import dataclasses

import numpy as np

from ldm_jax.schedules import discrete, linear
from ldm_jax.types import Array, NoiseLevel


@dataclasses.dataclass(frozen=True)
class Schedule:
    """Variance-preserving, betas in (0, 1), t over [0, N - 1]; the last beta may be 1, which is noise alone.

    betas: those of DDPM by default.
    """

    betas: tuple[float, ...] = dataclasses.field(default_factory=lambda: _ddpm())

    def __post_init__(self):
        discrete.check_steps(len(self.betas))
        table = np.asarray(self.betas, float)
        if not ((table > 0) & (table < 1))[:-1].all() or not 0 < table[-1] <= 1:
            wrong = next(i for i, beta in enumerate(table) if not 0 < beta < 1)
            raise ValueError(
                f'betas must be above 0 and below 1 (the last one may be 1); number {wrong} is {table[wrong]}.'
            )

    @property
    def num_train_steps(self) -> int:
        return len(self.betas)

    def level(self, t: Array) -> NoiseLevel:
        return discrete.level_to_noise(self, t) if self.betas[-1] == 1 else discrete.level(self, t)

    def time(self, log_snr: Array) -> Array:
        return discrete.time_to_noise(self, log_snr) if self.betas[-1] == 1 else discrete.time(self, log_snr)

    def alphas_cumprod(self) -> np.ndarray:
        """[N], or [N - 1] when the last one is 0."""
        found = np.cumprod(1 - np.asarray(self.betas, float))
        return found[:-1] if self.betas[-1] == 1 else found


def _ddpm() -> tuple[float, ...]:
    table = linear.Schedule()
    return tuple(np.linspace(table.beta_start, table.beta_end, table.num_train_steps).tolist())
