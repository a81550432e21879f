"""torch.randn of a CPU generator, to the last bit, without torch.

Bits come from MT19937 and become uniform numbers in [0, 1) of as many bits as the type has (24 of 32, 53 of 64).
A draw of 16 numbers or more is made in blocks of 16 by Box and Muller's transform: with u1 the first eight and u2
the last eight of a block,

    sqrt(-2 log(1 - u1)) cos(2 pi u2)  and  sqrt(-2 log(1 - u1)) sin(2 pi u2)

are its first and last eight normals. When the length is no multiple of 16, the last 16 are made again from fresh
bits. Fewer than 16 numbers are made one by one in float64, two of a pair; the second waits in the generator for the
next short draw.

float32 goes through Cephes' logf, sinf and cosf in torch's vectorised form, whose multiplications and additions the
compiler fuses. Each fused operation rounds once, and so do they here: that makes the last bit equal. It equals torch
on x86-64 Linux with AVX2 or AVX-512 (both give the same numbers); where torch falls back to scalar code
(ATEN_CPU_CAPABILITY=default, ARM), two values in five differ in the last bits, by 3e-6 at most.

Ref: Matsumoto & Nishimura 1998, doi:10.1145/272991.272995; Box & Muller 1958, doi:10.1214/aoms/1177706645.
"""

from __future__ import annotations

import functools
import math
import operator
from collections.abc import Callable, Sequence

import ml_dtypes
import numpy as np

DTYPES = ('float16', 'bfloat16', 'float32', 'float64')
BLOCK = 16

# Cephes: logf on [sqrt(1/2), sqrt(2)], sinf and cosf on [-pi/4, pi/4], highest power first; log(2) and pi/4 in parts,
# the large ones of so few bits that a small integer times them is exact.
LOG = (
    7.0376836292e-2, -1.1514610310e-1, 1.1676998740e-1, -1.2420140846e-1, 1.4249322787e-1,
    -1.6668057665e-1, 2.0000714765e-1, -2.4999993993e-1, 3.3333331174e-1,
)  # fmt: skip
SIN = (-1.9515295891e-4, 8.3321608736e-3, -1.6666654611e-1)
COS = (2.443315711809948e-5, -1.388731625493765e-3, 4.166664568298827e-2)
LOG2 = (-2.12194440e-4, 0.693359375)
QUARTER_PI = (0.78515625, 2.4187564849853515625e-4, 3.77489497744594108e-8)


