"""The KL autoencoder: parity with diffusers, its Gaussian, its errors.

Parity with the original code, and the parameter counts, are in tests/checkpoints/test_first_stage_layouts.py.
"""

import dataclasses
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ldm_jax import trees
from ldm_jax.checkpoints.layouts import autoencoder
from ldm_jax.models import vae
from ldm_jax.models.resnet import Downsample
from tests import oracles

torch = pytest.importorskip('torch')
diffusers = pytest.importorskip('diffusers')

FIXTURE = Path(__file__).parent / 'fixtures' / 'first_stage_kl.npz'
SMALL = vae.Model(z_channels=3, channels=32, channel_mult=(1, 1), num_res_blocks=1)
X = np.random.default_rng(1).uniform(-1, 1, (1, 8, 8, 3)).astype(np.float32)


def nchw(x):
    return torch.from_numpy(np.ascontiguousarray(np.asarray(x).transpose(0, 3, 1, 2)))


def nhwc(x):
    return x.detach().numpy().transpose(0, 2, 3, 1)


@pytest.fixture(scope='module')
def variables():
    rng = np.random.default_rng(0)
    shapes = trees.shapes(SMALL, size=8)
    return {'params': jax.tree.map(lambda s: 0.1 * rng.standard_normal(s.shape, np.float32), shapes)}


@pytest.fixture(scope='module')
def outputs(variables):
    """Reconstruction and moments of X, decoded from the mean."""
    return jax.jit(SMALL.apply)(variables, X)


def test_parity_with_diffusers():
    model = vae.Model(
        z_channels=2,
        channels=32,
        channel_mult=(1, 2),
        num_res_blocks=1,
        attention_levels=(1,),
        dtype=jnp.float64,
    )
    reference = diffusers.AutoencoderKL(
        down_block_types=('DownEncoderBlock2D', 'AttnDownEncoderBlock2D'),
        up_block_types=('AttnUpDecoderBlock2D', 'UpDecoderBlock2D'),
        block_out_channels=(32, 64),
        layers_per_block=1,
        latent_channels=2,
    ).double()
    oracles.randomize(reference)
    rng = np.random.default_rng(1)
    x, eps = rng.uniform(-1, 1, (2, 10, 6, 3)), rng.standard_normal((2, 5, 3, 2))  # odd latents
    with torch.no_grad():
        posterior = reference.encode(nchw(x)).latent_dist
        image = reference.decode(posterior.mean + posterior.std * nchw(eps)).sample
        theirs = nhwc(image), nhwc(posterior.parameters)

    layout, state = autoencoder.layout(model, 'diffusers'), oracles.tensors(reference)
    with oracles.float64():
        params = oracles.params_like(model, layout, state, size=8)
        ours = jax.jit(model.apply)({'params': params}, x, eps)
    for mine, exact in zip(ours, theirs, strict=True):
        assert oracles.relative_error(mine, exact) < 1e-9

    model = dataclasses.replace(model, dtype=jnp.float32)
    ours = jax.jit(model.apply)({'params': trees.cast(params, jnp.float32)}, x, eps)
    for mine, exact in zip(ours, theirs, strict=True):
        assert mine.dtype == jnp.float32
        assert oracles.relative_error(mine, exact) < 1e-5


@pytest.mark.slow
@pytest.mark.parametrize('wrap', ['xy', 'y'])
def test_going_round_is_that_of_torch_and_moves_with_the_image(wrap):
    model = dataclasses.replace(SMALL, wrap=wrap, channel_mult=(1, 2), dtype=jnp.float64)
    reference = diffusers.AutoencoderKL(
        down_block_types=('DownEncoderBlock2D',) * 2,
        up_block_types=('UpDecoderBlock2D',) * 2,
        block_out_channels=(32, 64),
        layers_per_block=1,
        latent_channels=3,
    ).double()
    oracles.randomize(reference)
    oracles.go_round(reference, wrap)
    x = np.random.default_rng(1).uniform(-1, 1, (1, 12, 8, 3))
    with torch.no_grad():
        posterior = reference.encode(nchw(x)).latent_dist
        theirs = nhwc(reference.decode(posterior.mean).sample), nhwc(posterior.parameters)

    def moved(a, pixels):
        steps = pixels * a.shape[1] // 12, (pixels * a.shape[2] // 8 if wrap == 'xy' else 0)
        return np.roll(a, steps, axis=(1, 2))

    with oracles.float64():
        layout = autoencoder.layout(model, 'diffusers')
        params = oracles.params_like(model, layout, oracles.tensors(reference), size=8)
        run = jax.jit(model.apply)
        for pixels in (0, 2):
            ours = run({'params': params}, moved(x, pixels))
            for mine, exact in zip(ours, theirs, strict=True):
                assert oracles.relative_error(mine, moved(exact, pixels)) < 1e-9


