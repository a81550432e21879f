"""Optimizers from plain settings."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from ldm_jax.training.optimizer import RULES, optimizer

PARAMS = {'conv': {'kernel': jnp.ones((2, 2)), 'bias': jnp.ones(2)}}


def settings(**fields):
    return dict(num_steps=10, batch_size=4, lr=0.1, curve='constant') | fields


def updates(gradients, params=PARAMS, **fields):
    tx = optimizer(**settings(**fields))
    return tx.update(gradients, tx.init(params), params)[0]


@pytest.mark.parametrize('name', RULES)
def test_weight_decay_is_for_kernels_or_for_all_and_as_much_as_the_rate_says(name):
    # On a zero gradient nothing but the decay is left: lr x decay, of each weight.
    zeros = jax.tree.map(jnp.zeros_like, PARAMS)
    knobs = dict(name=name, weight_decay=0.5) | (dict(momentum=None) if name == 'sgd' else {})
    spared = updates(zeros, **knobs)
    np.testing.assert_allclose(spared['conv']['kernel'], -0.05, rtol=1e-6)
    np.testing.assert_array_equal(spared['conv']['bias'], 0)
    np.testing.assert_allclose(updates(zeros, **knobs, decayed='all')['conv']['bias'], -0.05, rtol=1e-6)


def test_gradients_are_clipped_together():
    gradients = {'conv': {'kernel': jnp.full((2, 2), 3.0), 'bias': jnp.full(2, 4.0)}}
    norm = np.sqrt(4 * 9 + 2 * 16)
    clipped = updates(gradients, name='sgd', momentum=None, clip_norm=2.0)
    np.testing.assert_allclose(clipped['conv']['bias'], -0.1 * 4 * 2 / norm, rtol=1e-6)
    whole = updates(gradients, name='sgd', momentum=None, clip_norm=None)
    np.testing.assert_allclose(whole['conv']['bias'], -0.4, rtol=1e-6)


def test_the_rate_of_an_example_is_multiplied_by_the_batch():
    tx = optimizer(**settings(lr=1e-6, batch_size=48, lr_batch_size=1))  # latent diffusion's --scale_lr
    np.testing.assert_allclose(tx.rate(0), 48e-6, rtol=1e-6)
    np.testing.assert_allclose(optimizer(**settings(lr=1e-4, lr_batch_size=16)).rate(0), 0.25e-4, rtol=1e-6)


def test_adamw_steps_as_torch_does():
    torch = pytest.importorskip('torch')
    weights = np.random.default_rng(0).standard_normal((3, 2)).astype(np.float32)
    gradients = np.random.default_rng(1).standard_normal((5, 3, 2)).astype(np.float32)
    theirs = torch.nn.Parameter(torch.tensor(weights))
    adamw = torch.optim.AdamW([theirs], lr=0.1, betas=(0.8, 0.95), eps=1e-6, weight_decay=0.01)
    tx = optimizer(**settings(b1=0.8, b2=0.95, eps=1e-6, weight_decay=0.01, clip_norm=None))
    ours = {'kernel': jnp.asarray(weights)}
    state = tx.init(ours)
    for gradient in gradients:
        theirs.grad = torch.tensor(gradient)
        adamw.step()
        update, state = tx.update({'kernel': jnp.asarray(gradient)}, state, ours)
        ours = optax.apply_updates(ours, update)
    np.testing.assert_allclose(ours['kernel'], theirs.detach().numpy(), rtol=2e-5)


def test_lion_moves_by_the_sign():
    gradients = {'conv': {'kernel': jnp.array([[1.0, -2.0], [0.1, -5.0]]), 'bias': jnp.array([-1.0, 1e-3])}}
    moved = updates(gradients, name='lion')
    np.testing.assert_allclose(moved['conv']['kernel'], [[-0.1, 0.1], [-0.1, 0.1]], rtol=1e-6)


@pytest.mark.slow
def test_muon_makes_matrices_orthogonal_and_leaves_the_rest_to_adam():
    key = jax.random.key(0)
    params = {
        'mid': {'kernel': jnp.ones((3, 3, 2, 8)), 'bias': jnp.ones(8)},
        'conv_in': {'kernel': jnp.ones((3, 3, 1, 2))},
        'table': {'embedding': jnp.ones((5, 3))},
    }
    gradients = jax.tree.map(lambda a: 1e-3 * jax.random.normal(key, a.shape), params)
    moved = updates(gradients, params, name='muon', lr=1.0)
    singular = np.linalg.svd(moved['mid']['kernel'].reshape(18, 8), compute_uv=False)
    # Five Newton-Schulz steps bring all singular values near 1, here times 0.2 sqrt(18).
    np.testing.assert_allclose(singular, 0.2 * np.sqrt(18), rtol=0.4)
    nadam = optax.nadam(1.0)
    expected = nadam.update(gradients, nadam.init(params))[0]
    for part, leaf in (('mid', 'bias'), ('conv_in', 'kernel'), ('table', 'embedding')):
        np.testing.assert_allclose(moved[part][leaf], expected[part][leaf], rtol=1e-3)


def test_adafactor_remembers_rows_and_columns():
    params = {'kernel': jnp.ones((256, 128))}
    size = sum(leaf.size for leaf in jax.tree.leaves(optimizer(**settings(name='adafactor')).init(params)))
    assert size < 500  # AdamW's has 65,536


@pytest.mark.parametrize(
    ('fields', 'words'),
    [
        (dict(name='adam'), "No optimizer 'adam'.*adamw"),
        (dict(beta=0.9), "No knob of optimizer adamw 'beta'"),
        (dict(clip_norm=0.0), 'clip_norm'),
        (dict(lr_batch_size=0), 'lr_batch_size'),
        (dict(decayed='biases'), 'decayed'),
        (dict(lr=0.0), 'lr must be above 0'),
        (dict(curve='cosin'), "Did you mean 'cosine'"),
        (dict(warmup_steps=-1), 'warmup_steps.*-1'),
        (dict(b1=1.0), 'b1'),
        (dict(weight_decay=-0.1), 'weight_decay'),
    ],
)
def test_mistakes_are_named(fields, words):
    with pytest.raises(ValueError, match=words):
        optimizer(**settings(**fields))
