"""The job of the loop: how a state is made, advanced and shown."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping

import optax

from ldm_jax.training import ema, step
from ldm_jax.training import state as train_state
from ldm_jax.training.stages import adversarial
from ldm_jax.training.trained import Axes, Trained
from ldm_jax.types import Array, PyTree


def _whole(state: PyTree) -> tuple[PyTree, PyTree]:
    return state, ()


def _first(changed: PyTree, fixed: PyTree) -> PyTree:
    return changed


def _none(key: Array) -> PyTree:
    return ()


@dataclasses.dataclass(frozen=True)
class Job:
    """Pure functions.

    init: key -> state, any pytree of arrays.
    step: (state, batch of [B, ...], the run's root key, axis_name=None) -> (state, metrics). Metrics are numbers
        or arrays, such as the loss by bins of the timestep, NaN where a bin is empty. A metric 'nonfinite' is 1
        where the update was left out because the loss or a gradient was not finite, else 0. With an axis_name
        gradients and metrics are averaged over it.
    images: (state, batch of [B, ...], key) -> name -> rows of images [R, C, H, W, 3] in [-1, 1].
    axes: () -> path of a parameter -> its logical axes, where parameters are to be cut.
    split: state -> (what training changes, what stays as `init` made it, such as frozen encoders, which checkpoints
        then do without); merge is its inverse, and fixed: key -> the latter, of the key that `init` was given.

    A metric that is a mean over part of the examples may say how many they were as '<name>_count', of its shape.
    """

    init: Callable[[Array], PyTree]
    step: Callable[..., tuple[PyTree, dict[str, Array]]]
    images: Callable[[PyTree, PyTree, Array], dict[str, Array]] | None = None
    axes: Callable[[], Axes] = dict
    split: Callable[[PyTree], tuple[PyTree, PyTree]] = _whole
    merge: Callable[[PyTree, PyTree], PyTree] = _first
    fixed: Callable[[Array], PyTree] = _none


def of_stage(
    stage: Trained,
    tx: optax.GradientTransformation,
    decays: Mapping[str, ema.Decay],
    accumulate: int = 1,
    discriminator_tx: optax.GradientTransformation | None = None,
) -> Job:
    """The job of training a stage; images are made by the average ema.MAIN.

    Args:
        tx: optimizer.
        decays: of the moving averages, by name.
        accumulate: micro-batches of a step.
        discriminator_tx: of the stage's discriminator, where it has one.
    """

    def images(state: PyTree, batch: PyTree, key: Array) -> dict[str, Array]:
        params = state.ema_params
        made = {'rows': stage.image(params, batch, stage.draw(key, batch))}
        return made | stage.sample(params, batch, key)

    def init(key: Array) -> PyTree:
        state = train_state.of(stage, key, tx, decays)
        if discriminator_tx is None:
            return state
        return adversarial.create(stage, key, state, discriminator_tx)

    def merge(state: PyTree, frozen: PyTree) -> PyTree:
        return state.with_frozen(frozen)

    if discriminator_tx is None:
        update = step.of(stage, tx, decays, accumulate)
    else:
        update = functools.partial(
            adversarial.train_step,
            stage=stage,
            tx=tx,
            discriminator_tx=discriminator_tx,
            decays=decays,
            accumulate=accumulate,
        )
    return Job(
        init,
        update,
        images,
        axes=stage.axes,
        split=lambda state: (state.with_frozen({}), state.frozen),
        merge=merge,
        fixed=lambda key: train_state.copied(stage.frozen),
    )