def test_downsampling_pads_right_and_bottom_only():
    x = np.zeros((1, 4, 6, 1), np.float32)
    x[0, 0, 0] = 1  # is in the first window only, x[1, 1] would be were the padding on all sides
    x[0, 3, 5] = 10
    ones = {'conv': {'kernel': jnp.ones((3, 3, 1, 1)), 'bias': jnp.zeros(1)}}
    out = Downsample((0, 1)).apply({'params': ones}, x)
    np.testing.assert_array_equal(out[0, :, :, 0], [[1, 0, 0], [0, 0, 10]])
    x[0, 2, 2] = 100  # on the corner of four windows
    out = Downsample((0, 1)).apply({'params': ones}, x)
    np.testing.assert_array_equal(out[0, :, :, 0], [[101, 100, 0], [100, 100, 10]])


def test_gaussian_is_clamped_and_measured_as_the_original_s():
    kept = np.load(FIXTURE)
    with oracles.float64():
        moments = jnp.asarray(kept['wide_moments'])
        mean, logvar = vae.mean_logvar(moments)
        eps = np.random.default_rng(0).standard_normal(mean.shape)
        sample = vae.sample(moments, eps)
        kl = vae.kl_divergence(moments)
        mode = vae.sample(moments, None)
    raw = kept['wide_moments'][..., 2:]
    assert (raw > 20).any()
    assert (raw < -30).any()
    np.testing.assert_array_equal(mean, kept['wide_mean'])
    np.testing.assert_array_equal(logvar, np.clip(raw, -30, 20))
    np.testing.assert_allclose(sample, kept['wide_mean'] + kept['wide_std'] * eps, rtol=1e-13)
    np.testing.assert_allclose(kl, kept['wide_kl'], rtol=1e-13)
    np.testing.assert_array_equal(mode, kept['wide_mean'])


def test_kl_divergence_is_that_of_two_normals():
    moments = np.random.default_rng(0).standard_normal((3, 4, 5, 6))
    mean, logvar = torch.from_numpy(moments).chunk(2, dim=-1)
    posterior = torch.distributions.Normal(mean, torch.exp(logvar / 2))
    expected = torch.distributions.kl_divergence(posterior, torch.distributions.Normal(0.0, 1.0)).sum(
        (1, 2, 3)
    )
    with oracles.float64():
        np.testing.assert_allclose(vae.kl_divergence(jnp.asarray(moments)), expected.numpy(), rtol=1e-12)
    np.testing.assert_array_equal(vae.kl_divergence(jnp.zeros((2, 3, 3, 8))), [0, 0])


@pytest.mark.slow
def test_latents_are_the_posterior_s_mean_or_sample(variables, outputs):
    eps = np.random.default_rng(2).standard_normal((1, 4, 4, 3), np.float32)
    mean, logvar = vae.mean_logvar(outputs[1])

    @jax.jit
    def run(variables, x, eps):
        mode, sample = (SMALL.apply(variables, x, noise, method='latents') for noise in (None, eps))
        image = SMALL.apply(variables, sample, method='decode')
        return mode, sample, image, SMALL.apply(variables, x, eps)[0]

    mode, sample, image, whole = run(variables, X, eps)
    np.testing.assert_allclose(mode, mean, atol=1e-6)
    np.testing.assert_allclose(sample, mean + jnp.exp(logvar / 2) * eps, atol=1e-6)
    assert oracles.relative_error(image, whole) < 1e-6
    assert oracles.relative_error(image, outputs[0]) > 1e-2


@pytest.mark.slow
def test_bfloat16_is_finite_and_near(variables, outputs):
    narrow = jax.jit(dataclasses.replace(SMALL, dtype=jnp.bfloat16).apply)(variables, X)
    for ours, exact in zip(narrow, outputs, strict=True):
        assert ours.dtype == jnp.bfloat16
        assert oracles.relative_error(ours, exact) < 0.05
    assert vae.sample(narrow[1], None).dtype == jnp.float32


