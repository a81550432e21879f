import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ldm_jax.diffusion import noise_sources
from ldm_jax.diffusion.philox import CudaGenerator

SHAPE = (6, 8, 4)  # h, w, C


@pytest.mark.parametrize('source', noise_sources.SOURCES)
def test_an_image_depends_on_its_own_seed_alone(source):
    both = noise_sources.noise(source, [5, 2**33 + 1], SHAPE)
    assert both.dtype == np.float32
    assert both.shape == (2, *SHAPE)
    np.testing.assert_array_equal(both[1:], noise_sources.noise(source, [2**33 + 1], SHAPE))
    np.testing.assert_array_equal(both[::-1], noise_sources.noise(source, [2**33 + 1, 5], SHAPE))
    assert (both[0] != both[1]).all()


def test_torch_noise_is_turned_to_channels_last():
    torch = pytest.importorskip('torch')
    ours = noise_sources.noise('torch_cpu', [3, 4], SHAPE)
    for image, seed in zip(ours, (3, 4), strict=True):
        theirs = torch.randn(4, 6, 8, generator=torch.Generator().manual_seed(seed))
        # Nothing to the last bit here, so that it holds on every machine; test_torch_noise.py is about bits.
        np.testing.assert_allclose(image, theirs.permute(1, 2, 0).numpy(), rtol=0, atol=4e-6)


def test_draws_of_different_shapes_follow_each_other_in_one_generator():
    torch = pytest.importorskip('torch')
    pixels, vector, latents = noise_sources.noises('torch_cpu', [3, 4], [(5, 3, 3), (12,), SHAPE])
    for i, seed in enumerate((3, 4)):
        generator = torch.Generator().manual_seed(seed)
        for ours, shape in ((pixels, (3, 5, 3)), (vector, (12,)), (latents, (4, 6, 8))):
            theirs = np.moveaxis(torch.randn(shape, generator=generator).numpy(), 0, -1)
            np.testing.assert_allclose(ours[i], theirs, rtol=0, atol=4e-6)


@pytest.mark.parametrize('source', noise_sources.SOURCES)
def test_a_draw_is_the_last_of_so_many(source):
    first, second = noise_sources.noises(source, [7], [SHAPE, SHAPE])
    np.testing.assert_array_equal(noise_sources.noise(source, [7], SHAPE), first)
    np.testing.assert_array_equal(noise_sources.noise(source, [7], SHAPE, draw=1), second)
    assert abs(np.corrcoef(first.ravel(), second.ravel())[0, 1]) < 0.3


def test_cuda_noise_is_turned_to_channels_last():
    image = noise_sources.noise('torch_cuda', [3], SHAPE)[0]
    np.testing.assert_array_equal(image.transpose(2, 0, 1), CudaGenerator(3).randn((4, 6, 8)))


def test_jax_noise_leaves_the_other_half_of_the_key_to_the_sampler():
    key, other = jax.random.split(jax.random.key(9, impl='philox4x32'))
    ours = noise_sources.noise('jax', [9], SHAPE)[0]
    np.testing.assert_array_equal(ours, jax.random.normal(key, SHAPE, jnp.float32))
    assert (ours != jax.random.normal(other, SHAPE, jnp.float32)).all()


@pytest.mark.parametrize('seed', [-1, 2**32 - 1, 2**53])
def test_jax_noise_takes_every_integer(seed):
    assert np.isfinite(noise_sources.noise('jax', [seed], SHAPE)).all()


def test_an_unknown_source_is_answered_with_those_there_are():
    with pytest.raises(
        ValueError, match=r"No noise source 'torch_gpu'; have \['jax', 'torch_cpu', 'torch_cuda'\]"
    ):
        noise_sources.noise('torch_gpu', [0], SHAPE)
