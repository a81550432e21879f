"""When prompts change: the evaluations of the network that a run makes, and which of them a part of it begins with."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import jax
import jax.numpy as jnp

from ldm_jax.diffusion.prng import PHILOX
from ldm_jax.diffusion.trace_once import count
from ldm_jax.inference.pipeline import Pipeline
from ldm_jax.inference.settings import Sampling
from ldm_jax.text.prompts.dialects import Steps
from ldm_jax.types import Schedule


@dataclasses.dataclass(frozen=True)
class Course:
    """Which part of which run is sampled.

    Attributes:
        first: the sampling of the first pass, where this is the second one.
        steps: of the second pass.
        done: steps of the run that others have done, as a base has for its refiner.
    """

    first: Sampling | None = None
    steps: int = 0
    done: int = 0


def steps_of(
    pipeline: Pipeline, sampling: Sampling, course: Course, texts: Sequence[Sequence[str]]
) -> tuple[Steps, int]:
    """The evaluations by which texts change, and how many of them a step makes; 1 where no text can change."""
    old, sampling = sampling.prompting.old_editing, sampling.completed(pipeline.sampling)
    if not any('[' in text for column in texts for text in column):
        return Steps(sampling.num_steps, None, old), 1
    schedule = pipeline.parts.schedule
    each = evaluations(sampling, schedule)
    if course.first is None:
        return Steps(sampling.num_steps * each, None, old), each
    first = course.first.completed(pipeline.sampling)
    before = first.num_steps * evaluations(first, schedule)
    return Steps(before, course.steps * each, old), each


def evaluations(sampling: Sampling, schedule: Schedule) -> int:
    """How often a step of a sampler asks the network; 1 of those that make their own steps."""
    sampler, levels = sampling.plan(schedule)
    if hasattr(sampler, 'solve'):
        return 1
    sampler = jax.tree.map(lambda a: jnp.ravel(a)[0], sampler)  # knobs of several images
    here, there = (jax.tree.map(lambda a, i=i: jnp.asarray(a[i], jnp.float32), levels) for i in (0, 1))
    x = jax.ShapeDtypeStruct((1, 1, 1, 1), jnp.float32)

    def asked(x, data):
        keys = jax.random.wrap_key_data(data, impl=PHILOX)
        return count(
            lambda denoise: sampler.step(
                denoise, x, sampler.init(x, levels, jnp.int32(sampling.num_steps)), here, there, keys
            ),
            x,
        )

    found = []
    jax.eval_shape(lambda x, data: found.append(asked(x, data)), x, jax.ShapeDtypeStruct((1, 2), jnp.uint32))
    return max(found[0], 1)