@pytest.mark.slow
def test_remat_changes_neither_outputs_nor_gradients(variables):
    def value_and_grad(model):
        def loss(params):
            image, moments = model.apply({'params': params}, X)
            return jnp.mean((image - X) ** 2) + 1e-3 * jnp.mean(vae.kl_divergence(moments))

        return jax.jit(jax.value_and_grad(loss))(variables['params'])

    plain, saved = value_and_grad(SMALL), value_and_grad(dataclasses.replace(SMALL, remat=True))
    assert oracles.relative_error(saved[0], plain[0]) < 1e-6
    # Over the largest gradient: softmax does not change with the bias of k, whose gradient is rounding alone.
    scale = max(float(jnp.abs(exact).max()) for exact in jax.tree.leaves(plain[1]))
    for mine, exact in zip(jax.tree.leaves(saved[1]), jax.tree.leaves(plain[1]), strict=True):
        np.testing.assert_allclose(mine, exact, atol=1e-5 * scale, rtol=0)


@pytest.mark.parametrize(
    ('method', 'shape', 'message'),
    [
        ('encode', (1, 8, 8, 4), r'images \[B, H, W, 3\]; got \(1, 8, 8, 4\)'),
        ('encode', (8, 8, 3), r'images \[B, H, W, 3\]; got \(8, 8, 3\)'),
        ('encode', (1, 8, 9, 3), 'multiples of 2; got 8 x 9. Resize or pad to 8 x 8'),
        ('latents', (1, 1, 8, 3), 'multiples of 2; got 1 x 8. Resize or pad to 2 x 8'),
        ('decode', (1, 4, 4, 4), r'latents \[B, h, w, 3\]; got \(1, 4, 4, 4\)'),
        ('decode', (4, 4, 3), r'latents \[B, h, w, 3\]; got \(4, 4, 3\)'),
    ],
)
def test_wrong_shapes_are_errors(variables, method, shape, message):
    with pytest.raises(ValueError, match=message):
        SMALL.apply(variables, jnp.zeros(shape), method=method)


def test_unknown_axes_are_an_error():
    with pytest.raises(ValueError, match=r"axes to wrap 'both'; have \['', 'x', 'y', 'xy'\]"):
        trees.shapes(dataclasses.replace(SMALL, wrap='both'), size=8)


def test_attention_in_an_unknown_level_is_an_error():
    model = dataclasses.replace(SMALL, attention_levels=(2,))
    with pytest.raises(ValueError, match=r'attention_levels \(2,\) must lie in 0 \.\. 1'):
        trees.shapes(model, size=8)


def test_latents_of_a_stated_mean_and_deviation_are_normalized():
    """As diffusers' pipelines of Playground 2.5 do it outside of the network."""
    plain = vae.Model(channels=8, channel_mult=(1, 1), num_res_blocks=1, num_groups=4, mid_attention=False)
    mean, std = (-1.5, 2.0, 0.1, 3.0), (8.0, 6.0, 5.0, 4.0)
    model = plain.clone(latents_mean=mean, latents_std=std)
    params = trees.init(plain, jax.random.key(0))
    image, eps = (
        jax.random.normal(jax.random.key(1), (2, 8, 8, 3)),
        jax.random.normal(jax.random.key(2), (2, 4, 4, 4)),
    )

    def apply(network, *args, method):
        return jax.jit(lambda p: network.apply({'params': p}, *args, method=method))(params)

    for draws in (None, eps):
        own = apply(plain, image, draws, method='latents')
        found = apply(model, image, draws, method='latents')
        np.testing.assert_allclose(found, (own - jnp.array(mean)) / jnp.array(std), atol=1e-5)
        np.testing.assert_allclose(
            apply(model, found, method='decode'), apply(plain, own, method='decode'), atol=1e-4
        )
    for fields in (dict(latents_std=std), dict(latents_mean=mean[:3], latents_std=std[:3])):
        with pytest.raises(ValueError, match='must both have 4 numbers'):
            plain.clone(**fields)
    with pytest.raises(ValueError, match='latents_std must be above 0'):
        plain.clone(latents_mean=mean, latents_std=(0.0, *std[1:]))
