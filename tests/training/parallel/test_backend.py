"""One device, pmap and meshes of devices train the same."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import PartitionSpec as P

from ldm_jax import trees
from ldm_jax.training.parallel import backend as parallel
from ldm_jax.training.parallel.backend import Parallel
from tests.training.runs import per_example_noise

TX = optax.adamw(1e-2)
AXES = {
    'first/kernel': ('embed', 'mlp'),
    'first/bias': ('mlp',),
    'conv/kernel': (None, None, 'conv_in', 'conv_out'),
    'odd/kernel': ('embed', 'embed'),
}
KEY = jax.random.key(0)


def init(key):
    params = {
        'first': {'kernel': jax.random.normal(key, (8, 16)), 'bias': jnp.zeros(16)},
        'conv': {'kernel': 0.1 * jax.random.normal(key, (3, 3, 4, 6))},
        'odd': {'kernel': 0.1 * jax.random.normal(key, (7, 8))},
        'unnamed': jnp.ones(3),
    }
    return {
        'step': jnp.int32(0),
        'params': params,
        'ema': jax.tree.map(jnp.copy, params),
        'opt': TX.init(params),
    }


def step(state, batch, key, axis_name=None):
    """A dense layer and a convolution over a batch of vectors and images, with noise that belongs to an example."""
    noise = per_example_noise(jax.random.fold_in(key, state['step']), batch['x'], axis_name)

    def loss(params):
        h = jnp.tanh((batch['x'] + noise) @ params['first']['kernel'] + params['first']['bias'])
        dims = jax.lax.conv_dimension_numbers((1, 6, 6, 4), (3, 3, 4, 6), ('NHWC', 'HWIO', 'NHWC'))
        y = jax.lax.conv_general_dilated(
            batch['image'], params['conv']['kernel'], (1, 1), 'SAME', None, None, dims
        )
        z = batch['x'][:, :7] @ params['odd']['kernel']
        return (
            jnp.mean(h**2)
            + jnp.mean((y - 1) ** 2)
            + jnp.mean((z - batch['x']) ** 2) * params['unnamed'].sum()
        )

    value, grads = jax.value_and_grad(loss)(state['params'])
    if axis_name is not None:
        value, grads = jax.lax.pmean((value, grads), axis_name)
    updates, opt = TX.update(grads, state['opt'], state['params'])
    params = optax.apply_updates(state['params'], updates)
    ema = optax.incremental_update(params, state['ema'], 0.1)
    return {'step': state['step'] + 1, 'params': params, 'ema': ema, 'opt': opt}, {'loss': value}


def batch(n):
    rng = np.random.default_rng(n)
    shapes = {'x': (16, 8), 'image': (16, 6, 6, 4)}
    return {name: rng.standard_normal(shape, np.float32) for name, shape in shapes.items()}


def trained(settings, steps=5):
    spread = parallel.backend(settings, 16, AXES)
    state = spread.init(init, KEY)
    lowered, _ = spread.traced(step, state, spread.shard(batch(0), 16), KEY)
    compiled = lowered.compile()
    losses = []
    for n in range(steps):
        state, metrics = compiled(state, spread.shard(batch(n), 16), KEY)
        losses.append(float(spread.metrics(metrics)['loss']))
    return spread.whole(state), losses


@pytest.fixture(scope='module')
def single():
    return trained(Parallel())


SPREADS = [
    Parallel('pmap'),
    Parallel('mesh'),
    Parallel('mesh', data=2, fsdp=4),
    Parallel('mesh', data=1, fsdp=2, tensor=4),
    Parallel('mesh', data=2, fsdp=2, tensor=-1),
]


@pytest.mark.slow
@pytest.mark.parametrize('settings', SPREADS, ids=str)
def test_every_spread_trains_as_one_device(settings, single):
    state, losses = trained(settings)
    np.testing.assert_allclose(losses, single[1], rtol=1e-6)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-6), state, single[0])
    assert losses[-1] < losses[0]


def test_parameters_averages_and_moments_are_cut_alike():
    spread = parallel.backend(Parallel('mesh', data=2, fsdp=2, tensor=2), 16, AXES)
    like = trees.named(spread.like(init, KEY))
    state = trees.named(spread.init(init, KEY))
    specs = {name: leaf.sharding.spec for name, leaf in like.items()}
    for tree in ('params', 'ema', 'opt/0/mu', 'opt/0/nu'):
        assert specs[f'{tree}/first/kernel'] == P('fsdp', 'tensor')
        assert specs[f'{tree}/first/bias'] == P('tensor')
        assert specs[f'{tree}/conv/kernel'] == P(None, None, 'fsdp', 'tensor')
        assert specs[f'{tree}/odd/kernel'] == P(None, 'fsdp')  # 7 is not even; a mesh axis is used once
        assert specs[f'{tree}/unnamed'] == P()
    assert {name: leaf.sharding for name, leaf in state.items()} == {
        n: leaf.sharding for n, leaf in like.items()
    }
    assert state['opt/0/mu/conv/kernel'].addressable_shards[0].data.shape == (3, 3, 2, 3)


def test_a_state_goes_to_the_devices_and_back():
    keyed = lambda key: {'w': jax.random.normal(key, (4, 3)), 'key': key}  # noqa: E731
    for settings in (Parallel(), Parallel('pmap'), Parallel('mesh')):
        spread = parallel.backend(settings, 16, {})
        whole = spread.whole(spread.init(keyed, KEY))
        again = spread.whole(spread.placed(whole))
        np.testing.assert_array_equal(again['w'], keyed(KEY)['w'])
        assert (jax.random.key_data(again['key']) == jax.random.key_data(KEY)).all()
        shapes = jax.tree.map(lambda a: (a.shape, a.dtype), spread.like(keyed, KEY))
        assert shapes == jax.tree.map(lambda a: (a.shape, a.dtype), whole)


@pytest.mark.parametrize(
    ('settings', 'words'),
    [
        (dict(kind='mesh', data=3), '3 x 1 x 1'),
        (dict(kind='mesh', data=-1, fsdp=3), 'there are 8 devices'),
        (dict(kind='mesh', data=-1, fsdp=-1), 'one may be -1'),
        (dict(kind='mesh', data=0), 'positive'),
        (dict(kind='pmap', tensor=2), "kind='mesh'"),
    ],
)
def test_meshes_that_cannot_be_are_refused(settings, words):
    with pytest.raises(ValueError, match=words):
        parallel.backend(Parallel(**settings), 16, AXES)


def test_fsdp_without_logical_axes_and_batches_that_do_not_divide_are_refused():
    with pytest.raises(ValueError, match='no logical axes'):
        parallel.backend(Parallel('mesh', fsdp=2), 16, {})
    with pytest.raises(ValueError, match='multiple of the 8 devices'):
        parallel.backend(Parallel('mesh', fsdp=2), 12, AXES)
