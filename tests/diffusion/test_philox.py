"""Known answers of Random123, the published values of A1111's emulation, and a grid of threads walked one by one."""

import math

import numpy as np
import pytest

from ldm_jax.diffusion.philox import CudaGenerator, philox4x32

# Random123's table for philox4x32 with ten rounds: counter, key, answer.
KNOWN = [
    ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
    ((0xFFFFFFFF,) * 4, (0xFFFFFFFF,) * 2, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
    (
        (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
        (0xA4093822, 0x299F31D0),
        (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
    ),
]


@pytest.mark.parametrize(('counter', 'key', 'answer'), KNOWN)
def test_known_answers(counter, key, answer):
    counters = np.array([counter, (1, 2, 3, 4)], np.uint32).T  # the second must not disturb the first
    np.testing.assert_array_equal(philox4x32(counters, key)[:, 0], answer)


def test_published_values_of_the_web_ui():
    # Printed before its constants became float32 numbers, which moves an angle by up to 2e-7.
    expected = [
        [-0.92466259, -0.42534415, -2.6438457, 0.14518388],
        [-0.12086647, -0.57972564, -0.62285122, -0.32838709],
        [-1.07454231, -0.36314407, -1.67105067, 2.26550497],
    ]
    np.testing.assert_allclose(CudaGenerator(0).randn((3, 4)), expected, rtol=0, atol=4e-7)


def grid_stride(seed, offset, size, threads):
    """torch's kernel and cuRAND's curand_normal4 as they are written: loops over threads and calls."""
    key = seed & 0xFFFFFFFF, seed >> 32
    threads = min(threads, math.ceil(size / 256) * 256)
    out, calls = [None] * size, 0
    for thread in range(threads):
        calls = 0
        for start in range(thread, math.ceil(size / (threads * 4)) * threads * 4, threads * 4):
            counter = np.array([[offset + calls], [0], [thread], [0]], np.uint32)
            x, y, z, w = (float(v) for v in philox4x32(counter, key)[:, 0])
            four = []
            for u, v in ((x, y), (z, w)):
                radius = math.sqrt(-2 * math.log((u + 0.5) * 2.0**-32))
                angle = (v + 0.5) * 2.0**-32 * 2 * math.pi
                four += [radius * math.sin(angle), radius * math.cos(angle)]
            for k in range(4):
                if start + k * threads < size:
                    out[start + k * threads] = four[k]
            calls += 1
    return np.array(out), offset + calls


@pytest.mark.parametrize('size', [1, 255, 256, 257, 600, 1024, 2048, 2049, 5000])
def test_a_card_with_few_threads(size):
    generator, offset = CudaGenerator(2**40 + 5, threads=512), 0
    for _ in range(2):  # the second draw starts where the calls of the first ended
        expected, offset = grid_stride(2**40 + 5, offset, size, 512)
        np.testing.assert_allclose(generator.randn((size,)), expected, rtol=0, atol=2e-6)


def test_threads_enough_for_a_tensor_change_nothing():
    ours, card = CudaGenerator(3), CudaGenerator(3, threads=40 * 1024)
    for _ in range(2):
        np.testing.assert_array_equal(ours.randn((4, 64, 64)), card.randn((4, 64, 64)))
    assert (ours.randn((4, 128, 128)) != card.randn((4, 128, 128))).any()


def test_seeds_reach_beyond_32_bits():
    first, second = (CudaGenerator(seed).randn((16,)) for seed in (1, 1 + 2**32))
    assert (first != second).all()
    np.testing.assert_array_equal(CudaGenerator(-1).randn((16,)), CudaGenerator(2**64 - 1).randn((16,)))


def test_draws_are_standard_normal():
    values = CudaGenerator(11, threads=1024).randn((2**18,)).astype(np.float64)
    assert abs(values.mean()) < 0.01
    assert abs(values.std() - 1) < 0.01
    assert abs((values**3).mean()) < 0.03
    assert abs(np.corrcoef(values[:-1], values[1:])[0, 1]) < 0.01


def test_an_empty_draw():
    generator = CudaGenerator(0)
    assert generator.randn((0, 3)).shape == (0, 3)
    np.testing.assert_array_equal(generator.randn((5,)), CudaGenerator(0).randn((5,)))


@pytest.mark.parametrize('seed', [2**64, -(2**63) - 1])
def test_seeds_out_of_range(seed):
    with pytest.raises(ValueError, match=f'Seed {seed} is out of range'):
        CudaGenerator(seed)


@pytest.mark.parametrize('threads', [0, 100, -256])
def test_threads_are_whole_blocks(threads):
    with pytest.raises(ValueError, match=f'threads is {threads}; a grid is made of blocks of 256'):
        CudaGenerator(0, threads)
