"""torch itself is the oracle, to the last bit where its vectorised code runs, signs of zeros included."""

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings

from ldm_jax.diffusion.torch_noise import CpuGenerator

torch = pytest.importorskip('torch')

VECTORISED = torch.backends.cpu.get_cpu_capability() in ('AVX2', 'AVX512')
SEEDS = [0, 1, 42, 2**31 - 1, 2**31, 2**32 - 1, 2**32, 2**53, 2**64 - 1, -1, -(2**31), -(2**63)]


def assert_same(ours, theirs):
    """ours is a numpy array, theirs a tensor of the same dtype."""
    wide, theirs = ours.astype(np.float64), theirs.double().numpy()  # which holds every shorter type exactly
    assert wide.shape == theirs.shape
    if VECTORISED or ours.dtype == np.float64:
        np.testing.assert_array_equal(wide.view(np.int64), theirs.view(np.int64))
    else:
        # A rounding the other way.
        step = {'float32': 0, 'float16': 2**-10, 'bfloat16': 2**-7}[ours.dtype.name]
        np.testing.assert_allclose(wide, theirs, rtol=step, atol=3e-6)


def torch_randn(generator, shape, dtype='float32'):
    return torch.randn(shape, generator=generator, dtype=getattr(torch, dtype))


@pytest.mark.parametrize('dtype', ['float32', 'float64', 'float16', 'bfloat16'])
def test_every_short_length(dtype):
    for size in range(70):
        ours, theirs = CpuGenerator(size), torch.Generator().manual_seed(size)
        assert_same(ours.randn((size,), dtype), torch_randn(theirs, (size,), dtype))


@pytest.mark.parametrize(
    'shape', [(4, 64, 64), (4, 96, 96), (4, 65, 77), (16, 8, 8), (3, 5, 7), (1, 1, 1), (0, 4)]
)
@pytest.mark.parametrize('dtype', ['float32', 'float64', 'float16', 'bfloat16'])
def test_latents(shape, dtype):
    ours = CpuGenerator(1234).randn(shape, dtype)
    assert ours.dtype.name == dtype
    assert_same(ours, torch_randn(torch.Generator().manual_seed(1234), shape, dtype))


@pytest.mark.parametrize('seed', SEEDS)
def test_seeds(seed):
    for shape in [(3,), (4, 8, 8)]:
        assert_same(CpuGenerator(seed).randn(shape), torch_randn(torch.Generator().manual_seed(seed), shape))


@settings(deadline=None, max_examples=100)
@given(
    seed=st.integers(-(2**63), 2**64 - 1),
    draws=st.lists(
        st.tuples(st.integers(0, 100), st.sampled_from(['float32', 'float64', 'float16', 'bfloat16'])),
        max_size=6,
    ),
)
def test_draws_follow_one_another(seed, draws):
    """Short draws leave a number waiting for the next short one, across types and longer draws."""
    ours, theirs = CpuGenerator(seed), torch.Generator().manual_seed(seed)
    for size, dtype in draws:
        assert_same(ours.randn((size,), dtype), torch_randn(theirs, (size,), dtype))


def test_a_million_values():
    """Wide enough to meet rare values: the ends of the unit interval and sums that a second rounding would break."""
    ours = CpuGenerator(7).randn((2**20,))
    assert_same(ours, torch_randn(torch.Generator().manual_seed(7), (2**20,)))
    assert ours.max() > 4
    assert ours.min() < -4


def test_errors_name_what_is_taken():
    with pytest.raises(ValueError, match=r"No noise of dtype 'int32'; have \['float16'"):
        CpuGenerator(0).randn((2,), 'int32')
    for seed in (2**64, -(2**63) - 1):
        with pytest.raises(ValueError, match=f'Seed {seed} is out of range'):
            CpuGenerator(seed)
        with pytest.raises(ValueError):
            torch.Generator().manual_seed(seed)
