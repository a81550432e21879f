"""The vector quantizer, against the original's numbers (fixtures/README_first_stages.md) and by hand."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ldm_jax.models.quantizer import Quantizer, code_counts, codebook_usage, nearest
from tests import oracles

FIXTURE = Path(__file__).parent / 'fixtures' / 'first_stage_quantizer.npz'


def normal(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape, np.float32)


@pytest.mark.parametrize('legacy', [True, False])
def test_codes_loss_and_gradients_are_the_original_s(legacy):
    kept = np.load(FIXTURE)
    name = 'legacy' if legacy else 'paper'
    num_codes, features = kept['codebook'].shape
    model = Quantizer(num_codes, features, legacy=legacy)

    def total(codebook, z):
        quantized, loss, indices = model.apply({'params': {'embedding': codebook}}, z)
        return 1.7 * loss + jnp.sum(quantized * kept['cotangent']), (quantized, loss, indices)

    with oracles.float64():
        run = jax.jit(jax.grad(total, (0, 1), has_aux=True))
        grads, (quantized, loss, indices) = run(kept['codebook'], kept['z'])
    np.testing.assert_array_equal(indices, kept['indices'])
    assert oracles.relative_error(quantized, kept['quantized']) < 1e-14
    assert oracles.relative_error(loss, kept[f'{name}_loss']) < 1e-14
    assert oracles.relative_error(grads[0], kept[f'{name}_grad_codebook']) < 1e-13
    assert oracles.relative_error(grads[1], kept[f'{name}_grad_z']) < 1e-13


def test_indices_are_those_of_the_least_distance():
    z, codebook = normal(2, 3, 5, 4), normal(50, 4, seed=1)
    distances = np.sum((z[..., None, :] - codebook) ** 2, axis=-1)
    np.testing.assert_array_equal(jax.jit(nearest)(z, codebook), distances.argmin(-1))


def test_first_of_equal_codes_wins():
    codebook = jnp.array([[5.0, 5.0], [1.0, 0.0], [1.0, 0.0], [-1.0, 0.0]])
    z = jnp.array([[[[1.0, 0.0], [0.0, 3.0], [-9.0, 0.0]]]])  # the second is as far from codes 1, 2 and 3
    np.testing.assert_array_equal(jax.jit(nearest)(z, codebook), [[[1, 1, 3]]])


def test_gradient_passes_through_as_by_the_identity():
    model = Quantizer(8, 4)
    z, cotangent = normal(2, 3, 5, 4), normal(2, 3, 5, 4, seed=1)
    variables = {'params': {'embedding': normal(8, 4, seed=2)}}

    @jax.jit
    def pull(z, cotangent):
        return jax.vjp(lambda z: model.apply(variables, z)[0], z)[1](cotangent)[0]

    np.testing.assert_array_equal(pull(z, cotangent), cotangent)


def test_quantizing_codes_changes_nothing_and_costs_nothing():
    model = Quantizer(8, 4)
    indices = np.random.default_rng(0).integers(0, 8, (2, 3, 5))
    variables = {'params': {'embedding': normal(8, 4)}}
    codes = model.apply(variables, indices, method='lookup')
    quantized, loss, found = jax.jit(model.apply)(variables, codes)
    np.testing.assert_array_equal(found, indices)
    np.testing.assert_array_equal(quantized, codes)
    assert loss == 0
    assert np.isnan(model.apply(variables, np.array([8]), method='lookup')).all()


def test_codebook_starts_uniform_within_one_over_its_size():
    variables = jax.jit(Quantizer(512, 4).init)(jax.random.key(0), np.zeros((1, 1, 1, 4), np.float32))
    codebook = np.asarray(variables['params']['embedding'].value)
    assert codebook.shape == (512, 4)
    assert 0.99 / 512 < np.abs(codebook).max() <= 1 / 512
    assert abs(codebook.mean()) < 0.05 / 512
    assert abs(codebook.std() * 512 - 1 / np.sqrt(3)) < 0.02


def test_bfloat16_latents_are_compared_in_float32():
    model = Quantizer(64, 4)
    codebook = 1 + normal(64, 4) / 200  # which bfloat16 can hardly tell apart
    z = (1 + normal(1, 4, 4, 4, seed=1) / 200).astype(jnp.bfloat16)
    quantized, loss, indices = jax.jit(model.apply)({'params': {'embedding': codebook}}, z)
    assert quantized.dtype == loss.dtype == jnp.float32
    distances = np.sum((z.astype(np.float64)[..., None, :] - codebook) ** 2, axis=-1)
    np.testing.assert_array_equal(indices, distances.argmin(-1))
    assert len(np.unique(indices)) > 4


def test_usage_counts_codes_over_batches():
    count, usage = jax.jit(lambda indices: code_counts(indices, 8)), jax.jit(codebook_usage)
    even, one = count(np.arange(6).reshape(1, 2, 3)), count(np.full((1, 2, 3), 7))
    np.testing.assert_array_equal(even, [1, 1, 1, 1, 1, 1, 0, 0])
    assert usage(even)['perplexity'] == pytest.approx(6, rel=1e-6)
    assert usage(even)['used'] == 6 / 8
    assert usage(one)['perplexity'] == pytest.approx(1)
    both = np.array([1, 1, 1, 1, 1, 1, 6]) / 12
    assert usage(even + one)['perplexity'] == pytest.approx(np.exp(-np.sum(both * np.log(both))), rel=1e-6)


def test_wrong_width_is_an_error():
    model = Quantizer(8, 4)
    with pytest.raises(ValueError, match=r'latents \[B, h, w, 4\]; got \(1, 2, 2, 3\)'):
        model.init(jax.random.key(0), jnp.zeros((1, 2, 2, 3)))
