"""The first stage's loss against closed forms, what it trains and what it refuses. Updates: test_adversarial.py."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ldm_jax import trees
from ldm_jax.models import discriminator, lpips, vae
from ldm_jax.training.stages import first_stage, first_stage_losses
from tests import oracles
from tests.training import tiny_stages

RNG = np.random.default_rng(0)
IMAGE = RNG.uniform(-1, 1, (2, 4, 4, 3))
NO_DRAWS = None


class Linear(nn.Module):
    """x_hat = x K, with latents that are a standard normal's and so cost nothing."""

    downscale = 1

    class Decoder(nn.Module):
        @nn.compact
        def __call__(self, x):
            return nn.Dense(3, use_bias=False, dtype=x.dtype, name='conv_out')(x)

    def setup(self):
        self.decoder = self.Decoder()

    def __call__(self, x, eps=None):
        return self.decoder(x), jnp.zeros((*x.shape[:3], 2), x.dtype)


class Judge(nn.Module):
    """D(x) = x w."""

    @nn.compact
    def __call__(self, x, axis_name=None):
        return x @ self.param('w', nn.initializers.ones, (3, 1), x.dtype)


def linear_case(w, active=True, **fields):
    """(loss, metrics, gradient) of the linear stage, and K."""
    fields = dict(perceptual_weight=0.0, pixel_loss='l2', disc_weight=0.75, discriminator=Judge()) | fields
    stage = first_stage.Stage(Linear(), image_size=4, **fields)
    kernel = np.random.default_rng(1).standard_normal((3, 3))
    params = {'first_stage': {'decoder': {'conv_out': {'kernel': jnp.asarray(kernel)}}}}
    if stage.learn_logvar:
        params['logvar'] = jnp.asarray(0.3)
    adversary = first_stage_losses.Adversary({'w': jnp.asarray(w)}, jnp.asarray(active))

    @jax.jit
    def run(params):
        both = jax.value_and_grad(stage.loss, has_aux=True)
        return both(params, {'image': IMAGE}, NO_DRAWS, adversary)

    (value, metrics), gradient = run(params)
    return value, metrics, gradient, kernel


def closed_forms(kernel, w):
    """Terms and their derivatives by K: sum of squares over images, and -mean D."""
    x = IMAGE.reshape(-1, 3)
    error = x @ kernel - x
    return (
        (error**2).sum() / 2,
        2 * x.T @ error / 2,
        -(x @ kernel @ w).mean(),
        -(x.mean(axis=0)[:, None] * w.T),
    )


def test_the_adaptive_weight_is_its_definition():
    w = np.array([[0.7], [-0.4], [0.2]])
    with oracles.float64():
        value, metrics, gradient, kernel = linear_case(w)
    nll, d_nll, g, d_g = closed_forms(kernel, w)
    weight = 0.75 * np.linalg.norm(d_nll) / (np.linalg.norm(d_g) + 1e-4)
    assert float(metrics['disc_weight']) == pytest.approx(weight, rel=1e-12)
    assert float(metrics['g_loss']) == pytest.approx(g, rel=1e-12)
    assert float(value) == pytest.approx(nll + weight * g, rel=1e-12)
    found = gradient['first_stage']['decoder']['conv_out']['kernel']
    np.testing.assert_allclose(found, d_nll + weight * d_g, rtol=1e-12)


def test_the_adaptive_weight_is_bounded():
    with oracles.float64():
        _, metrics, _, _ = linear_case(np.zeros((3, 1)))
    assert float(metrics['disc_weight']) == 0.75 * 1e4


def test_an_adversary_that_waits_leaves_the_loss_alone():
    w = np.array([[0.7], [-0.4], [np.nan]])
    with oracles.float64():
        value, metrics, gradient, kernel = linear_case(w, active=False)
        assert metrics['disc_weight'] == metrics['g_loss'] == 0
    nll, d_nll, _, _ = closed_forms(kernel, w)
    assert float(value) == pytest.approx(nll, rel=1e-12)
    np.testing.assert_allclose(gradient['first_stage']['decoder']['conv_out']['kernel'], d_nll, rtol=1e-12)


def test_the_log_variance_is_learned_when_asked():
    w = np.array([[0.7], [-0.4], [0.2]])
    with oracles.float64():
        value, metrics, gradient, kernel = linear_case(w, learn_logvar=True, disc_weight=0.0)
    nll, d_nll, _, _ = closed_forms(kernel, w)
    size = IMAGE[0].size
    assert float(value) == pytest.approx(nll / np.exp(0.3) + size * 0.3, rel=1e-12)
    assert float(gradient['logvar']) == pytest.approx(size - nll / np.exp(0.3), rel=1e-12)
    np.testing.assert_allclose(
        gradient['first_stage']['decoder']['conv_out']['kernel'], d_nll / np.exp(0.3), rtol=1e-12
    )
    assert float(metrics['logvar']) == 0.3


