"""Checksums tell arrays apart."""

import jax
import ml_dtypes
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from ldm_jax.checkpoints.checksums import fold, folded

RNG = np.random.default_rng(0)


@pytest.mark.parametrize('dtype', [np.float32, np.float16, ml_dtypes.bfloat16, np.int8, np.uint32, np.bool_])
def test_a_checksum_is_of_bits_and_places(dtype):
    x = RNG.integers(0, 2, (6, 50)).astype(dtype)
    x[0, 0], x[0, 1] = 0, 1
    swapped = x.copy()
    swapped[0, 0], swapped[0, 1] = 1, 0
    assert fold(x) == fold(x.copy())
    different = {int(fold(a)) for a in (x, swapped, x[:5], x[1:])}
    assert len(different) == 4


def test_every_changed_word_changes_the_checksum():
    x = RNG.standard_normal(64).astype(np.float32)
    sums = {int(fold(x))}
    for place in range(64):
        for bit in range(32):
            words = x.view(np.uint32).copy()
            words[place] ^= np.uint32(1) << np.uint32(bit)
            sums.add(int(fold(words.view(np.float32))))
    assert len(sums) == 64 * 32 + 1


def test_of_many_arrays_over_devices_at_once():
    cut = NamedSharding(Mesh(np.array(jax.devices()), ('data',)), PartitionSpec('data'))
    arrays = {str(i): RNG.standard_normal((8, 3)).astype(np.float32) for i in range(300)}
    placed = {name: jax.device_put(array, cut) for name, array in arrays.items()}
    assert folded(placed) == folded(arrays)
