"""What the loop runs: how a state is made, advanced and shown."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any, Protocol

import optax

from ldm_jax.data import pipeline
from ldm_jax.training.state import TrainState, create
from ldm_jax.training.step import train_step
from ldm_jax.types import Array, PyTree


class Trained(Protocol):
    """What is trained and on what: class Stage of first_stage, contrastive and latent_diffusion."""

    def init(self, key: Array) -> PyTree: ...

    def prepare(self, source: pipeline.Examples) -> pipeline.Examples: ...  # as draw and loss want them

    def draw(self, key: Array, batch: PyTree) -> PyTree: ...

    def loss(self, params: PyTree, batch: PyTree, draws: PyTree) -> tuple[Array, dict[str, Array]]: ...

    def picture(self, params: PyTree, batch: PyTree, draws: PyTree) -> Array: ...  # [R, C, H, W, 3]


def _whole(state: PyTree) -> tuple[PyTree, PyTree]:
    return state, ()


def _first(changed: PyTree, fixed: PyTree) -> PyTree:
    return changed


@dataclasses.dataclass(frozen=True)
class Job:
    """Three pure functions.

    init: key -> state, any pytree of arrays.
    step: (state, batch of [B, ...], the run's root key, axis_name=None) -> (state, metrics). Metrics are numbers
        or arrays, such as the loss by bins of the timestep, NaN where a bin is empty. A metric 'nonfinite' is 1
        where the update was left out because the loss or a gradient was not finite, else 0. With an axis_name
        gradients and metrics are averaged over it.
    split: state -> (what training changes, what `init` makes again from its key, such as frozen encoders, which
        checkpoints then do without); merge is its inverse.
    pictures: (state, batch of [B, ...], key) -> name -> rows of images [R, C, H, W, 3] in [-1, 1].
    axes: path of a parameter -> its logical axes, for parallel.RULES.

    A metric that is a mean over part of the examples may say how many they were as '<name>_count', of its shape.
    """

    init: Callable[[Array], PyTree]
    step: Callable[..., tuple[PyTree, dict[str, Array]]]
    pictures: Callable[[PyTree, PyTree, Array], dict[str, Array]] | None = None
    axes: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    split: Callable[[PyTree], tuple[PyTree, PyTree]] = _whole
    merge: Callable[[PyTree, PyTree], PyTree] = _first


def of_stage(stage: Trained, tx: optax.GradientTransformation, ema_decay: float) -> Job:
    """The job of training a stage with one optimizer; pictures are made by the averaged parameters."""

    def init(key: Array) -> TrainState:
        return create(stage.init(key), tx)

    def pictures(state: TrainState, batch: PyTree, key: Array) -> dict[str, Array]:
        return {'rows': stage.picture(state.ema_params, batch, stage.draw(key, batch))}

    step = functools.partial(train_step, draw=stage.draw, loss=stage.loss, tx=tx, ema_decay=ema_decay)
    return Job(init, step, pictures)
