"""The state of a training run at a step."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping

import jax
import jax.numpy as jnp
import optax
from flax import struct

from ldm_jax.training.ema import MAIN
from ldm_jax.training.trained import Trained
from ldm_jax.types import Array, PyTree


@struct.dataclass
class TrainState:
    """Parameters, their moving averages and the memories of optimizer and stage after `step` steps.

    frozen is what the loss needs and nothing changes (encoders): arguments of the compiled step, since as constants
    it would hold them itself. A checkpoint can do without: replace(frozen={}).
    """

    step: Array  # int32: batches that were seen
    skipped: Array  # int32: of those, the ones without an update, since something was not finite
    params: PyTree
    ema: dict[str, PyTree]  # averages by name, see training/ema.py
    opt_state: optax.OptState
    memory: PyTree  # of the stage: what losses were met at which times, for importance sampling
    frozen: dict[str, PyTree]

    @property
    def ema_params(self) -> PyTree:
        """All parameters to make images with, frozen ones too: the average MAIN, or the newest without one."""
        return join(self.ema.get(MAIN, self.params), self.frozen)

    def with_frozen(self, frozen: dict[str, PyTree]) -> TrainState:
        """The state with these in place of the frozen parameters."""
        return dataclasses.replace(self, frozen=frozen)


def create(
    params: PyTree,
    tx: optax.GradientTransformation,
    averages: Iterable[str] = (MAIN,),
    memory: PyTree = (),
    frozen: dict[str, PyTree] | None = None,
) -> TrainState:
    """The state before the first update, with averages of these names."""
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        skipped=jnp.zeros((), jnp.int32),
        params=params,
        ema={name: jax.tree.map(jnp.copy, params) for name in averages},  # copies, so that all can be donated
        opt_state=tx.init(params),
        memory=memory,
        frozen=copied(frozen or {}),
    )


def copied(params: Mapping[str, PyTree]) -> dict[str, PyTree]:
    """Parameters as arrays of their own, so that they can be donated."""
    return jax.tree.map(jnp.array, dict(params))


def of(
    stage: Trained, key: Array, tx: optax.GradientTransformation, averages: Iterable[str] = (MAIN,)
) -> TrainState:
    """The state in which a stage starts."""
    return create(stage.init(key), tx, averages, stage.memory(), dict(stage.frozen))


def join(params: PyTree, frozen: dict[str, PyTree]) -> PyTree:
    """The parameters that a stage's loss takes: trained and frozen ones by part."""
    return {**frozen, **params} if frozen else params
