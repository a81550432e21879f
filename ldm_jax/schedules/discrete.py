"""Schedules that training defines by betas at whole times 0 .. N - 1, and log_snr linear between them.

A schedule here is a frozen dataclass with `alphas_cumprod() -> float64 [N]`, the products of 1 - beta; its
table of log_snr is made once. k-diffusion's models interpolate log sigma = -log_snr / 2 alike.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Hashable
from typing import Protocol

import jax
import jax.numpy as jnp
import numpy as np

from ldm_jax.types import Array, NoiseLevel


class Discrete(Hashable, Protocol):
    def alphas_cumprod(self) -> np.ndarray: ...


def level(schedule: Discrete, t: Array) -> NoiseLevel:
    """The noise level at times t (any shape); times beyond either end are clamped to it."""
    t = jnp.asarray(t, float)
    log_snr = jnp.interp(t, *_table(schedule))
    return NoiseLevel(t=t, alpha=jnp.sqrt(jax.nn.sigmoid(log_snr)), sigma=jnp.sqrt(jax.nn.sigmoid(-log_snr)))


def time(schedule: Discrete, log_snr: Array) -> Array:
    """The time at which log(alpha^2 / sigma^2) has this value: the inverse of `level`."""
    times, table = _table(schedule)
    return jnp.interp(log_snr, table[::-1], times[::-1])  # interp wants rising abscissae


def level_to_noise(schedule: Discrete, t: Array) -> NoiseLevel:
    """`level` of a schedule whose last alpha is 0 and not in its table, which ends at N - 2."""
    found = level(schedule, t)
    # log_snr is infinite at N - 1: alpha falls to 0 on a straight line.
    left = jnp.clip(len(schedule.alphas_cumprod()) - found.t, 0, 1)
    alpha = left * found.alpha
    sigma = jnp.where(left < 1, jnp.sqrt(1 - alpha**2), found.sigma)
    return dataclasses.replace(found, alpha=alpha, sigma=sigma)


def time_to_noise(schedule: Discrete, log_snr: Array) -> Array:
    """The inverse of `level_to_noise`; log_snr may be -inf."""
    before = float(np.sqrt(schedule.alphas_cumprod()[-1]))
    left = jnp.minimum(jnp.sqrt(jax.nn.sigmoid(jnp.asarray(log_snr, float))) / before, 1)
    return time(schedule, log_snr) + (1 - left)


def check_betas(beta_start: float, beta_end: float, num_train_steps: int) -> None:
    """Raises ValueError for betas that do not rise inside (0, 1), or fewer than two of them."""
    if not 0 < beta_start <= beta_end < 1:
        raise ValueError(
            f'Betas must satisfy 0 < beta_start <= beta_end < 1; got {beta_start} and {beta_end}.'
        )
    check_steps(num_train_steps)


def check_steps(num_train_steps: int) -> None:
    """Raises ValueError when there is no time between the first and the last."""
    if num_train_steps < 2:
        raise ValueError(f'num_train_steps must be at least 2; got {num_train_steps}.')


def _table(schedule: Discrete) -> tuple[Array, Array]:
    table = _log_snr(schedule)
    return jnp.arange(len(table), dtype=float), jnp.asarray(table, float)


@functools.lru_cache
def _log_snr(schedule: Discrete) -> np.ndarray:
    # In float64: 1 - alphas_cumprod near t = 0 has lost four digits in float32.
    alphas_cumprod = schedule.alphas_cumprod()
    return np.log(alphas_cumprod / (1 - alphas_cumprod))
