"""Learning rates: a linear warm-up to a peak, then one of the curves below."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import jax.numpy as jnp
import optax

from ldm_jax.build import function


def constant(lr: float, num_steps: int) -> optax.Schedule:
    """lr."""
    return optax.constant_schedule(lr)


def linear(lr: float, num_steps: int, *, final_lr: float = 0.0, hold: float = 0.0) -> optax.Schedule:
    """Straight to final_lr at num_steps; with `hold`, a share of them, constant for so long before ("WSD").

    Raises ValueError for a hold outside [0, 1).
    """
    if not 0 <= hold < 1:
        raise ValueError(f'hold is a share of all steps, at least 0 and below 1; got {hold}.')
    held = int(hold * num_steps)
    return optax.linear_schedule(lr, final_lr, num_steps - held, held)


def cosine(lr: float, num_steps: int, *, final_lr: float = 0.0) -> optax.Schedule:
    """Half a cosine to final_lr at num_steps. Ref: Loshchilov & Hutter 2017, arXiv:1608.03983, eq. 5."""
    return optax.cosine_decay_schedule(lr, num_steps, final_lr / lr)


def rsqrt(lr: float, num_steps: int, *, timescale: int = 10000) -> optax.Schedule:
    """lr for `timescale` steps, then lr / sqrt(n / timescale). Ref: Karras et al. 2024, arXiv:2312.02696."""
    if timescale < 1:
        raise ValueError(f'timescale must be at least 1; got {timescale}.')
    return optax.join_schedules(
        [optax.constant_schedule(lr), lambda n: lr * (1 + jnp.maximum(n, 0) / timescale) ** -0.5], [timescale]
    )


def steps(lr: float, num_steps: int, *, at: tuple[int, ...] = (), factor: float = 0.1) -> optax.Schedule:
    """Multiplied by `factor` at each step of a list; steps count from the end of the warm-up."""
    return optax.piecewise_constant_schedule(lr, {int(n): factor for n in at})


CURVES: dict[str, Callable[..., optax.Schedule]] = {
    curve.__name__: curve for curve in (constant, linear, cosine, rsqrt, steps)
}


def rate(
    lr: float, num_steps: int, warmup_steps: int = 0, curve: str | Mapping[str, Any] = 'cosine'
) -> optax.Schedule:
    """The learning rate by the number of updates made before.

    Args:
        lr: the highest, reached after warmup_steps on a straight line from 0.
        warmup_steps: clipped to the last step but one.
        num_steps: of the run, warm-up included.
        curve: after the warm-up: a name of CURVES, or dict(name='cosine', final_lr=1e-5).

    Raises ValueError for a warm-up below 0, a rate that is not above 0, and for a curve or knob that does not exist.
    """
    if warmup_steps < 0:
        raise ValueError(f'warmup_steps must be at least 0; got {warmup_steps}.')
    warmup_steps = min(warmup_steps, num_steps - 1)
    if not lr > 0:
        raise ValueError(f'lr must be above 0; got {lr}.')
    after = function('learning-rate curve', CURVES, curve)(lr, num_steps - warmup_steps)
    if not warmup_steps:
        return after
    return optax.join_schedules([optax.linear_schedule(0.0, lr, warmup_steps), after], [warmup_steps])
