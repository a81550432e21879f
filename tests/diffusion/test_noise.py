"""Noise of each image from its own key."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ldm_jax.diffusion import noise

X = jnp.zeros((3, 64, 32))


def test_each_image_has_the_noise_of_its_own_key_whatever_the_batch():
    keys = noise.image_keys(jnp.arange(3))
    alone = [noise.normal(keys[i : i + 1], X[i : i + 1]) for i in range(3)]
    np.testing.assert_array_equal(noise.normal(keys, X), jnp.concatenate(alone))


def test_noise_is_standard_normal_and_independent():
    start, walk = noise.streams([0, 1, 2**32 - 1])
    drawn = np.stack(
        [noise.normal(k, X) for k in (start, walk, jax.vmap(jax.random.fold_in, (0, None))(walk, 1))]
    )
    draws = drawn.reshape(9, -1)
    n = draws.shape[1]
    np.testing.assert_allclose(draws @ draws.T / n, np.eye(9), atol=5 * np.sqrt(2 / n))
    np.testing.assert_allclose(draws.mean(1), 0, atol=5 / np.sqrt(n))
    np.testing.assert_allclose((draws**4).mean(1), 3, atol=5 * np.sqrt(96 / n))


@pytest.mark.parametrize(('seed', 'same'), [(-1, 2**32 - 1), (2**40 + 7, 7)])
def test_a_seed_is_its_low_32_bits(seed, same):
    for one, other in zip(noise.streams([seed]), noise.streams([same]), strict=True):
        np.testing.assert_array_equal(jax.random.key_data(one), jax.random.key_data(other))
