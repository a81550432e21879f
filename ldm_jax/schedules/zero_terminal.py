"""Any schedule of betas, rescaled so that its last level is noise alone."""

from __future__ import annotations

import dataclasses

import numpy as np

from ldm_jax.schedules import discrete, scaled_linear
from ldm_jax.types import Array, NoiseLevel
from ldm_jax.types import Schedule as AnySchedule


@dataclasses.dataclass(frozen=True)
class Schedule:
    """alpha is shifted and scaled linearly: the first stays, the last becomes 0 (zero terminal SNR).

    Networks that are to start there predict v, and sample from 'trailing' grids.

    base: a schedule of betas; of its spec `build` makes one.
    last_alpha_cumprod: the square of the last alpha. Solvers of public tools need one above zero, and
        take 4.8973451890853435e-08 (ComfyUI) or 2^-24 (diffusers); ours take 0.
    Ref: Lin et al. 2024, arXiv:2305.08891, algorithm 1.
    """

    base: AnySchedule = dataclasses.field(default_factory=scaled_linear.Schedule)
    last_alpha_cumprod: float = 0.0

    def __post_init__(self):
        if not hasattr(self.base, 'alphas_cumprod'):
            raise ValueError(
                f'zero_terminal rescales a schedule of betas (linear, scaled_linear, squared_cosine); got {self.base}.'
            )
        if not 0 <= self.last_alpha_cumprod < _rescaled(self.base)[-2]:
            raise ValueError(
                f'last_alpha_cumprod must be from 0 to below that before it, {_rescaled(self.base)[-2]:.3g}; '
                f'got {self.last_alpha_cumprod}.'
            )

    @property
    def num_train_steps(self) -> int:
        return self.base.num_train_steps

    def level(self, t: Array) -> NoiseLevel:
        """The noise level at times t (any shape); times beyond either end are clamped to it."""
        return discrete.level(self, t) if self.last_alpha_cumprod else discrete.level_to_noise(self, t)

    def time(self, log_snr: Array) -> Array:
        """The time at which log(alpha^2 / sigma^2) has this value, -inf included: the inverse of `level`."""
        if self.last_alpha_cumprod:
            return discrete.time(self, log_snr)
        return discrete.time_to_noise(self, log_snr)

    def alphas_cumprod(self) -> np.ndarray:
        """[N], or [N - 1] when the last one is 0."""
        rescaled = _rescaled(self.base)
        if not self.last_alpha_cumprod:
            return rescaled[:-1]
        return np.append(rescaled[:-1], self.last_alpha_cumprod)


def _rescaled(base: discrete.Discrete) -> np.ndarray:
    alpha = np.sqrt(base.alphas_cumprod())
    return ((alpha - alpha[-1]) * alpha[0] / (alpha[0] - alpha[-1])) ** 2
