"""Whether arrays are what they were: sums that do not depend on how an array is cut into shards.

They are computed on the devices, modulo 2^32, so any number of devices and hosts can verify what any other wrote.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import jax
import jax.numpy as jnp

from ldm_jax.types import Array

QUEUE = 8


def checksums(leaves: Mapping[str, Array]) -> dict[str, str]:
    """The checksum of each array, by name, as eight hexadecimal digits."""
    sums: dict[str, Array] = {}
    for i, (name, leaf) in enumerate(leaves.items()):
        sums[name] = checksum(leaf)
        # Many are started before one is waited for; but CPUs abort when too many sums over devices stand in line.
        if i % QUEUE == 0 and jax.default_backend() == 'cpu':
            jax.block_until_ready(sums[name])
    return {name: f'{int(value):08x}' for name, value in sums.items()}


@jax.jit
def checksum(x: Array) -> Array:
    """A uint32 of an array's bits and their places.

    Each word, combined with its place, goes through a bijection of 32 bits and the results are added modulo
    2^32: one changed word always changes the sum, and the order of adding does not.
    Ref: the bijection is lowbias32 of Wellons 2018, 'Prospecting for Hash Functions'.
    """
    if x.dtype == jnp.bool_:
        x = x.astype(jnp.uint8)
    width = x.dtype.itemsize * 8
    words = jax.lax.bitcast_convert_type(x, jnp.dtype(f'uint{min(width, 32)}')).astype(jnp.uint32)
    place = jnp.zeros(words.shape, jnp.uint32)
    for axis in range(words.ndim):
        stride = jnp.uint32(math.prod(words.shape[axis + 1 :]) % 2**32)
        place += jax.lax.broadcasted_iota(jnp.uint32, words.shape, axis) * stride
    return jnp.sum(_mixed(words ^ _mixed(place + jnp.uint32(0x9E3779B9))), dtype=jnp.uint32)


def _mixed(x: Array) -> Array:
    x = (x ^ (x >> 16)) * jnp.uint32(0x7FEB352D)
    x = (x ^ (x >> 15)) * jnp.uint32(0x846CA68B)
    return x ^ (x >> 16)