@pytest.mark.slow
def test_the_kl_term_is_weighed_per_image():
    stage = first_stage.Stage(tiny_stages.Kl(), image_size=16, perceptual_weight=0.0, kl_weight=0.5)
    params = stage.init(jax.random.key(0))
    image = jnp.asarray(RNG.uniform(-1, 1, (3, 16, 16, 3)), jnp.float32)
    value, metrics = stage.loss(params, {'image': image}, NO_DRAWS)
    fake, moments = stage.first_stage.apply({'params': params['first_stage']}, image)
    kl = float(jnp.mean(vae.kl_divergence(moments)))
    assert float(metrics['kl']) == pytest.approx(kl, rel=1e-6)
    assert float(value) == pytest.approx(float(jnp.abs(image - fake).sum()) / 3 + 0.5 * kl, rel=1e-5)


@pytest.mark.slow
def test_a_codebook_stage_averages_and_tells_the_use_of_its_codes():
    stage = first_stage.Stage(tiny_stages.Vq(), image_size=16, perceptual_weight=0.0, codebook_weight=2.0)
    params = stage.init(jax.random.key(0))
    image = jnp.asarray(RNG.uniform(-1, 1, (3, 16, 16, 3)), jnp.float32)
    value, metrics = stage.loss(params, {'image': image}, stage.draw(jax.random.key(0), {'image': image}))
    fake, codebook, indices = stage.first_stage.apply({'params': params['first_stage']}, image)
    assert float(value) == pytest.approx(float(jnp.abs(image - fake).mean() + 2 * codebook), rel=1e-5)
    shares = np.bincount(np.ravel(indices), minlength=16) / indices.size
    entropy = -sum(p * np.log(p) for p in shares if p)
    assert float(metrics['perplexity']) == pytest.approx(np.exp(entropy), rel=1e-5)
    assert float(metrics['used']) == np.mean(shares > 0)


@pytest.mark.slow
def test_a_decoder_alone_leaves_the_latents_what_they_were():
    model = tiny_stages.Kl()
    whole = trees.init(model, jax.random.key(0), size=16)
    stage = first_stage.Stage(
        model, 16, pretrained={'first_stage': whole}, train='decoder', perceptual_weight=0.0
    )
    params = stage.init(jax.random.key(1))
    assert params.keys() == {'first_stage'}
    assert params['first_stage'].keys() == {'decoder', 'post_quant_conv'}
    jax.tree.map(np.testing.assert_array_equal, params['first_stage']['decoder'], whole['decoder'])
    image = jnp.asarray(RNG.uniform(-1, 1, (3, 16, 16, 3)), jnp.float32)
    gradient = jax.grad(lambda p: stage.loss(p, {'image': image}, NO_DRAWS)[0])(params)
    kernel = gradient['first_stage']['decoder']['conv_in']['kernel']
    assert np.abs(kernel).max() > 0
    expected = jax.grad(lambda p: jnp.abs(image - model.apply({'params': p}, image)[0]).sum() / 3)(whole)
    np.testing.assert_allclose(kernel, expected['decoder']['conv_in']['kernel'], rtol=1e-4, atol=1e-4)

    moved = jax.tree.map(lambda a: a + 1, params)
    measured, parts = stage.export(moved, [{'image': image}])
    jax.tree.map(np.testing.assert_array_equal, parts['first_stage']['encoder'], whole['encoder'])
    assert parts['first_stage'].keys() == whole.keys()
    assert measured == {}  # the scale of its latents too


def stage_with(**fields):
    return first_stage.Stage(
        **dict(first_stage=tiny_stages.Kl(), image_size=16, perceptual_weight=0.0) | fields
    )


@pytest.mark.parametrize(
    ('fields', 'message'),
    [
        (dict(perceptual_weight=1.0), 'perceptual_weight is 1.0.*convert_loss_networks.*perceptual_weight=0'),
        (dict(perceptual_weight=1.0, perceptual=lpips.Model()), 'no perceptual network'),
        (dict(train='decoder'), 'pretrained.first_stage'),
        (dict(train='encoder'), "'encoder'.*'all', 'decoder'|'encoder'.*'decoder'"),
        (dict(pixel_loss='huber'), "'huber'.*'l1', 'l2'"),
        (dict(disc_loss='hing'), "'hing'.*Did you mean 'hinge'"),
        (dict(first_stage=tiny_stages.Vq(), learn_logvar=True), 'no log variance'),
    ],
)
def test_settings_that_contradict_each_other_are_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        stage_with(**fields)


@pytest.mark.slow
def test_vanilla_and_hinge_of_the_discriminators_logits():
    stage = stage_with(discriminator=discriminator.Model(channels=4, num_layers=1), disc_loss='vanilla')
    params, stats = stage.init_discriminator(jax.random.key(0))
    real, fake = RNG.uniform(-1, 1, (2, 3, 16, 16, 3)).astype(np.float32)
    logits = [stage.discriminator.apply({'params': params}, x) for x in (real, fake)]
    softplus = [np.log1p(np.exp(x)).mean() for x in (-logits[0], logits[1])]
    hinge = [np.maximum(0, 1 + x).mean() for x in (-logits[0], logits[1])]
    for name, expected in (('vanilla', softplus), ('hinge', hinge)):
        both = stage_with(discriminator=stage.discriminator, disc_loss=name)
        value, _ = both.discriminator_loss(params, stats, real, fake)
        assert float(value) == pytest.approx(np.mean(expected), rel=1e-5)
