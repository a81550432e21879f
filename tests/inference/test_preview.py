"""Previews: colours of latents from a formula, and from a tiny autoencoder."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ldm_jax.inference import preview
from ldm_jax.models import taesd
from tests import oracles


def test_colours_of_known_spaces_are_a_matrix_and_a_bias():
    for (channels, scale), (factors, bias) in preview.FACTORS.items():
        known = preview.linear(channels, scale)
        np.testing.assert_allclose(known(jnp.zeros((1, 1, 1, channels)))[0, 0, 0], bias, atol=1e-6)
        for c in range(channels):
            unit = jnp.zeros((2, 3, 4, channels)).at[..., c].set(0.5)
            out = known(unit)
            assert out.shape == (2, 3, 4, 3)
            np.testing.assert_allclose(out[1, 2, 3], 0.5 * np.array(factors[c]) + bias, atol=1e-6)
    assert jnp.abs(known(jnp.full((1, 1, 1, channels), 100.0))).max() == 1


def test_the_brightest_direction_of_each_known_space_is_a_grey_one():
    # What all three colours share outweighs what sets them apart: latents are mostly brightness.
    for factors, _ in preview.FACTORS.values():
        _, sizes, colours = np.linalg.svd(np.array(factors))
        assert sizes[0] > 1.4 * sizes[1]
        assert abs(colours[0].sum()) / np.sqrt(3) > 0.9


def test_a_space_without_published_colours_is_an_error():
    with pytest.raises(
        ValueError, match=r'with 16 channels and scale 0.3611; have .*\(4, 0.18215\).*Fit them'
    ):
        preview.linear(16, 0.3611)


def test_a_fit_finds_the_colours_that_images_were_made_with():
    rng = np.random.default_rng(0)
    factors, bias = rng.uniform(-0.2, 0.2, (5, 3)), rng.uniform(-0.1, 0.1, 3)
    latents = rng.standard_normal((2, 6, 4, 5))
    detail = rng.standard_normal((2, 6, 8, 4, 8, 3))
    detail -= detail.mean((2, 4), keepdims=True)  # which goes when the image is reduced
    images = ((latents @ factors + bias)[:, :, None, :, None] + detail).reshape(2, 48, 32, 3)
    with oracles.float64():
        found = preview.fit(jnp.asarray(latents), jnp.asarray(images))
        np.testing.assert_allclose(found.factors, factors, atol=1e-12)
        np.testing.assert_allclose(found.bias, bias, atol=1e-12)


@pytest.mark.parametrize(
    ('images', 'message'),
    [
        ((1, 16, 15, 3), r'\[1, f 4, f 2, 3\] .* got \(1, 16, 15, 3\)'),
        ((1, 16, 8, 4), r'got \(1, 16, 8, 4\)'),
    ],
)
def test_images_that_are_not_those_of_the_latents_are_an_error(images, message):
    with pytest.raises(ValueError, match=message):
        preview.fit(jnp.zeros((1, 4, 2, 4)), jnp.zeros(images))


def test_too_few_latents_for_a_fit_are_an_error():
    with pytest.raises(ValueError, match='4 latents do not determine 5 unknowns'):
        preview.fit(jnp.zeros((1, 2, 2, 4)), jnp.zeros((1, 16, 16, 3)))


@pytest.mark.slow
def test_a_tiny_autoencoder_s_preview_is_its_image_clipped():
    model = taesd.Model(channels=8, num_blocks=(1, 1))
    z = 3 * jax.random.normal(jax.random.key(0), (1, 4, 6, 4))

    @jax.jit
    def run(z):
        params = model.init(jax.random.key(1), jnp.zeros((1, 8, 8, 3)))['params']
        params = jax.tree.map(lambda a: 3 * a, params)  # for images beyond the range
        return preview.tiny(model, params)(z), model.apply({'params': params}, z, method='decode')

    out, exact = run(z)
    assert jnp.abs(exact).max() > 1
    np.testing.assert_allclose(out, np.clip(exact, -1, 1), atol=1e-6)
