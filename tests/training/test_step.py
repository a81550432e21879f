"""One update, against what it should be by hand."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from ldm_jax.training.state import create
from ldm_jax.training.step import train_step

PARAMS = {'w': jnp.array([1.0, -2.0])}
BATCH = {'x': jnp.array([[1.0, 0.0], [0.0, 2.0]])}
KEY = jax.random.key(0)


def draw(key, batch):
    return jax.random.normal(key, (len(batch['x']),))


def loss(params, batch, draws):
    return jnp.mean((batch['x'] @ params['w']) ** 2), {'draws': jnp.mean(draws)}


STEP = functools.partial(train_step, draw=draw, loss=loss, tx=optax.sgd(0.1), ema_decay=0.9)


def test_parameters_move_against_the_gradient():
    state, metrics = STEP(create(PARAMS, optax.sgd(0.1)), BATCH, KEY)
    gradient = np.array([1.0, -8.0])  # of mean((w0)^2, (2 w1)^2)
    np.testing.assert_allclose(state.params['w'], PARAMS['w'] - 0.1 * gradient, rtol=1e-6)
    np.testing.assert_allclose(metrics['loss'], (1 + 16) / 2)
    np.testing.assert_allclose(metrics['grad_norm'], np.linalg.norm(gradient), rtol=1e-6)
    assert int(state.step) == 1


def test_the_average_warms_up_to_its_decay():
    state = create(PARAMS, optax.sgd(0.1))
    expected = np.array(PARAMS['w'])
    for n in range(300):
        state, _ = STEP(state, BATCH, KEY)
        decay = min(0.9, (1 + n) / (10 + n))
        expected = decay * expected + (1 - decay) * np.array(state.params['w'])
    np.testing.assert_allclose(state.ema_params['w'], expected, rtol=1e-4, atol=1e-7)


def test_every_step_draws_anew_and_the_same_step_the_same():
    state = create(PARAMS, optax.sgd(0.1))
    one = STEP(state, BATCH, KEY)[1]['draws']
    again = STEP(state, BATCH, KEY)[1]['draws']
    later = STEP(state.replace(step=state.step + 1), BATCH, KEY)[1]['draws']
    assert one == again != later


def test_pmap_over_eight_devices_equals_one_device():
    if jax.device_count() < 8:
        pytest.fail('tests/conftest.py asks for eight devices')
    # Without draws in the loss, the mean over replicas is the mean over the batch.
    batch = {'x': jax.random.normal(KEY, (16, 2))}
    state = create(PARAMS, optax.sgd(0.1))
    expected, _ = STEP(state, batch, KEY)
    replicate = functools.partial(jax.tree.map, lambda a: jnp.broadcast_to(a, (8, *a.shape)))
    parallel = jax.pmap(functools.partial(STEP, axis_name='batch'), axis_name='batch')
    sharded = {'x': batch['x'].reshape(8, 2, 2)}
    state, metrics = parallel(replicate(state), sharded, jnp.stack([KEY] * 8))
    for replica in state.params['w']:
        np.testing.assert_allclose(replica, expected.params['w'], rtol=1e-6)
    assert np.ptp(metrics['draws']) == 0  # averaged over replicas, each of which drew noise of its own
