"""One update of training, a pure function of state, batch and key."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp
import optax

from ldm_jax.training import ema
from ldm_jax.training.monitoring import metrics
from ldm_jax.training.monitoring.metrics import Metrics
from ldm_jax.training.state import TrainState, join
from ldm_jax.training.trained import Trained
from ldm_jax.types import Array, PyTree

Step = Callable[..., tuple[TrainState, dict[str, Array]]]


def train_step(
    state: TrainState,
    batch: PyTree,
    key: Array,
    *,
    draw: Callable[..., PyTree],
    loss: Callable[..., tuple[Array, Metrics]],
    tx: optax.GradientTransformation,
    decays: Mapping[str, ema.Decay],
    remember: Callable[[PyTree, PyTree], PyTree] = lambda memory, observed: memory,
    compares: bool = False,
    accumulate: int = 1,
    axis_name: str | None = None,
) -> tuple[TrainState, dict[str, Array]]:
    """One update: (state, batch of [B, ...], the run's root key) -> (state, metrics).

    Every example draws from a key of its own, that of its place in the whole batch: how many devices or micro-batches
    share the batch changes nothing but rounding. Where loss or gradient is not finite there is no update, of anything
    but `step`, and metrics['nonfinite'] is 1; whether to stop is the loop's choice.

    Args:
        draw: (key, batch) -> all the randomness of the batch, leaves [B, ...]; called with one example at a time.
            A memory that has arrays is given as well.
        loss: (params, batch, draws) -> (value, metrics), deterministic, a mean over examples; params with the frozen
            ones. For a stage that remembers, metrics['observed'] is what it observed, leaves [B, ...].
        tx: optimizer; where it has a `rate`, that is in the metrics.
        decays: of the moving averages in state.ema, by name.
        remember: (memory, observed in the whole batch) -> memory.
        compares: the loss compares examples with each other: it takes axis_name, and with one it is that of all
            replicas' examples together.
        accumulate: in how many micro-batches to go through the batch, one after the other, with memory for one.
            Losses that compare examples (contrastive) compare those of a micro-batch.
        axis_name: of pmap, when under it; gradients and metrics are averaged over it.

    Raises ValueError when the batch does not split into micro-batches.
    """
    size = len(jax.tree.leaves(batch)[0])
    if size % accumulate:
        raise ValueError(
            f'A batch of {size} a device does not split into {accumulate} micro-batches of one size.'
        )
    place = jnp.arange(size) + (0 if axis_name is None else size * jax.lax.axis_index(axis_name))
    keys = jax.vmap(jax.random.fold_in, (None, 0))(jax.random.fold_in(key, state.step), place)
    memory = (state.memory,) if jax.tree.leaves(state.memory) else ()
    loss = functools.partial(loss, axis_name=axis_name) if compares else loss

    def gradients(keys, batch):
        draws = jax.vmap(lambda key, example: _one(draw, key, example, *memory))(keys, batch)
        both = jax.value_and_grad(lambda p: loss(join(p, state.frozen), batch, draws), has_aux=True)
        (value, found), grads = both(state.params)
        found = dict(found)
        observed = found.pop('observed', ())
        return grads, found | {'loss': value}, observed

    grads, found, observed = _accumulated(gradients, keys, batch, accumulate)
    if axis_name is not None:
        grads, found = jax.lax.pmean(grads, axis_name), metrics.across(found, axis_name)
        observed = jax.lax.all_gather(observed, axis_name, tiled=True)
    grad_norm = optax.tree.norm(grads)
    finite = jnp.isfinite(found['loss']) & jnp.isfinite(grad_norm)

    n = state.step - state.skipped  # updates that were made
    updates, opt_state = tx.update(grads, state.opt_state, state.params)
    params = optax.apply_updates(state.params, updates)
    new = dataclasses.replace(
        state,
        params=params,
        opt_state=opt_state,
        ema=ema.update(decays, state.ema, params, n + 1),
        memory=remember(state.memory, observed),
        frozen={},
    )
    new = jax.tree.map(
        lambda new, old: jnp.where(finite, new, old), new, dataclasses.replace(state, frozen={})
    )
    new = dataclasses.replace(new, step=state.step + 1, skipped=state.skipped + ~finite, frozen=state.frozen)
    found = metrics.arrays(found) | {
        'grad_norm': grad_norm,
        'update_norm': optax.tree.norm(updates),
        'param_norm': optax.tree.norm(new.params),
        'nonfinite': 1.0 - finite,
    }
    if hasattr(tx, 'rate'):
        found['lr'] = jnp.asarray(tx.rate(n), jnp.float32)
    return new, found


def of(
    stage: Trained,
    tx: optax.GradientTransformation,
    decays: Mapping[str, ema.Decay],
    accumulate: int = 1,
) -> Step:
    """The step of a stage: (state, batch, key, axis_name=...) -> (state, metrics). Its state is `state.of(stage)`."""
    return functools.partial(
        train_step,
        draw=stage.draw,
        loss=stage.loss,
        tx=tx,
        decays=decays,
        remember=stage.remember,
        compares=stage.compares,
        accumulate=accumulate,
    )


def _one(draw: Callable[..., PyTree], key: Array, example: PyTree, *memory: PyTree) -> PyTree:
    """The draws of one example, which `draw` sees as a batch."""
    draws = draw(key, jax.tree.map(lambda a: a[None], example), *memory)
    return jax.tree.map(lambda a: a[0], draws)


def _accumulated(
    gradients: Callable, keys: Array, batch: PyTree, count: int
) -> tuple[PyTree, Metrics, PyTree]:
    """gradients(keys, batch) by micro-batches: (gradient, metrics, observed) of the whole batch."""
    if count == 1:
        return gradients(keys, batch)

    # Every count-th example, not runs of them: a batch that is sharded over devices then stays where it is.
    def split(a):
        return a.reshape(-1, count, *a.shape[1:]).swapaxes(0, 1)

    def merge(a):
        return a.swapaxes(0, 1).reshape(-1, *a.shape[2:])

    def add(total, micro):
        grads, *rest = gradients(*micro)
        return jax.tree.map(jnp.add, total, grads), rest

    micros = jax.tree.map(split, (keys, batch))
    shapes = jax.eval_shape(gradients, *jax.tree.map(lambda a: a[0], micros))[0]
    zeros = jax.tree.map(lambda a: jnp.zeros(a.shape, a.dtype), shapes)
    total, (found, observed) = jax.lax.scan(add, zeros, micros)
    return jax.tree.map(lambda g: g / count, total), metrics.pool(found), jax.tree.map(merge, observed)
