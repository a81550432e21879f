"""A job with everything that a state may hold, and runs of it to compare."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import struct

from ldm_jax.data import pipeline
from ldm_jax.training import loop
from ldm_jax.training.job import Job
from ldm_jax.training.monitoring import writers

RNG = np.random.default_rng(0)
SOURCE = pipeline.InMemory({'x': RNG.standard_normal((30, 3)).astype(np.float32)})
TX = optax.adamw(0.1)
CLOCKED = ('images_per_second', 'steps_per_second', 'data_wait')


@struct.dataclass
class State:
    """As a training state is: two optimizers' memories, two averages and a PRNG key of its own."""

    step: jax.Array
    params: dict
    ema: dict
    opt: tuple
    key: jax.Array


def init(key):
    params = {'kernel': jax.random.normal(key, (3,))}
    ema = {'fast': jax.tree.map(jnp.copy, params), 'slow': jax.tree.map(jnp.copy, params)}
    return State(jnp.int32(0), params, ema, (TX.init(params), TX.init(params)), jax.random.key(7))


def per_example_noise(key, x, axis_name):
    """Normal noise like x [B, D], drawn from each example's place in the batch of all devices together."""
    first = 0 if axis_name is None else jax.lax.axis_index(axis_name) * len(x)
    keys = jax.vmap(jax.random.fold_in, (None, 0))(key, first + jnp.arange(len(x)))
    return jax.vmap(lambda k: jax.random.normal(k, x.shape[1:]))(keys)


def step(state, batch, key, axis_name=None):
    """A line learns to sum its inputs, with noise on them that belongs to an example and not to a device."""
    key = jax.random.fold_in(key, state.step)
    x = batch['x']
    noise = 0.1 * per_example_noise(key, x, axis_name)

    def loss(params):
        error = (x + noise) @ params['kernel'] - x.sum(axis=1)
        return jnp.mean(error**2), error

    (value, error), grads = jax.value_and_grad(loss, has_aux=True)(state.params)
    metrics = {'loss': value, 'bias': jnp.mean(error), 'by_sign': jnp.stack([jnp.mean(error > 0), jnp.nan])}
    if axis_name is not None:
        grads, metrics = jax.lax.pmean((grads, metrics), axis_name)
    updates, first_opt = TX.update(grads, state.opt[0], state.params)
    params = optax.apply_updates(state.params, updates)
    _, second_opt = TX.update(jax.tree.map(jnp.square, grads), state.opt[1], state.params)
    ema = {
        'fast': optax.incremental_update(params, state.ema['fast'], 0.5),
        'slow': optax.incremental_update(params, state.ema['slow'], 0.01),
    }
    key = jax.random.split(state.key)[0]
    return State(state.step + 1, params, ema, (first_opt, second_opt), key), metrics


def images(state, batch, key):
    return {'rows': jnp.zeros((2, len(batch['x']), 4, 4, 3))}


JOB = Job(init, step, images)


def run(
    workdir, num_steps=20, source=SOURCE, preemption=None, job=JOB, evaluator=None, finished=None, **settings
):
    settings = dict(batch_size=8, log_every=3, save_every=4) | settings
    return loop.train(
        job,
        source,
        str(workdir),
        loop.Run(num_steps, **settings),
        preemption=preemption,
        evaluator=evaluator,
        finished=finished,
    )


def plain(state):
    return jax.tree.map(
        lambda a: np.asarray(jax.random.key_data(a) if jnp.issubdtype(a.dtype, jax.dtypes.prng_key) else a),
        state,
    )


def assert_same(left, right):
    jax.tree.map(np.testing.assert_array_equal, plain(left), plain(right))


def metrics(workdir):
    lines = [json.loads(line) for line in (workdir / writers.METRICS).read_text().splitlines()]
    return [{name: value for name, value in line.items() if name not in CLOCKED} for line in lines]
