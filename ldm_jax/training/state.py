"""What a training run is at a step."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import optax
from flax import struct

from ldm_jax.types import Array, PyTree


@struct.dataclass
class TrainState:
    """Parameters, their moving average and the optimizer's memory after `step` updates."""

    step: Array
    params: PyTree
    ema_params: PyTree
    opt_state: optax.OptState


def create(params: PyTree, tx: optax.GradientTransformation) -> TrainState:
    """The state before the first update."""
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        params=params,
        ema_params=jax.tree.map(jnp.copy, params),  # a copy, so that both can be donated
        opt_state=tx.init(params),
    )
