"""torch.randn of a CUDA generator, on the host: Philox bits and Box and Muller's transform, thread by thread.

The numbers are those of the emulation that AUTOMATIC1111's web UI calls "NV". Those of a card, its "GPU", come from the
same bits through float32 and the card's own fast sine: they are near, by estimate to a few 1e-6, and not equal.

A card draws with a grid of threads. Thread i owns the i-th stream of the seed, and one call to Philox gives it four
numbers: those of elements i, i + T, i + 2 T and i + 3 T, where T is the number of threads. The grid covers the tensor
when the card is large enough, and then each thread uses the first of its four; "NV" always counts so. Cards hold
1024 (T4), 1536 (RTX 30 and 40) or 2048 (A100, H100) threads for each of their multiprocessors: a latent of 4 x 64 x 64
fits everywhere, one of 4 x 128 x 128 does not fit a T4's 40 x 1024.

Ref: Salmon et al. 2011, doi:10.1145/2063384.2063405; Box & Muller 1958, doi:10.1214/aoms/1177706645.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Sequence

import numpy as np

MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
WEYL = (0x9E3779B9, 0xBB67AE85)  # golden ratio and sqrt(3) - 1, what the key grows by in a round
ROUNDS = 10
THREADS_PER_BLOCK = 256
PER_CALL = 4  # numbers that one call to Philox gives

# cuRAND's float32 constants; the arithmetic between them is float64 in "NV".
UNIT = float(np.float32(2.0**-32))
TURN = float(np.float32(2.3283064e-10 * 6.2831855))


class CudaGenerator:
    """torch.Generator('cuda').manual_seed(seed): successive draws continue where the last one ended.

    Args:
        seed: -2**63 to 2**64 - 1.
        threads: what the card holds at once: its multiprocessors x the threads of each. None, the "NV" of the
            web UI, covers every tensor.

    Raises ValueError for a seed outside that range, or for threads that are no positive multiple of 256.
    """

    def __init__(self, seed: int, threads: int | None = None):
        seed = operator.index(seed)
        if not -(2**63) <= seed < 2**64:
            raise ValueError(f'Seed {seed} is out of range: torch takes -2**63 to 2**64 - 1.')
        if threads is not None and (threads < 1 or threads % THREADS_PER_BLOCK):
            raise ValueError(
                f'threads is {threads}; a grid is made of blocks of {THREADS_PER_BLOCK}, so give a multiple of it.'
            )
        self._key = seed & 0xFFFFFFFF, (seed >> 32) & 0xFFFFFFFF
        self._threads = threads
        self._calls = 0  # that every thread has made

    def randn(self, shape: Sequence[int]) -> np.ndarray:
        """torch.randn(shape, generator=self), float32, of torch's shape (C, h, w)."""
        size = math.prod(shape)
        if size == 0:
            return np.zeros(shape, np.float32)
        blocks = -(-size // THREADS_PER_BLOCK)
        threads = blocks * THREADS_PER_BLOCK
        if self._threads is not None:
            threads = min(threads, self._threads)
        turn, thread = np.divmod(np.arange(size, dtype=np.int64), threads)
        call, part = np.divmod(turn, PER_CALL)
        count = self._calls + call
        counter = np.stack([count & 0xFFFFFFFF, count >> 32, thread & 0xFFFFFFFF, thread >> 32])
        self._calls += int(call[-1]) + 1
        bits = philox4x32(counter.astype(np.uint32), self._key)
        return _box_muller(bits, part).astype(np.float32).reshape(shape)


def philox4x32(counter: np.ndarray, key: tuple[int, int]) -> np.ndarray:
    """Philox4x32-10: counters uint32 [4, N] under one key of two 32-bit words -> random uint32 [4, N]."""
    c0, c1, c2, c3 = counter.astype(np.uint64)
    k0, k1 = key
    low, half = np.uint64(0xFFFFFFFF), np.uint64(32)
    for _ in range(ROUNDS):
        a, b = c0 * np.uint64(MULTIPLIERS[0]), c2 * np.uint64(MULTIPLIERS[1])
        c0, c1, c2, c3 = (b >> half) ^ c1 ^ np.uint64(k0), b & low, (a >> half) ^ c3 ^ np.uint64(k1), a & low
        k0, k1 = (k0 + WEYL[0]) & 0xFFFFFFFF, (k1 + WEYL[1]) & 0xFFFFFFFF
    return np.stack([c0, c1, c2, c3]).astype(np.uint32)


def _box_muller(bits: np.ndarray, part: np.ndarray) -> np.ndarray:
    """One of the four normals that bits [4, N] make, by part [N]: sin, cos, sin, cos."""
    x, y = np.where(part < 2, bits[:2], bits[2:])
    radius = np.sqrt(-2 * np.log(x * UNIT + UNIT / 2))
    angle = y * TURN + TURN / 2
    return radius * np.where(part % 2 == 0, np.sin(angle), np.cos(angle))
