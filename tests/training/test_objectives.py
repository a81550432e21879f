"""Training as a whole against a closed form: the least loss on Gaussian data, for each parameterization.

For data N(m, S^2), x0 given x has the variance S^2 sigma^2 / (alpha^2 S^2 + sigma^2), and the
error of the network's output is that of x0_hat over c_out.
"""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ldm_jax.diffusion import loss
from ldm_jax.schedules import edm, flow, scaled_linear
from ldm_jax.training import ema, optimizer
from ldm_jax.training import state as train_state
from ldm_jax.training import step as train_step
from ldm_jax.types import Cond

MEAN, S = 0.4, 0.6
KINDS = {
    'eps': (scaled_linear.Schedule(), 'eps', 'uniform'),
    'v': (scaled_linear.Schedule(), 'v', 'uniform'),
    'x0': (scaled_linear.Schedule(), 'x0', 'uniform'),
    'flow': (flow.Schedule(), 'flow', 'logit_normal'),
    'edm': (edm.Schedule(), dict(name='edm', sigma_data=0.5), 'log_normal'),
}


class Network(nn.Module):
    """x [B, 1] and time to F."""

    @nn.compact
    def __call__(self, x, t):
        waves = [f(np.pi * k * t) for k in (0.5, 1, 2, 4) for f in (jnp.sin, jnp.cos)]
        h = jnp.concatenate([x, t[:, None], jnp.stack(waves, axis=-1)], axis=-1)
        for _ in range(2):
            h = nn.silu(nn.Dense(64)(h))
        return nn.Dense(1)(h)


@pytest.mark.slow
@pytest.mark.parametrize('kind', KINDS)
def test_a_small_network_reaches_the_least_loss_there_is(kind):
    schedule, parameterization, times = KINDS[kind]
    objective = loss.objective(schedule, parameterization=parameterization, times=times)
    network = Network()

    def apply(params, x, t, cond):
        return network.apply({'params': params}, x, t if kind == 'edm' else t / 1000)

    def value(params, batch, draws):
        losses, _ = objective.losses(functools.partial(apply, params), batch['x0'], Cond(), draws)
        return jnp.mean(losses), {}

    def data(key, size):
        return {'x0': MEAN + S * jax.random.normal(key, (size, 1))}

    tx = optimizer.optimizer(2000, 512, lr=5e-3, warmup_steps=50)
    decays = {'main': ema.named(dict(name='constant', decay=0.99))}
    step = functools.partial(
        train_step.train_step,
        draw=lambda key, batch: objective.draw(key, batch['x0'].shape),
        loss=value,
        tx=tx,
        decays=decays,
    )
    key = jax.random.key(0)
    params = network.init(key, jnp.zeros((1, 1)), jnp.zeros(1))['params']
    state = train_state.create(params, tx, decays)

    @jax.jit
    def train(state):
        def one(state, n):
            return step(state, data(jax.random.fold_in(jax.random.key(1), n), 512), key)[0], None

        return jax.lax.scan(one, state, jnp.arange(2000))[0]

    state = train(state)
    test = data(jax.random.key(2), 200_000)
    draws = objective.draw(jax.random.key(3), test['x0'].shape)
    level = schedule.level(draws.t)
    alpha, sigma = np.asarray(level.alpha, np.float64), np.asarray(level.sigma, np.float64)
    c_out = np.asarray(objective.parameterization(level).c_out, np.float64)
    least = np.mean(S**2 * sigma**2 / (alpha**2 * S**2 + sigma**2) / c_out**2)
    reached = float(value(state.ema_params, test, draws)[0])
    assert 0.985 * least < reached < 1.02 * least  # 1 % is the noise of so many draws
