"""The noise levels to train at: schedule times of a batch, from uniform numbers.

A distribution is its quantile function: u, uniform in (0, 1), goes to the time that a share u of all draws lie
below (or above). What it is uniform, normal or skewed in is its own affair: time, the log of sigma / alpha, or
the loss that was met before. Any of them goes with any schedule and parameterization.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jax.scipy.special import ndtri

from ldm_jax.build import function
from ldm_jax.types import Array, PyTree, Schedule

Quantile = Callable[[Array, Schedule], Array]  # (u, schedule) -> t of the same shape


class Times(Protocol):
    """A distribution of training times, which may remember what losses it met."""

    def init(self, schedule: Schedule) -> PyTree: ...  # its memory

    def draw(self, u: Array, schedule: Schedule, memory: PyTree) -> tuple[Array, Array]: ...  # t, weight

    def update(self, memory: PyTree, t: Array, loss: Array) -> PyTree: ...  # of a batch [B]


# Uniform in time, and near it


def uniform(
    u: Array, schedule: Schedule, *, begin: int = 0, end: int | None = None, whole: bool = True
) -> Array:
    """Every time begin .. end - 1 alike, by default all of them: whole ones as DDPM trains, or any between."""
    end = schedule.num_train_steps if end is None else end
    if not 0 <= begin < end <= schedule.num_train_steps:
        raise ValueError(
            f'Times begin .. end - 1 must lie in 0 .. {schedule.num_train_steps - 1}; got begin={begin}, end={end}.'
        )
    if whole:
        return jnp.minimum(begin + jnp.floor(u * (end - begin)), end - 1)
    return begin + u * (end - 1 - begin)


def biased(
    u: Array, schedule: Schedule, *, begin: int = 0, end: int | None = None, multiplier: float = 2.0
) -> Array:
    """Whole times, those of begin .. end - 1 drawn `multiplier` times as often as each other one; 0 leaves them out.

    The "timestep bias" of diffusers' training scripts: 'later' is begin alone, 'earlier' end alone.
    """
    n = schedule.num_train_steps
    end = n if end is None else end
    if not 0 <= begin < end <= n or multiplier < 0 or (multiplier == 0 and end - begin == n):
        raise ValueError(
            f'A bias needs 0 <= begin < end <= {n}, multiplier >= 0 and some time left; got begin={begin}, '
            f'end={end}, multiplier={multiplier}.'
        )
    weights = np.ones(n)
    weights[begin:end] = multiplier
    return _table(u, jnp.asarray(weights / weights.sum(), float))


# By the log of sigma / alpha


def log_normal(u: Array, schedule: Schedule, *, mean: float = -1.2, std: float = 1.2) -> Array:
    """log(sigma / alpha) is normal; times end where the schedule does.

    Ref: Karras et al. 2022, arXiv:2206.00364, table 1.
    """
    return schedule.time(-2 * (mean + std * ndtri(u)))


def cosine(u: Array, schedule: Schedule, *, shift: float = 1.0) -> Array:
    """sigma / alpha = shift tan(pi u / 2): on any schedule the levels that a cosine one has evenly in time.

    With a flow schedule this is CosMap. Ref: Nichol & Dhariwal 2021, arXiv:2102.09672; Esser et al. 2024,
    arXiv:2403.03206, section 3.1.
    """
    log_tan = jnp.log(jnp.sin(jnp.pi / 2 * u)) - jnp.log(jnp.sin(jnp.pi / 2 * (1 - u)))
    return schedule.time(-2 * (log_tan + jnp.log(shift)))


# By the share of time, (t + 1) / N: on a flow schedule sigma before its shift


def logit_normal(u: Array, schedule: Schedule, *, mean: float = 0.0, std: float = 1.0) -> Array:
    """The logit of the share of time is normal; mean > 0 means more noise. Ref: Esser et al. 2024, eq. 19."""
    return _at_share(jax.nn.sigmoid(mean + std * ndtri(u)), schedule)


def mode(u: Array, schedule: Schedule, *, scale: float = 1.29) -> Array:
    """The middle of time (scale > 0) or its ends (scale < 0) more often. Ref: Esser et al. 2024, eq. 20.

    Raises ValueError for a scale outside [-1, 2 / (pi - 2)], where it is no distribution.
    """
    if not -1 <= scale <= 2 / (np.pi - 2):
        raise ValueError(f'mode takes a scale from -1 to {2 / (np.pi - 2):.4f}; got {scale}.')
    share = 1 - u - scale * (jnp.cos(jnp.pi / 2 * u) ** 2 - 1 + u)
    return _at_share(share, schedule)


QUANTILES: dict[str, Callable[..., Array]] = {
    quantile.__name__: quantile for quantile in (uniform, biased, log_normal, cosine, logit_normal, mode)
}


@dataclasses.dataclass(frozen=True)
class Independent:
    """Times by a quantile function alone: nothing is remembered, and every draw counts once."""

    quantile: Quantile

    def init(self, schedule: Schedule) -> tuple[()]:
        return ()

    def draw(self, u: Array, schedule: Schedule, memory: tuple[()]) -> tuple[Array, Array]:
        return self.quantile(u, schedule), jnp.ones_like(u)

    def update(self, memory: tuple[()], t: Array, loss: Array) -> tuple[()]:
        return memory


@struct.dataclass
class LossHistory:
    """The last losses met at each time."""

    losses: Array  # [N, K], float32
    counts: Array  # [N] int32: how many were met, ever


@dataclasses.dataclass(frozen=True, kw_only=True)
class Importance:
    """Whole times in proportion to sqrt(E[loss^2]) there, of the last losses met; uniform until all times have them.

    A draw counts 1 / (N p), so the expected loss stays that of uniform times while its variance falls.
    Ref: Nichol & Dhariwal 2021, arXiv:2102.09672, section 3.3.

    history: losses kept for each time. uniform_share: of draws whatever the losses, so that none is forgotten.
    """

    history: int = 10
    uniform_share: float = 0.001

    def __post_init__(self):
        if self.history < 1 or not 0 < self.uniform_share <= 1:
            raise ValueError(
                f'importance needs history >= 1 and 0 < uniform_share <= 1; got {self.history} and '
                f'{self.uniform_share}.'
            )

    def init(self, schedule: Schedule) -> LossHistory:
        n = schedule.num_train_steps
        return LossHistory(jnp.zeros((n, self.history)), jnp.zeros(n, jnp.int32))

    def probabilities(self, memory: LossHistory) -> Array:
        """[N], which add up to one."""
        n = len(memory.counts)
        weights = jnp.sqrt(jnp.mean(memory.losses**2, axis=1))
        share = weights / jnp.maximum(jnp.sum(weights), jnp.finfo(weights.dtype).tiny)
        mixed = (1 - self.uniform_share) * share + self.uniform_share / n
        ready = jnp.all(memory.counts >= self.history) & (jnp.sum(weights) > 0)
        return jnp.where(ready, mixed, 1 / n)

    def draw(self, u: Array, schedule: Schedule, memory: LossHistory) -> tuple[Array, Array]:
        p = self.probabilities(memory)
        t = _table(u, p)
        return t, 1 / (len(p) * p[t.astype(int)])

    def update(self, memory: LossHistory, t: Array, loss: Array) -> LossHistory:
        """With the losses [B] at times t [B], the same whatever their order but for which is forgotten first."""
        t = t.astype(jnp.int32)
        same = t[:, None] == t[None, :]
        before = jnp.sum(jnp.tril(same, -1), axis=1)  # of this time, earlier in the batch
        kept = jnp.sum(same, axis=1) - before <= self.history  # more than fit: the last ones stay
        row = jnp.where(kept, t, len(memory.counts))  # out of range, where scatters do nothing
        slot = (memory.counts[t] + before) % self.history
        return LossHistory(
            losses=memory.losses.at[row, slot].set(loss.astype(memory.losses.dtype), mode='drop'),
            counts=memory.counts.at[t].add(1),
        )


def named(spec: str | Mapping[str, Any]) -> Times:
    """The training times of a name, or of dict(name='log_normal', mean=-0.4, std=1.0): QUANTILES and 'importance'.

    A dotted name is a quantile function, or a class of Times. Raises ValueError for an unknown name or knob.
    """
    made = function('training times', QUANTILES | {'importance': Importance}, spec)
    return made() if isinstance(getattr(made, 'func', made), type) else Independent(made)


def _table(u: Array, p: Array) -> Array:
    """Whole times, t with probability p[t]: u [...] -> [...], float."""
    return jnp.minimum(jnp.searchsorted(jnp.cumsum(p), u, side='right'), len(p) - 1).astype(u.dtype)


def _at_share(share: Array, schedule: Schedule) -> Array:
    return jnp.clip(share * schedule.num_train_steps - 1, 0, schedule.num_train_steps - 1)
