"""First stages in tiles: parity with diffusers' tiles, and closed forms for evenly blended ones."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ldm_jax.checkpoints.layouts import autoencoder
from ldm_jax.inference.tiled import FirstStage
from ldm_jax.models import layers, taesd, vae
from tests import oracles

MODEL = vae.Model(z_channels=2, channels=8, channel_mult=(1, 2), num_res_blocks=1, num_groups=4)


@dataclasses.dataclass(frozen=True)
class Pixelwise:
    """Doubles the size of latents and takes every other pixel back; looks at each alone."""

    downscale: int = 2
    wrap: str = ''

    def clone(self, **fields):
        return dataclasses.replace(self, **fields)

    def apply(self, variables, x, *args, method):
        if method == 'encode':
            return jnp.tanh(x[:, ::2, ::2]) * variables
        if method == 'draw':
            return x + args[0]
        return layers.upsample_nearest(jnp.sin(x * variables))


def normal(*shape):
    return np.random.default_rng(0).standard_normal(shape).astype(np.float32)


@pytest.mark.slow
@pytest.mark.parametrize('size', [pytest.param((13, 18), marks=pytest.mark.slow), (5, 13)])
def test_parity_with_diffusers(size):
    torch, diffusers = pytest.importorskip('torch'), pytest.importorskip('diffusers')
    reference = diffusers.AutoencoderKL(
        down_block_types=('DownEncoderBlock2D',) * 2,
        up_block_types=('UpDecoderBlock2D',) * 2,
        block_out_channels=(8, 16),
        layers_per_block=1,
        latent_channels=2,
        norm_num_groups=4,
        sample_size=16,  # tiles of 8 latents, which overlap by 2
    ).double()
    oracles.randomize(reference)
    reference.enable_tiling()
    z, x = np.float64(normal(2, *size, 2)), np.float64(normal(1, 2 * size[0], 2 * size[1], 3))
    with torch.no_grad():
        theirs = (
            reference.decode(torch.tensor(z.transpose(0, 3, 1, 2))).sample,
            reference.encode(torch.tensor(x.transpose(0, 3, 1, 2))).latent_dist.parameters,
        )
    model = dataclasses.replace(MODEL, dtype=jnp.float64)
    tiled = FirstStage(model, tile=8, overlap=2, blend='diffusers')
    with oracles.float64():
        params = oracles.params_like(
            model, autoencoder.layout(model, 'diffusers'), oracles.tensors(reference), size=4
        )

        @jax.jit
        def run(params, z, x):
            tiles = [tiled.apply({'params': params}, a, method=m) for a, m in ((z, 'decode'), (x, 'encode'))]
            return tiles, model.apply({'params': params}, z, method='decode')

        ours, whole = run(params, z, x)
    for mine, exact in zip(ours, theirs, strict=True):
        assert oracles.relative_error(mine, exact.numpy().transpose(0, 2, 3, 1)) < 1e-9
    assert oracles.relative_error(ours[0], whole) > 1e-3  # tiles were taken


@pytest.mark.slow
@pytest.mark.parametrize('blend', ['even', 'diffusers'])
@pytest.mark.parametrize('size', [(13, 18), (5, 21), (8, 8), (3, 4)])
def test_what_looks_at_each_pixel_alone_does_not_notice_tiles(size, blend):
    tiled = FirstStage(Pixelwise(), tile=8, overlap=2, blend=blend)
    z, x, eps = normal(2, *size, 3), normal(2, 2 * size[0], 2 * size[1], 3), normal(2, *size, 3)
    for a, args, method in ((z, (), 'decode'), (x, (), 'encode')):
        out = tiled.apply(0.7, a, *args, method=method)
        np.testing.assert_allclose(out, Pixelwise().apply(0.7, a, *args, method=method), atol=1e-6)
    out = tiled.apply(0.7, x, eps, method='latents')
    np.testing.assert_allclose(out, np.tanh(x[:, ::2, ::2]) * 0.7 + eps, atol=1e-6)


def test_even_tiles_are_whole_and_fade_into_each_other():
    class Mean(Pixelwise):
        def apply(self, variables, x, *args, method):
            assert x.shape[1:3] in ((8, 8), (8, 12))  # the latter to see whether the image will do
            return jnp.broadcast_to(x[:, :1, :1], x.shape)

    z = jnp.zeros((1, 8, 12, 1)).at[:, :, 4].set(1.0)  # the first pixel of the second tile
    out = FirstStage(Mean(), tile=8, overlap=4).apply(None, z, method='decode')
    np.testing.assert_allclose(out[0, 3, :, 0], [0] * 4 + [0.125, 0.375, 0.625, 0.875] + [1] * 4, atol=1e-6)


@pytest.mark.parametrize(('wrap', 'size', 'shift'), [('x', (4, 12), (0, 3)), ('xy', (12, 4), (3, 1))])
def test_tiles_of_a_seamless_image_go_round_it(wrap, size, shift):
    model = taesd.Model(channels=8, num_blocks=(1, 1), wrap=wrap)
    tiled = FirstStage(model, tile=6, overlap=3)
    z = normal(1, *size, 4)

    @jax.jit
    def run(z):
        variables = model.init(jax.random.key(0), jnp.zeros((1, 8, 8, 3)))
        return tiled.apply(variables, z, method='decode')

    out = run(z)
    moved = run(np.roll(z, shift, (1, 2)))
    np.testing.assert_allclose(moved, np.roll(out, (2 * shift[0], 2 * shift[1]), (1, 2)), atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize('model', [MODEL, taesd.Model(channels=8, num_blocks=(1, 1))])
def test_latents_of_a_tiled_model_are_drawn_from_its_tiles(model):
    tiled = FirstStage(model, tile=4, overlap=1)
    x, eps = normal(1, 12, 14, 3), normal(1, 6, 7, model.z_channels)

    @jax.jit
    def run(x, eps):
        variables = model.init(jax.random.key(0), x)
        encoded = tiled.apply(variables, x, method='encode')
        small = tiled.apply(variables, x[:, :8, :8], eps[:, :4, :4], method='latents')
        exact = model.apply(variables, x[:, :8, :8], eps[:, :4, :4], method='latents')
        return encoded, tiled.apply(variables, x, eps, method='latents'), small, exact

    encoded, latents, small, exact = run(x, eps)
    np.testing.assert_allclose(latents, vae.sample(encoded, eps) if model is MODEL else encoded, atol=1e-6)
    np.testing.assert_allclose(small, exact, atol=1e-6)
    assert tiled.downscale == 2


def test_what_cannot_be_tiled_is_an_error():
    with pytest.raises(ValueError, match='size 8, overlap 8'):
        FirstStage(MODEL, tile=8, overlap=8)
    with pytest.raises(ValueError, match="blend of tiles 'smooth'; have"):
        FirstStage(MODEL, blend='smooth')
    with pytest.raises(ValueError, match=r"should \(wrap='x'\). Take blend='even'"):
        FirstStage(dataclasses.replace(MODEL, wrap='x'), blend='diffusers')
    with pytest.raises(ValueError, match='method of a tiled first stage .__call__.'):
        FirstStage(MODEL).apply({}, normal(1, 8, 8, 3), method='__call__')
    variables = jax.eval_shape(MODEL.init, jax.random.key(0), normal(1, 8, 8, 3))
    with pytest.raises(ValueError, match='multiples of 2; got 12 x 31'):
        jax.eval_shape(
            lambda v: FirstStage(MODEL, 4, 1).apply(v, normal(1, 12, 31, 3), method='encode'), variables
        )
