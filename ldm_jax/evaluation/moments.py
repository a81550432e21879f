"""Mean and covariance of rows, as sums in float64 on the host whatever precision the devices have.

Merging is exact but for rounding (Chan et al. 1979): with counts n, m and the difference d of the means,

    scatter = scatter_a + scatter_b + d d^T n m / (n + m)

so that a mean that is large beside the deviation costs no digits, and states of devices, hosts and restarts merge in
any order to the same covariance within 1e-10 of it.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from ldm_jax.evaluation.checks import check_rows


@dataclasses.dataclass(frozen=True, eq=False)
class Moments:
    """Rows [n, D] by their count, mean [D] and scatter [D, D] = sum of (x - mean)(x - mean)^T."""

    count: int = 0
    mean: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros(0))
    scatter: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros((0, 0)))

    def add(self, rows: np.ndarray, numbers: np.ndarray | None = None) -> Moments:
        """With rows [B, D] more; `numbers` name the images in errors.

        Raises ValueError for rows that are not finite, or of another width.
        """
        rows = check_rows(rows, numbers, self.mean.shape[0] if self.count else None)
        if not len(rows):
            return self
        mean = rows.mean(0)
        centred = rows - mean
        return self | Moments(len(rows), mean, centred.T @ centred)

    def __or__(self, other: Moments) -> Moments:
        """Both sets of rows as one. Raises ValueError for rows of two widths."""
        if not self.count or not other.count:
            return self if self.count else other
        if self.mean.shape != other.mean.shape:
            raise ValueError(
                f'Features {self.mean.shape[0]} wide and {other.mean.shape[0]} wide are not of one network.'
            )
        count = self.count + other.count
        difference = other.mean - self.mean
        mean = self.mean + difference * (other.count / count)
        between = np.outer(difference, difference) * (self.count * other.count / count)
        return Moments(count, mean, self.scatter + other.scatter + between)

    @property
    def covariance(self) -> np.ndarray:
        """[D, D], with the divisor n - 1. Raises ValueError below two rows."""
        if self.count < 2:
            raise ValueError(f'A covariance needs at least 2 images; got {self.count}.')
        return self.scatter / (self.count - 1)
