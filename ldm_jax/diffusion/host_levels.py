"""Levels and times of a schedule as numpy arrays, for grids: no number of steps compiles anything, even under jit."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from ldm_jax.types import Array, NoiseLevel, PyTree, Schedule


def levels(schedule: Schedule, times: np.ndarray) -> NoiseLevel:
    """The schedule's levels at times [S], as numpy arrays of jax's float type."""
    return on_host(schedule.level, times)


def on_host(function: Callable[[Array], PyTree], values: np.ndarray) -> PyTree:
    """A schedule's function of an array [S], as numpy arrays. Padded, so that one program serves every S below 1024."""
    padded = np.resize(values, -(-len(values) // 1024) * 1024)
    found = function(jnp.asarray(padded, float))
    return jax.tree.map(lambda a: np.array(a)[: len(values)], found)


def noise_range(schedule: Schedule) -> tuple[bool, float, float]:
    """Whether signal and noise add up to one (flow matching); the least and the largest noise, inf perhaps.

    Noise is sigma / alpha, or on that line sigma.
    """
    at = levels(schedule, np.array([0, schedule.num_train_steps / 2, schedule.num_train_steps - 1]))
    alpha, sigma = at.alpha.astype(np.float64), at.sigma.astype(np.float64)
    straight = bool(np.isclose(alpha[1] + sigma[1], 1, atol=1e-5))
    with np.errstate(divide='ignore'):
        noise = sigma if straight else sigma / alpha
    return straight, float(noise[0]), float(noise[-1])


def times_of_noise(schedule: Schedule, noise: np.ndarray) -> np.ndarray:
    """The times of these amounts of noise; a hundredth beyond the ends is taken for rounding."""
    straight, low, high = noise_range(schedule)
    if noise.min() < 0.99 * low or noise.max() > 1.01 * high:
        raise ValueError(
            f'sigma must be within what the network was trained at, {low:.4g} .. {high:.4g}; '
            f'got {noise.min():.4g} .. {noise.max():.4g}.'
        )
    noise = np.clip(noise, low, high)
    with np.errstate(divide='ignore'):
        log_snr = -2 * np.log(noise / (1 - noise) if straight else noise)
    return on_host(schedule.time, log_snr).astype(np.float64)
