"""Means that a training step reports, pooled over micro-batches and devices."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import struct

from ldm_jax.types import Array

BINS = 10  # of time


@struct.dataclass
class Mean:
    """Means that are still to be pooled with others, by adding up both leaves [N]; a count may be 0."""

    total: Array
    count: Array


Metrics = dict[str, Array | Mean]  # of a loss: a Mean, or a mean over examples, an array


def by_bin(values: Array, share: Array, bins: int = BINS) -> Mean:
    """Means of values [B] in equal bins of share [B], from 0 to 1: leaves [bins]."""
    index = jnp.clip(jnp.floor(share * bins), 0, bins - 1).astype(jnp.int32)
    zeros = jnp.zeros(bins, values.dtype)
    return Mean(zeros.at[index].add(values), zeros.at[index].add(1))


def pool(stacked: Metrics) -> Metrics:
    """The metrics of a batch of those of its parts, which are of one size: leaves [K, ...] -> [...]."""

    def pooled(value):
        if isinstance(value, Mean):
            return jax.tree.map(lambda a: jnp.sum(a, axis=0), value)
        return jnp.mean(value, axis=0)

    return {name: pooled(value) for name, value in stacked.items()}


def across(metrics: Metrics, axis_name: str) -> Metrics:
    """The metrics of all replicas together, under pmap."""
    return {
        name: jax.lax.psum(value, axis_name) if isinstance(value, Mean) else jax.lax.pmean(value, axis_name)
        for name, value in metrics.items()
    }


def arrays(metrics: Metrics) -> dict[str, Array]:
    """Plain numbers: a Mean becomes its means, NaN where nothing was counted, and '<name>_count'."""
    found = {}
    for name, value in metrics.items():
        if isinstance(value, Mean):
            found[name] = jnp.where(value.count > 0, value.total / jnp.maximum(value.count, 1), jnp.nan)
            found[f'{name}_count'] = value.count
        else:
            found[name] = value
    return found
