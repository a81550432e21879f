"""Which rows of a batch a process reads, and where they go."""

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from ldm_jax.training.parallel import placement


class OfSeveralHosts:
    """A sharding of 8 rows in fours, of which this process has the second and the last, the latter twice."""

    def addressable_devices_indices_map(self, shape):
        assert shape == (8,)
        return {0: (slice(6, None),), 1: (slice(2, 4),), 2: (slice(6, 8),)}


def test_a_process_reads_what_its_devices_want_in_order():
    assert placement.rows(OfSeveralHosts(), 8) == [2, 3, 6, 7]


def test_every_device_gets_its_rows_whatever_their_order():
    devices = np.array(jax.devices())[[5, 2, 7, 0, 1, 6, 3, 4]].reshape(4, 2)
    sharding = NamedSharding(Mesh(devices, ('data', 'tensor')), P('data'))
    batch = np.arange(24.0).reshape(8, 3)
    assert placement.rows(sharding, 8) == list(range(8))
    placed = placement.shard(batch, sharding, 8)
    np.testing.assert_array_equal(placed, batch)
    for shard in placed.addressable_shards:
        row = int(np.argwhere(devices == shard.device)[0, 0])
        np.testing.assert_array_equal(shard.data, batch[2 * row : 2 * row + 2])
