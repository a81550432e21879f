"""Arrays onto devices, which may be those of several hosts."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ldm_jax.types import Array, PyTree

# (state, batch, key, axis_name=None) -> (state, metrics)
Step = Callable[..., tuple[PyTree, dict[str, Array]]]


@contextlib.contextmanager
def on_host() -> Iterator[None]:
    """Several devices start from what one host device makes: the same numbers however many they are, and a state
    that no one device could hold."""
    try:
        host = jax.local_devices(backend='cpu')[0]
    except RuntimeError:  # JAX_PLATFORMS leaves it out
        yield
        return
    with jax.default_device(host):
        yield


def put(leaf: Array, sharding: jax.sharding.Sharding, change: Callable[[Array], Any] = np.asarray) -> Array:
    """The array, changed first, on the devices of a sharding, which may be those of several hosts."""
    if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        data = put(jax.random.key_data(leaf), sharding, change)
        return jax.random.wrap_key_data(data, impl=jax.random.key_impl(leaf))
    array = change(leaf)
    return jax.make_array_from_callback(array.shape, sharding, array.__getitem__)


def rows(sharding: jax.sharding.Sharding, batch_size: int) -> list[int]:
    """Rows of a sharded batch that this process's devices hold, in order.

    On a torus neighbours along a mesh axis may be of different hosts, so they need not be one run of rows.
    """
    found: set[int] = set()
    for (cut,) in filter(None, sharding.addressable_devices_indices_map((batch_size,)).values()):
        found.update(range(*cut.indices(batch_size)))
    return sorted(found)


def shard(array: np.ndarray, sharding: jax.sharding.Sharding, batch_size: int) -> Array:
    """The whole batch [B, ...] on all devices, of those rows of it that this process holds."""
    place = {row: i for i, row in enumerate(rows(sharding, batch_size))}

    def piece(index: tuple[slice, ...]) -> np.ndarray:
        first, last, _ = index[0].indices(batch_size)
        return array[place[first] : place[first] + last - first][(slice(None), *index[1:])]

    return jax.make_array_from_callback((batch_size, *array.shape[1:]), sharding, piece)
