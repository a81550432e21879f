"""The tiny autoencoder: parity with diffusers, and published weights with the numbers they gave.

Parity of the variant with norms and parameter counts are in tests/checkpoints/test_first_stage_layouts.py.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ldm_jax import trees
from ldm_jax.checkpoints.layouts import taesd as layouts
from ldm_jax.models import taesd
from tests import oracles
from tests.shared_data import shared
from tests.tiers import fast

torch = pytest.importorskip('torch')
diffusers = pytest.importorskip('diffusers')

SMALL = taesd.Model(channels=16, num_blocks=(1, 1), mid_norm=True)
X = np.random.default_rng(1).uniform(-1, 1, (1, 8, 8, 3)).astype(np.float32)


def nchw(x):
    return torch.from_numpy(np.ascontiguousarray(np.asarray(x).transpose(0, 3, 1, 2)))


def nhwc(x):
    return x.detach().numpy().transpose(0, 2, 3, 1)


@pytest.fixture(scope='module')
def variables():
    rng = np.random.default_rng(0)
    shapes = trees.shapes(SMALL, size=8)
    return {'params': jax.tree.map(lambda s: 0.2 * rng.standard_normal(s.shape, np.float32), shapes)}


@pytest.mark.parametrize('wrap', fast(1, ['xy', '']))
def test_parity_with_diffusers(wrap):
    model = taesd.Model(z_channels=6, channels=16, num_blocks=(1, 2, 3), wrap=wrap, dtype=jnp.float64)
    reference = diffusers.AutoencoderTiny(
        encoder_block_out_channels=(16, 16, 16),
        decoder_block_out_channels=(16, 16, 16),
        num_encoder_blocks=(1, 2, 3),
        num_decoder_blocks=(3, 2, 1),
        latent_channels=6,
    ).double()
    oracles.randomize(reference)
    if wrap:
        oracles.go_round(reference, wrap)
    rng = np.random.default_rng(1)
    x, z = rng.uniform(-1, 1, (2, 20, 12, 3)), 3 * rng.standard_normal((2, 5, 3, 6))
    with torch.no_grad():
        theirs = nhwc(reference.encode(nchw(x)).latents), nhwc(reference.decode(nchw(z)).sample)

    def run(params, x, z, model):
        latents = model.apply({'params': params}, x, method='latents')
        return latents, model.apply({'params': params}, z, method='decode')

    run = jax.jit(run, static_argnums=3)
    layout, state = layouts.layout(model, 'diffusers'), oracles.tensors(reference)
    with oracles.float64():
        params = oracles.params_like(model, layout, state, size=8)
        ours = run(params, x, z, model)
    for mine, exact in zip(ours, theirs, strict=True):
        assert oracles.relative_error(mine, exact) < 1e-9

    ours = run(trees.cast(params, jnp.float32), x, z, dataclasses.replace(model, dtype=jnp.float32))
    for mine, exact in zip(ours, theirs, strict=True):
        assert mine.dtype == jnp.float32
        assert oracles.relative_error(mine, exact) < 1e-5


def test_published_weights_give_the_published_numbers():
    files = [shared(f'weights/taef2_{half}.pth') for half in ('encoder', 'decoder')]
    numbers = shared('reference/taef2_kodak23_crop128.npz')
    state = {
        f'{half}.{key}': value.numpy()
        for half, path in zip(('encoder', 'decoder'), files, strict=True)
        for key, value in torch.load(path, weights_only=True, map_location='cpu').items()
    }
    kept = np.load(numbers)
    model = taesd.Model(z_channels=32, mid_norm=True)
    params = oracles.params_like(model, layouts.layout(model), state)
    pixels = kept['image_uint8'][None] / np.float32(255)
    image, z = jax.jit(model.apply)({'params': params}, 2 * pixels - 1)
    image = np.asarray(image + 1) / 2
    assert oracles.relative_error(z, kept['latent'].transpose(0, 2, 3, 1)) < 1e-5
    assert oracles.relative_error(image, kept['decoded'].transpose(0, 2, 3, 1)) < 1e-5
    assert -10 * np.log10(np.mean((image.clip(0, 1) - pixels) ** 2)) == pytest.approx(27.6, abs=0.05)


def test_latents_fit_in_pixels():
    z = np.array([-3.0, -1.5, 0.0, 3.0, 4.0])
    np.testing.assert_allclose(taesd.to_unit(z), [0, 0.25, 0.5, 1, 1], atol=1e-7)
    np.testing.assert_allclose(taesd.from_unit(taesd.to_unit(z)), [-3, -1.5, 0, 3, 3], atol=1e-6)


@pytest.mark.slow
def test_bfloat16_is_finite_and_near(variables):
    wide = jax.jit(SMALL.apply)(variables, X)
    narrow = jax.jit(dataclasses.replace(SMALL, dtype=jnp.bfloat16).apply)(variables, X)
    assert narrow[1].dtype == jnp.float32
    for ours, exact in zip(narrow, wide, strict=True):
        assert oracles.relative_error(ours, exact) < 0.05


@pytest.mark.slow
def test_remat_changes_neither_outputs_nor_gradients(variables):
    def value_and_grad(model):
        def loss(params):
            return jnp.mean((model.apply({'params': params}, X)[0] - X) ** 2)

        return jax.jit(jax.value_and_grad(loss))(variables['params'])

    plain, saved = value_and_grad(SMALL), value_and_grad(dataclasses.replace(SMALL, remat=True))
    assert oracles.relative_error(saved[0], plain[0]) < 1e-6
    for mine, exact in zip(jax.tree.leaves(saved[1]), jax.tree.leaves(plain[1]), strict=True):
        assert oracles.relative_error(mine, exact) < 1e-4


@pytest.mark.parametrize(
    ('method', 'shape', 'message'),
    [
        ('encode', (1, 8, 8, 4), r'images \[B, H, W, 3\]; got \(1, 8, 8, 4\)'),
        ('latents', (1, 8, 9, 3), 'multiples of 2; got 8 x 9. Resize or pad to 8 x 8'),
        ('decode', (1, 4, 4, 3), r'latents \[B, h, w, 4\]; got \(1, 4, 4, 3\)'),
    ],
)
def test_wrong_shapes_are_errors(variables, method, shape, message):
    with pytest.raises(ValueError, match=message):
        SMALL.apply(variables, jnp.zeros(shape), method=method)
