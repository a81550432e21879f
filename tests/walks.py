"""A sampler's whole trajectory, with noise that the test gives: the same as a reference was given."""

from __future__ import annotations

import sys
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np

from ldm_jax.types import NoiseLevel


def trajectory(sampler, denoise, x, levels, noise=None):
    """x [B, ...] at each of the levels [S + 1], stacked.

    noise: [S, N, B, ...], N draws of `noise.normal` a step, in the order in which the sampler takes them; None for
    a sampler that takes none.
    """
    module = sys.modules[type(sampler).__module__]
    steps = len(levels.sigma) - 1
    keys = jax.random.split(jax.random.key(0), len(x))
    noise = np.zeros((steps, 0)) if noise is None else np.asarray(noise)

    @jax.jit
    def step(x, state, here, there, draws):
        with mock.patch.object(module, 'normal', create=True, side_effect=list(draws)) as normal:
            out = sampler.step(denoise, x, state, here, there, keys)
        assert normal.call_count == len(draws)
        return out

    x = jnp.asarray(x)
    state, found = sampler.init(x, levels, jnp.asarray(steps)), [x]
    for i in range(steps):
        here, there = (jax.tree.map(lambda a, j=j: jnp.asarray(a[j]), levels) for j in (i, i + 1))
        x, state = step(x, state, here, there, noise[i])
        found.append(x)
    return np.stack(found)


def levels_of(ratio, kind: str) -> NoiseLevel:
    """Levels of these sigma / alpha: 'preserving', 'exploding' or 'flow'. t is the ratio."""
    ratio = np.asarray(ratio, np.float64)
    alpha = {'preserving': 1 / np.hypot(1, ratio), 'exploding': np.ones_like(ratio), 'flow': 1 / (1 + ratio)}[
        kind
    ]
    return NoiseLevel(t=jnp.asarray(ratio), alpha=jnp.asarray(alpha), sigma=jnp.asarray(alpha * ratio))
