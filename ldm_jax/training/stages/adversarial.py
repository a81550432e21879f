"""One update of a generator and of its discriminator, a pure function of state, batch and key.

The generator's half is `step.train_step` with the discriminator fixed. Then the discriminator learns to tell images
from what the updated generator makes of them, with noise of its own, as in the original.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import struct

from ldm_jax.training import step
from ldm_jax.training.stages.first_stage import Stage
from ldm_jax.training.stages.first_stage_losses import Adversary
from ldm_jax.training.state import TrainState, join
from ldm_jax.types import Array, PyTree

DISCRIMINATOR = 0x64697363  # folded into a step's key: the noise of the discriminator's half


@struct.dataclass
class Discriminator:
    """Its parameters, running statistics and optimizer's memory. There is no moving average of it."""

    params: PyTree
    batch_stats: PyTree
    opt_state: optax.OptState


@struct.dataclass
class AdversarialState:
    """What a training run with two players is at a step; read like a TrainState, it is the generator's."""

    generator: TrainState
    discriminator: Discriminator

    @property
    def step(self) -> Array:
        return self.generator.step

    @property
    def params(self) -> PyTree:
        return self.generator.params

    @property
    def ema_params(self) -> PyTree:
        return self.generator.ema_params

    @property
    def frozen(self) -> dict[str, PyTree]:
        return self.generator.frozen

    def with_frozen(self, frozen: dict[str, PyTree]) -> AdversarialState:
        """The state with these in place of the frozen parameters."""
        return dataclasses.replace(self, generator=self.generator.with_frozen(frozen))


def create(
    stage: Stage, key: Array, generator: TrainState, discriminator_tx: optax.GradientTransformation
) -> AdversarialState:
    """The state before the first update, with a discriminator beside the generator's state."""
    params, batch_stats = stage.init_discriminator(jax.random.fold_in(key, DISCRIMINATOR))
    return AdversarialState(generator, Discriminator(params, batch_stats, discriminator_tx.init(params)))


def train_step(
    state: AdversarialState,
    batch: PyTree,
    key: Array,
    *,
    stage: Stage,
    tx: optax.GradientTransformation,
    discriminator_tx: optax.GradientTransformation,
    axis_name: str | None = None,
    **options: Any,
) -> tuple[AdversarialState, dict[str, Array]]:
    """One update of both: (state, batch of [B, ...], the run's root key) -> (state, metrics).

    Args:
        stage: draws and losses.
        tx, discriminator_tx: their optimizers. The discriminator's counts its own updates, from disc_start on.
        axis_name: of pmap, when under it. Norms, the adaptive weight and codebook usage are of the whole batch, so
            that any number of devices goes through the same states.
        options: of `step.train_step`, such as decays. The discriminator's half takes the batch at once.

    Metrics of the adversary are 0 before disc_start.
    """
    active = state.step >= stage.disc_start
    adversary = Adversary(state.discriminator.params, active, axis_name)
    generator, metrics = step.train_step(
        state.generator,
        batch,
        key,
        draw=stage.draw,
        loss=functools.partial(stage.loss, adversary=adversary),
        tx=tx,
        axis_name=axis_name,
        **options,
    )
    key = jax.random.fold_in(jax.random.fold_in(key, state.step), DISCRIMINATOR)
    update = functools.partial(_update_discriminator, stage=stage, tx=discriminator_tx, axis_name=axis_name)
    params = join(generator.params, generator.frozen)
    operands = (state.discriminator, params, batch, _draws(stage, key, batch, axis_name))
    shapes = jax.eval_shape(update, *operands)[1]
    zeros = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), shapes)
    # A branch, not a factor of 0: the half costs as much as a generator's forward pass and 0 times inf is NaN.
    discriminator, more = jax.lax.cond(active, update, lambda *operands: (operands[0], zeros), *operands)
    # One player without an update is a step that the loop may want to stop at.
    more['nonfinite'] = jnp.maximum(metrics.get('nonfinite', 0.0), more['nonfinite'])
    return AdversarialState(generator, discriminator), metrics | more


def _update_discriminator(
    discriminator: Discriminator,
    generator_params: PyTree,
    batch: PyTree,
    draws: PyTree,
    *,
    stage: Stage,
    tx: optax.GradientTransformation,
    axis_name: str | None,
) -> tuple[Discriminator, dict[str, Array]]:
    fake = stage.reconstruct(generator_params, batch, draws)
    loss = functools.partial(stage.discriminator_loss, axis_name=axis_name)
    (value, (batch_stats, metrics)), grads = jax.value_and_grad(loss, has_aux=True)(
        discriminator.params, discriminator.batch_stats, batch['image'], fake
    )
    metrics = metrics | {'disc_loss': value}
    if axis_name is not None:
        grads, metrics = jax.lax.pmean((grads, metrics), axis_name)
    grad_norm = optax.tree.norm(grads)
    updates, opt_state = tx.update(grads, discriminator.opt_state, discriminator.params)
    new = Discriminator(optax.apply_updates(discriminator.params, updates), batch_stats, opt_state)
    finite = jnp.isfinite(metrics['disc_loss']) & jnp.isfinite(grad_norm)
    new = jax.tree.map(lambda new, old: jnp.where(finite, new, old), new, discriminator)
    return new, metrics | {'disc_grad_norm': grad_norm, 'nonfinite': 1.0 - finite}


def _draws(stage: Stage, key: Array, batch: PyTree, axis_name: str | None) -> PyTree:
    """Draws of the batch, each example's from a key of its place in the whole one."""
    size = len(batch['image'])
    place = jnp.arange(size) + (0 if axis_name is None else size * jax.lax.axis_index(axis_name))
    keys = jax.vmap(jax.random.fold_in, (None, 0))(key, place)

    def one(key, example):
        draws = stage.draw(key, jax.tree.map(lambda a: a[None], example))
        return jax.tree.map(lambda a: a[0], draws)

    return jax.vmap(one)(keys, batch)
