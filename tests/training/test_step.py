"""One update, against what it should be by hand."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from ldm_jax.training import ema, optimizer
from ldm_jax.training import state as train_state
from ldm_jax.training import step as train_step
from ldm_jax.training.monitoring import metrics
from ldm_jax.training.trained import Trained

PARAMS = {'w': jnp.array([1.0, -2.0])}
BATCH = {'x': jnp.array([[1.0, 0.0], [0.0, 2.0]])}
KEY = jax.random.key(0)
DECAYS = {'main': ema.named(dict(name='constant', decay=0.9)), 'slow': ema.named(dict(name='power'))}


def draw(key, batch):
    return jax.random.normal(key, (len(batch['x']),))


def loss(params, batch, draws):
    return jnp.mean((batch['x'] @ params['w']) ** 2), {'draws': jnp.mean(draws)}


STEP = functools.partial(train_step.train_step, draw=draw, loss=loss, tx=optax.sgd(0.1), decays=DECAYS)


def start():
    return train_state.create(PARAMS, optax.sgd(0.1), DECAYS)


def test_parameters_move_against_the_gradient():
    state, found = STEP(start(), BATCH, KEY)
    gradient = np.array([1.0, -8.0])  # of mean((w0)^2, (2 w1)^2)
    np.testing.assert_allclose(state.params['w'], PARAMS['w'] - 0.1 * gradient, rtol=1e-6)
    np.testing.assert_allclose(found['loss'], (1 + 16) / 2)
    np.testing.assert_allclose(found['grad_norm'], np.linalg.norm(gradient), rtol=1e-6)
    np.testing.assert_allclose(found['update_norm'], 0.1 * np.linalg.norm(gradient), rtol=1e-6)
    np.testing.assert_allclose(found['param_norm'], np.linalg.norm([0.9, -1.2]), rtol=1e-6)
    assert int(state.step) == 1
    assert found['nonfinite'] == 0


def test_the_learning_rate_is_reported():
    tx = optimizer.optimizer(100, 2, lr=0.5, warmup_steps=10)
    state = train_state.create(PARAMS, tx, DECAYS)
    step = jax.jit(functools.partial(STEP, tx=tx))
    rates = []
    for _ in range(12):
        state, found = step(state, BATCH, KEY)
        rates.append(float(found['lr']))
    np.testing.assert_allclose(rates[:11], np.arange(11) / 20, rtol=1e-6)
    assert rates[11] < 0.5


def test_all_averages_follow():
    state, step = start(), jax.jit(STEP)
    expected = {'main': np.array(PARAMS['w']), 'slow': np.array(PARAMS['w'])}
    for n in range(100):
        state, _ = step(state, BATCH, KEY)
        shares = {'main': min(0.9, (2 + n) / (11 + n)), 'slow': (1 - 1 / (n + 1)) ** (ema.exponent(0.05) + 1)}
        for name, share in shares.items():
            expected[name] = share * expected[name] + (1 - share) * np.array(state.params['w'])
    for name, value in expected.items():
        np.testing.assert_allclose(state.ema[name]['w'], value, rtol=1e-4, atol=1e-7)
    assert state.ema_params is state.ema['main']


@pytest.mark.slow
def test_every_step_draws_anew_and_the_same_step_the_same():
    state = start()
    one = STEP(state, BATCH, KEY)[1]['draws']
    again = STEP(state, BATCH, KEY)[1]['draws']
    later = STEP(state.replace(step=state.step + 1), BATCH, KEY)[1]['draws']
    assert one == again != later


def noisy_loss(params, batch, draws):
    """Also the draws have a gradient."""
    each = (batch['x'] @ params['w'] - draws) ** 2
    return jnp.mean(each), {
        'each': jnp.mean(jnp.abs(draws)),
        'by_size': metrics.by_bin(each, jax.nn.sigmoid(draws), 3),
        'observed': (draws, each),
    }


def remembering_draw(key, batch, memory):
    return draw(key, batch) + 0.1 * memory


def remember(memory, observed):
    draws, each = observed
    return 0.5 * memory + 0.01 * jnp.sum(jnp.arange(len(each)) * draws * each)  # knows the order of the batch


REMEMBERS = dict(draw=remembering_draw, loss=noisy_loss, remember=remember)


def runs(step, batch, count=4):
    tx = optax.adam(0.1)
    state = train_state.create(PARAMS, tx, DECAYS, memory=jnp.zeros(()))
    step = step(functools.partial(STEP, tx=tx, **REMEMBERS))
    for _ in range(count):
        state, found = step(state, batch, KEY)
    return state, found


@pytest.fixture(scope='module')
def alone():
    batch = {'x': jax.random.normal(KEY, (32, 2))}
    return batch, *runs(jax.jit, batch)


def assert_same(found, expected):
    for one, other in zip(*map(jax.tree.leaves, (found, expected)), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize('accumulate', [2, 8])
def test_micro_batches_are_one_big_batch(accumulate, alone):
    batch, *expected = alone
    found = runs(lambda step: jax.jit(functools.partial(step, accumulate=accumulate)), batch)
    assert_same(found, tuple(expected))
    assert int(found[0].step) == 4


@pytest.mark.slow
@pytest.mark.parametrize('accumulate', [1, 2])
def test_eight_devices_by_pmap_are_one(accumulate, alone):
    """Noise, averages, memory and metrics too: an example draws by its place in the whole batch."""
    batch, *expected = alone

    def by_pmap(step):
        mapped = jax.pmap(functools.partial(step, axis_name='i', accumulate=accumulate), axis_name='i')

        def run(state, batch, key):
            if state.step.ndim == 0:
                state = jax.tree.map(lambda a: jnp.broadcast_to(a, (8, *a.shape)), state)
            return mapped(state, {'x': batch['x'].reshape(8, 4, 2)}, jnp.stack([key] * 8))

        return run

    found = runs(by_pmap, batch)
    for replica in (0, 7):
        assert_same(jax.tree.map(lambda a, i=replica: a[i], found), tuple(expected))


@pytest.mark.slow
@pytest.mark.parametrize('accumulate', [1, 2])
def test_eight_devices_by_jit_are_one(accumulate, alone):
    batch, *expected = alone
    mesh = jax.make_mesh((8,), ('data',), axis_types=(jax.sharding.AxisType.Auto,))
    sharded = {'x': jax.device_put(batch['x'], NamedSharding(mesh, PartitionSpec('data')))}
    assert_same(
        runs(lambda step: jax.jit(functools.partial(step, accumulate=accumulate)), sharded), tuple(expected)
    )


def test_a_batch_that_does_not_split_is_refused():
    with pytest.raises(ValueError, match='2 a device does not split into 3'):
        STEP(start(), BATCH, KEY, accumulate=3)


@pytest.mark.parametrize('bad', [dict(factor=np.inf, inside=1.0), dict(factor=1.0, inside=0.0)])
def test_what_is_not_finite_changes_nothing_and_is_counted(bad):
    """Once the loss is infinite; once it is 1 more than nothing, but the gradient is 0 / sqrt(0)."""

    def breaking(params, batch, draws):
        value, found = loss(params, batch, draws)
        return value * batch['factor'][0] + jnp.sqrt(0 * params['w'][0] + batch['inside'][0]), found

    tx = optax.adam(0.1)
    step = jax.jit(functools.partial(STEP, tx=tx, loss=breaking))
    good, bad = (
        BATCH | {name: jnp.full(2, value) for name, value in values.items()}
        for values in (dict(factor=1.0, inside=1.0), bad)
    )
    first, _ = step(train_state.create(PARAMS, tx, DECAYS), good, KEY)
    after, found = step(first, bad, KEY)
    assert found['nonfinite'] == 1
    assert (int(after.step), int(after.skipped)) == (2, 1)
    same = after.replace(step=first.step, skipped=first.skipped)
    jax.tree.map(np.testing.assert_array_equal, same, first)
    # Going on, the averages count updates and not batches.
    after, found = step(after, good, KEY)
    np.testing.assert_array_equal(after.ema['slow']['w'], step(first, good, KEY)[0].ema['slow']['w'])
    assert found['nonfinite'] == 0


def test_frozen_parameters_are_arguments_that_do_not_change():
    def with_encoder(params, batch, draws):
        return jnp.mean((batch['x'] @ params['encoder'] @ params['w']) ** 2), {}

    encoder = jax.random.normal(KEY, (2, 2))
    state = train_state.create(PARAMS, optax.sgd(0.1), DECAYS, frozen={'encoder': encoder})
    assert state.ema_params.keys() == {'w', 'encoder'}
    step = jax.jit(functools.partial(STEP, loss=with_encoder), donate_argnums=0)
    after, _ = step(jax.tree.map(jnp.copy, state), BATCH, KEY)
    np.testing.assert_array_equal(after.frozen['encoder'], encoder)
    gradient = jax.grad(lambda w: jnp.mean((BATCH['x'] @ encoder @ w) ** 2))(PARAMS['w'])
    np.testing.assert_allclose(after.params['w'], PARAMS['w'] - 0.1 * gradient, rtol=1e-5)


class Plain(Trained):
    def init(self, key):
        return PARAMS

    draw = staticmethod(draw)
    loss = staticmethod(loss)


class Remembering(Plain):
    def __init__(self):
        self.frozen = {'encoder': jnp.ones(3)}

    def memory(self):
        return jnp.ones(())

    def remember(self, memory, observed):
        return memory + 1

    def draw(self, key, batch, memory):
        return draw(key, batch)


@pytest.mark.parametrize('stage', [Plain(), Remembering()])
def test_a_stage_makes_its_state_and_step(stage):
    tx = optax.sgd(0.1)
    state = train_state.of(stage, KEY, tx, DECAYS)
    after, _ = train_step.of(stage, tx, DECAYS)(state, BATCH, KEY)
    expected, _ = STEP(start(), BATCH, KEY)
    np.testing.assert_array_equal(after.params['w'], expected.params['w'])
    assert after.memory == (2 if isinstance(stage, Remembering) else ())


def test_bfloat16_compute_leaves_float32_master_weights():
    def half(params, batch, draws):
        low = jax.tree.map(lambda a: a.astype(jnp.bfloat16), params)
        return jnp.mean((batch['x'].astype(jnp.bfloat16) @ low['w']).astype(jnp.float32) ** 2), {}

    state, step = start(), jax.jit(functools.partial(STEP, loss=half, tx=optax.sgd(1e-4)))
    for _ in range(3):
        state, _ = step(state, BATCH, KEY)
    assert state.params['w'].dtype == jnp.float32
    # Each step is far below bfloat16's spacing at 1, 2^-8: summed in bfloat16 they would all be lost.
    np.testing.assert_allclose(PARAMS['w'] - state.params['w'], [3e-4, -24e-4], rtol=0.01)
