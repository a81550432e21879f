"""SDXL's base and refiner as an ensemble of experts: the base takes the noisier levels, the refiner the rest.

Latents are handed over as they are, noisy. A finished image is refined by image_to_image.
Ref: Podell et al. 2023, arXiv:2307.01952, section 2.5; Balaji et al. 2022, arXiv:2211.01324.
"""

from __future__ import annotations

from collections.abc import Sequence

import jax
import numpy as np

from ldm_jax.inference import model_kinds
from ldm_jax.inference import pipeline as pipelines
from ldm_jax.inference.pipeline import Pipeline
from ldm_jax.inference.settings import SAMPLING, Sampling
from ldm_jax.inference.sizes import Sizes
from ldm_jax.pipelines.prompts import prompt_conds
from ldm_jax.pipelines.start import starting_noise
from ldm_jax.pipelines.timing import Course
from ldm_jax.types import NoiseLevel, Schedule


def refine(
    pipeline: Pipeline,
    refiner: Pipeline,
    prompts: str | Sequence[str],
    negative_prompts: str | Sequence[str] = '',
    *,
    share: float = 0.8,
    size: tuple[int, int] | None = None,
    seed: int | Sequence[int] = 0,
    sampling: Sampling = SAMPLING,
    sizes: Sizes | None = None,
    negative_sizes: Sizes | None = None,
) -> np.ndarray:
    """Images [B, H, W, 3] in [-1, 1], one for each prompt, decoded by the refiner.

    Args:
        pipeline: the base.
        refiner: of the same latents and schedule.
        share: of the schedule's time that is the base's, above 0 and below 1.
        prompts, negative_prompts, size, seed, sizes, negative_sizes: as in text_to_image, for both.

    Raises ValueError for models that do not go together, a share that leaves either without a step, and as
    text_to_image.
    """
    prompts = [prompts] if isinstance(prompts, str) else list(prompts)
    check(pipeline, refiner)
    size = refiner.size(pipeline.size(size))
    seeds = pipelines.seeds_from(seed, len(prompts))
    _, levels = pipeline.plan(sampling)
    first = handover(pipeline.parts.schedule, levels, share)
    given = [
        prompt_conds(each, sampling, prompts, negative_prompts, size, sizes, negative_sizes, course=course)
        for each, course in ((pipeline, Course()), (refiner, Course(done=first)))
    ]
    x = starting_noise(pipeline, sampling, levels, seeds, size)
    x = pipeline.sample(sampling, x, levels, given[0][0], seeds, guidance=given[0][1], stop=first)
    rest = jax.tree.map(lambda a: a[first:], levels)
    return refiner.decode(refiner.sample(sampling, x, rest, given[1][0], seeds, guidance=given[1][1]))


def handover(schedule: Schedule, levels: NoiseLevel, share: float) -> int:
    """The index of the level where the refiner begins, as diffusers counts it: below (1 - share) of the times.

    Raises ValueError for a share outside (0, 1), or that leaves base or refiner without a step.
    """
    if not 0 < share < 1:
        raise ValueError(
            f"share must be above 0 and below 1; got {share}. text_to_image makes it all the base's."
        )
    times = np.asarray(levels.t)[:-1]
    above = np.flatnonzero(times >= round(schedule.num_train_steps * (1 - share)))
    first = above[-1] + 1 if above.size else 0
    if first in (0, len(times)):
        raise ValueError(
            f'share {share} of {len(times)} steps leaves none for the {"refiner" if first else "base"}: take more '
            'steps, or another share.'
        )
    return int(first)


def check(base: Pipeline, refiner: Pipeline) -> None:
    """Raises ValueError for models that cannot hand latents over."""
    for each in (base, refiner):
        model_kinds.check(each.parts, 'refine', 'text')
    for name in ('schedule', 'scaling_factor', 'downscale'):
        ours, theirs = getattr(base.parts, name), getattr(refiner.parts, name)
        if ours != theirs:
            raise ValueError(
                f'Base and refiner must share their latents: {name} is {ours} of the base and {theirs} of the '
                "refiner. Refine the base's finished images by image_to_image."
            )
