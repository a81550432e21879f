"""Conditionings that change while an image is sampled, as prompts do that are edited on the way.

Evaluations of the network are counted from 0 over a run, all those of a step among them, as A1111's web UI counts
them: Heun's method at step i makes the evaluations 2 i and 2 i + 1.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from ldm_jax.types import Array, Cond, Denoiser, NoiseLevel


@struct.dataclass
class Changing:
    """A conditioning of B images that is one of V variants at each evaluation.

    How many variants there are is a shape; what they are and when they hold are data.
    """

    fixed: Cond  # the parts that stay, leaves [B, ...]
    variants: Cond  # the parts that change, leaves [B, V, ...]
    index: Array  # int32 [B, E]: which variant holds at each evaluation, the last one for all later ones

    def at(self, evaluation: Array) -> Cond:
        """The conditioning at an evaluation, a number []."""
        now = self.index[:, jnp.minimum(evaluation, self.index.shape[1] - 1)]
        found = jax.tree.map(lambda a: jax.vmap(lambda each, i: each[i])(a, now), self.variants)
        parts = {field.name: getattr(found, field.name) for field in dataclasses.fields(Cond)}
        return dataclasses.replace(
            self.fixed, **{name: part for name, part in parts.items() if part is not None}
        )


def aligned(cond: Cond | Changing) -> Cond | Changing:
    """The same conditioning, its variants in such an order that all images have one index: they can be mixed."""
    if not isinstance(cond, Changing):
        return cond
    columns, index = np.unique(np.asarray(cond.index), axis=1, return_inverse=True)
    rows = np.arange(len(columns))[:, None]
    variants = jax.tree.map(lambda a: a[rows, columns], cond.variants)
    return Changing(cond.fixed, variants, np.broadcast_to(index.astype(np.int32), cond.index.shape))


def reverse(cond: Cond | Changing, num_steps: int, each: int) -> Cond | Changing:
    """The same conditioning for the way back: its steps from the last to the first, each evaluated so often."""
    if not isinstance(cond, Changing):
        return cond
    return dataclasses.replace(cond, index=np.repeat(cond.index[:, :num_steps][:, ::-1], each, axis=1))


def fixed(cond: Cond | Changing) -> Cond:
    """The parts of a conditioning that stay."""
    return cond.fixed if isinstance(cond, Changing) else cond


def with_parts(cond: Cond | Changing, **parts: Array | None) -> Cond | Changing:
    """The same conditioning with other parts, which do not change."""
    if isinstance(cond, Changing):
        return dataclasses.replace(cond, fixed=dataclasses.replace(cond.fixed, **parts))
    return dataclasses.replace(cond, **parts)


def at(cond: Cond | Changing, evaluation: Array) -> Cond:
    """A conditioning at an evaluation, whether it changes or not."""
    return cond.at(evaluation) if isinstance(cond, Changing) else cond


@dataclasses.dataclass(frozen=True)
class ChangingDenoiser:
    """A denoiser for each evaluation of a run, by its number."""

    of: Callable[[Array], Denoiser]

    def by_level(self, levels: NoiseLevel, num_steps: Array) -> Denoiser:
        """One denoiser, for samplers that make their own steps: those of the table tell how far the run is."""
        noise = jnp.where(
            jnp.arange(len(levels.sigma)) < num_steps, levels.sigma / (levels.alpha + levels.sigma), 0
        )

        def denoise(x: Array, level: NoiseLevel) -> Array:
            here = jnp.max(level.sigma / (level.alpha + level.sigma))
            return self.of(jnp.sum(noise > here * (1 + 1e-6)))(x, level)

        return denoise
