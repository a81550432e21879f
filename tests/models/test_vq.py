"""The VQ autoencoder: parity with diffusers, outputs and gradients, and what decoding does with codes.

Parity with the original code, and the parameter counts, are in tests/checkpoints/test_first_stage_layouts.py.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ldm_jax import trees
from ldm_jax.checkpoints import apply_layout
from ldm_jax.checkpoints.layouts import autoencoder
from ldm_jax.models import vq
from tests import oracles

torch = pytest.importorskip('torch')
diffusers = pytest.importorskip('diffusers')

SMALL = vq.Model(num_codes=16, channels=32, channel_mult=(1, 1), num_res_blocks=1, mid_attention=False)
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


@pytest.fixture(scope='module')
def latents(variables):
    """The latents of X, before quantization."""
    return jax.jit(SMALL.apply, static_argnames='method')(variables, X, method='latents')


@pytest.mark.slow
def test_outputs_and_gradients_are_those_of_diffusers():
    model = vq.Model(
        num_codes=24,
        z_channels=4,
        channels=32,
        channel_mult=(1,),
        num_res_blocks=1,
        attention_levels=(0,),
        dtype=jnp.float64,
    )
    reference = diffusers.VQModel(
        down_block_types=('AttnDownEncoderBlock2D',),
        up_block_types=('AttnUpDecoderBlock2D',),
        block_out_channels=(32,),
        layers_per_block=1,
        latent_channels=4,
        num_vq_embeddings=24,
    ).double()
    oracles.randomize(reference)
    x = np.random.default_rng(1).uniform(-1, 1, (2, 5, 3, 3))
    z = reference.encode(nchw(x)).latents
    codes, loss, (_, _, indices) = reference.quantize(z)
    image = reference.decode(codes, force_not_quantize=True).sample
    (torch.mean((image - nchw(x)) ** 2) + 0.7 * loss).backward()
    assert len(np.unique(indices)) > 3

    def total(params, x, model):
        image, loss, indices = model.apply({'params': params}, x)
        return jnp.mean((image - x) ** 2) + 0.7 * loss, (image, loss, indices)

    layout, state = autoencoder.layout(model, 'diffusers'), oracles.tensors(reference)
    with oracles.float64():
        params = oracles.params_like(model, layout, state, size=8)
        grads, ours = jax.jit(jax.grad(total, has_aux=True), static_argnums=2)(params, x, model)
    np.testing.assert_array_equal(ours[2].reshape(-1), indices)
    assert oracles.relative_error(ours[0], nhwc(image)) < 1e-9
    assert oracles.relative_error(ours[1], loss.detach()) < 1e-9
    theirs = {name: parameter.grad.numpy() for name, parameter in reference.named_parameters()}
    for name, grad in apply_layout.export_params(layout, grads).items():
        # Biases before a softmax or a norm cancel: their gradients are rounding, hence an absolute tolerance.
        np.testing.assert_allclose(grad, theirs[name], rtol=1e-9, atol=1e-14, err_msg=name)

    model = dataclasses.replace(model, dtype=jnp.float32)
    ours = jax.jit(model.apply)({'params': trees.cast(params, jnp.float32)}, x)
    np.testing.assert_array_equal(ours[2].reshape(-1), indices)
    assert oracles.relative_error(ours[0], nhwc(image)) < 1e-5
    assert oracles.relative_error(ours[1], loss.detach()) < 1e-5


@pytest.mark.slow
def test_decoding_quantizes_unless_told_not_to(variables, latents):
    @jax.jit
    def run(variables, x, z):
        codes, _, indices = SMALL.apply(variables, z, method='quantize')
        decoded = SMALL.apply(variables, z, method='decode')
        plain = SMALL.apply(variables, codes, quantize=False, method='decode')
        return codes, indices, decoded, plain, SMALL.apply(variables, x)

    codes, indices, decoded, plain, (image, _, of_image) = run(variables, X, latents)
    table = variables['params']['quantizer']['embedding']
    np.testing.assert_allclose(codes, table[indices], atol=1e-6)
    np.testing.assert_array_equal(of_image, indices)
    assert oracles.relative_error(decoded, plain) < 1e-6
    assert oracles.relative_error(image, plain) < 1e-6
    assert oracles.relative_error(latents, codes) > 1e-2  # diffusion sees what is not yet quantized


def test_bfloat16_latents_are_near_and_float32(variables, latents):
    model = dataclasses.replace(SMALL, dtype=jnp.bfloat16)
    z = jax.jit(model.apply, static_argnames='method')(variables, X, method='latents')
    assert z.dtype == jnp.float32
    assert oracles.relative_error(z, latents) < 0.05


@pytest.mark.parametrize(
    ('method', 'shape', 'message'),
    [
        ('encode', (1, 8, 8, 4), r'images \[B, H, W, 3\]; got \(1, 8, 8, 4\)'),
        ('latents', (1, 8, 9, 3), 'multiples of 2; got 8 x 9. Resize or pad to 8 x 8'),
        ('decode', (1, 4, 4, 4), r'latents \[B, h, w, 3\]; got \(1, 4, 4, 4\)'),
        ('quantize', (1, 4, 4, 4), r'latents \[B, h, w, 3\]; got \(1, 4, 4, 4\)'),
    ],
)
def test_wrong_shapes_are_errors(variables, method, shape, message):
    with pytest.raises(ValueError, match=message):
        SMALL.apply(variables, jnp.zeros(shape), method=method)
