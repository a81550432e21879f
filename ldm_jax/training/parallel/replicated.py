"""pmap over all devices: each holds the whole state, and averages gradients with the others itself."""

from __future__ import annotations

import dataclasses
import functools

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from ldm_jax.training.parallel import placement

AXIS = 'batch'  # the name of pmap's axis


@dataclasses.dataclass(frozen=True)
class Replicated:
    """A parallel.Backend; leaves of the state are [devices, ...]."""

    @property
    def devices(self) -> int:
        return jax.device_count()

    @property
    def copies(self) -> int:
        return self.devices

    @property
    def replicated(self) -> jax.sharding.Sharding:
        if jax.process_count() == 1:
            return jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
        return NamedSharding(_line(), PartitionSpec())  # Orbax refuses arrays of one host

    def init(self, make, key):
        with placement.on_host():
            return self.placed(make(key))

    def like(self, make, key):
        return jax.tree.map(
            lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=self.replicated),
            jax.eval_shape(make, key),
        )

    def placed(self, whole):
        def stack(leaf):
            return np.broadcast_to(np.asarray(leaf)[None], (self.devices, *leaf.shape))

        return jax.tree.map(lambda leaf: placement.put(leaf, self._stacked, stack), whole)

    def whole(self, state):
        if jax.process_count() == 1:
            return self.metrics(state)

        def unstack(leaf):
            pieces = [shard.data[0] for shard in leaf.addressable_shards]
            return jax.make_array_from_single_device_arrays(leaf.shape[1:], self.replicated, pieces)

        return jax.tree.map(unstack, state)

    def rows(self, batch_size):
        return placement.rows(self._stacked, batch_size)

    def shard(self, batch, batch_size):
        share = batch_size // self.devices

        def cut(array):
            stacked = array.reshape(-1, share, *array.shape[1:])
            return placement.shard(stacked, self._stacked, self.devices)

        return jax.tree.map(cut, batch)

    def traced(self, step, *args):
        mapped = jax.pmap(
            functools.partial(step, axis_name=AXIS),
            axis_name=AXIS,
            in_axes=(0, 0, None),
            axis_size=self.devices,  # else several processes would take it for their own devices' number
            donate_argnums=0,
        )
        state, batch, key = args
        one = jax.eval_shape(lambda tree: jax.tree.map(lambda a: a[0], tree), (state, batch))
        program = jax.make_jaxpr(functools.partial(step, axis_name=AXIS), axis_env=[(AXIS, self.devices)])
        return mapped.lower(*args), program(*one, key)

    def metrics(self, metrics):
        return jax.tree.map(lambda leaf: leaf.addressable_shards[0].data[0], metrics)

    @property
    def _stacked(self) -> NamedSharding:
        return NamedSharding(_line(), PartitionSpec(AXIS))


def _line() -> Mesh:
    # Named as pmap names it: under another name the second call would compile everything again.
    return Mesh(np.array(jax.devices()), (AXIS,))