class CpuGenerator:
    """torch.Generator().manual_seed(seed): successive draws continue where the last one ended.

    Args:
        seed: -2**63 to 2**64 - 1. Only its low 32 bits count, as in torch.

    Raises ValueError for a seed outside that range.
    """

    def __init__(self, seed: int):
        seed = operator.index(seed)
        if not -(2**63) <= seed < 2**64:
            raise ValueError(f'Seed {seed} is out of range: torch takes -2**63 to 2**64 - 1.')
        self._bits = np.random.RandomState(seed & 0xFFFFFFFF)  # which sets MT19937 up as torch does
        self._waiting: float | None = None

    def randn(self, shape: Sequence[int], dtype: str = 'float32') -> np.ndarray:
        """torch.randn(shape, generator=self, dtype=dtype), of torch's shape (C, h, w).

        float16 and bfloat16 are float32 rounded, as in torch 2.13; older releases drew in the type itself.

        Raises ValueError for another dtype than float16, bfloat16, float32 and float64.
        """
        if dtype not in DTYPES:
            raise ValueError(f'No noise of dtype {dtype!r}; have {list(DTYPES)}.')
        kind = ml_dtypes.bfloat16 if dtype == 'bfloat16' else np.dtype(dtype)
        size = math.prod(shape)
        if size < BLOCK:
            values = np.array([self._one() for _ in range(size)], np.float64)
        elif dtype == 'float64':
            values = self._blocks(size, self._uniform64, _box_muller64)
        else:
            # The short types go through a buffer of one block: the tail follows the last whole block at once.
            values = self._blocks(size, self._uniform32, _box_muller32, drawn=dtype == 'float32')
        return values.astype(kind).reshape(shape)

    def _blocks(self, size: int, uniform: Callable, box_muller: Callable, drawn: bool = True) -> np.ndarray:
        """Normals [size]. `drawn`: bits are drawn for the incomplete last block too, and thrown away."""
        tail = size % BLOCK
        u = uniform(size if drawn else size - tail)
        values = np.empty(size, u.dtype)
        values[: size - tail] = box_muller(u[: size - tail].reshape(-1, 2, BLOCK // 2)).ravel()
        if tail:
            values[-BLOCK:] = box_muller(uniform(BLOCK).reshape(1, 2, BLOCK // 2)).ravel()
        return values

    def _uniform32(self, size: int) -> np.ndarray:
        return (self._raw(size) & 0xFFFFFF).astype(np.float32) * np.float32(2.0**-24)

    def _uniform64(self, size: int) -> np.ndarray:
        high, low = self._raw(2 * size).astype(np.uint64).reshape(size, 2).T
        return ((high << np.uint64(32) | low) & np.uint64(2**53 - 1)).astype(np.float64) * 2.0**-53

    def _raw(self, size: int) -> np.ndarray:
        return self._bits.randint(0, 2**32, size=size, dtype=np.uint32)

    def _one(self) -> float:
        if self._waiting is not None:
            value, self._waiting = self._waiting, None
            return value
        u1, u2 = self._uniform64(2).tolist()
        radius = math.sqrt(-2 * math.log1p(-u2))
        self._waiting = radius * math.sin(2 * math.pi * u1)
        return radius * math.cos(2 * math.pi * u1)


def _box_muller64(u: np.ndarray) -> np.ndarray:
    """Uniform float64 [N, 2, 8] -> normals of that shape."""

    # The C library's functions through `math`, which torch calls too: numpy's own may differ in the last bit.
    def each(function, x):
        return np.array([function(value) for value in x.ravel().tolist()]).reshape(x.shape)

    radius = np.sqrt(-2 * each(math.log, 1 - u[:, 0]))
    theta = 2 * math.pi * u[:, 1]
    return np.stack([radius * each(math.cos, theta), radius * each(math.sin, theta)], 1)


def _box_muller32(u: np.ndarray) -> np.ndarray:
    """Uniform float32 [N, 2, 8] -> normals of that shape."""
    radius = np.sqrt(np.float32(-2) * _log(np.float32(1) - u[:, 0]))
    sin, cos = _sincos(np.float32(2 * math.pi) * u[:, 1])
    # The mean, 0, takes the sign off -0.
    return np.stack([radius * cos, radius * sin], 1) + np.float32(0)


def _log(x: np.ndarray) -> np.ndarray:
    """log of normal positive float32."""
    mantissa, exponent = np.frexp(x)  # in [1/2, 1)
    low = mantissa < np.float32(math.sqrt(0.5))
    mantissa = np.where(low, mantissa + mantissa, mantissa) - np.float32(1)
    exponent = (exponent - low).astype(np.float32)
    square = mantissa * mantissa
    y = _polynomial(LOG, mantissa) * mantissa
    y = _fma(y, square, exponent * np.float32(LOG2[0])) - square * np.float32(0.5)
    return mantissa + y + exponent * np.float32(LOG2[1])


def _sincos(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """sin and cos of float32 in [0, 2 pi]."""
    octant = (x * np.float32(4 / math.pi)).astype(np.int32)
    octant = (octant + 1) & ~1  # the nearest multiple of pi / 2, in eighths of a turn
    for part in QUARTER_PI:
        x = _fma(octant.astype(np.float32), np.float32(-part), x)
    square = x * x
    cos = _polynomial(COS, square) * square
    cos = _fma(cos, square, square * np.float32(-0.5)) + np.float32(1)
    sin = _fma(_polynomial(SIN, square) * square, x, x)
    swap = octant & 2 != 0
    sin, cos = np.where(swap, cos, sin), np.where(swap, sin, cos)
    return np.where(octant & 4, -sin, sin), np.where((octant + 2) & 4, -cos, cos)


def _polynomial(coefficients: Sequence[float], x: np.ndarray) -> np.ndarray:
    return functools.reduce(
        lambda y, c: _fma(y, x, np.float32(c)), coefficients[1:], np.float32(coefficients[0])
    )


def _fma(a: np.ndarray, b: np.ndarray, c: np.ndarray) -> np.ndarray:
    """float32 a b + c with one rounding.

    The product is exact in float64, the sum is not: rounding it to float64 and then to float32 would round twice.
    A sum that is not exact is therefore moved to the neighbour with an odd last bit, which no later rounding to
    fewer bits mistakes for a tie. Ref: Boldo & Melquiond 2008, doi:10.1109/TC.2007.70819.
    """
    product = np.multiply(a, b, dtype=np.float64)
    total = product + c
    added = total - product
    error = (product - (total - added)) + (c - added)  # exact: Knuth's two-sum
    bits = total.view(np.int64)
    inexact_even = (error != 0) & (bits & 1 == 0)
    away = (error > 0) == (total > 0)  # from zero: one more in the bits
    return (bits + inexact_even * np.where(away, 1, -1)).view(np.float64).astype(np.float32)
