"""One update of training, a pure function of state, batch and key."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax

from ldm_jax.training.state import TrainState
from ldm_jax.types import Array, PyTree

Metrics = dict[str, Array]


def train_step(
    state: TrainState,
    batch: PyTree,
    key: Array,
    *,
    draw: Callable[[Array, PyTree], PyTree],
    loss: Callable[[PyTree, PyTree, PyTree], tuple[Array, Metrics]],
    tx: optax.GradientTransformation,
    ema_decay: float,
    axis_name: str | None = None,
) -> tuple[TrainState, Metrics]:
    """One update: (state, batch of [B, ...], the run's root key) -> (state, metrics).

    Args:
        draw: (key, batch) -> all the randomness of the step.
        loss: (params, batch, draws) -> (value, metrics), deterministic.
        tx: optimizer.
        ema_decay: of the moving average, reached from below: min(decay, (1 + n) / (10 + n)) after n updates.
        axis_name: of pmap, when under it; gradients and metrics are averaged over it.
    """
    key = jax.random.fold_in(key, state.step)
    if axis_name is not None:  # replicas share the key: unfolded, they would all draw the same noise
        key = jax.random.fold_in(key, jax.lax.axis_index(axis_name))
    draws = draw(key, batch)
    (value, metrics), grads = jax.value_and_grad(loss, has_aux=True)(state.params, batch, draws)
    metrics = metrics | {'loss': value}
    if axis_name is not None:
        grads, metrics = jax.lax.pmean((grads, metrics), axis_name)
    updates, opt_state = tx.update(grads, state.opt_state, state.params)
    params = optax.apply_updates(state.params, updates)
    decay = jnp.minimum(ema_decay, (1 + state.step) / (10 + state.step))
    ema_params = optax.incremental_update(params, state.ema_params, 1 - decay)
    state = state.replace(step=state.step + 1, params=params, ema_params=ema_params, opt_state=opt_state)
    return state, metrics | {'grad_norm': optax.tree.norm(grads)}
