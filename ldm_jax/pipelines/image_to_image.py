"""An image made anew after a prompt: noised part of the way, then denoised (SDEdit).

Ref: Meng et al. 2021, arXiv:2108.01073.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ldm_jax.inference import model_kinds
from ldm_jax.inference import pipeline as pipelines
from ldm_jax.inference.pipeline import Pipeline
from ldm_jax.inference.settings import SAMPLING, Sampling
from ldm_jax.inference.sizes import Sizes
from ldm_jax.pipelines.prompts import prompt_conds
from ldm_jax.pipelines.start import each_image, last_levels, noised, normal_noise, posterior
from ldm_jax.pipelines.timing import Course


def image_to_image(
    pipeline: Pipeline,
    prompts: str | Sequence[str],
    images: np.ndarray,
    negative_prompts: str | Sequence[str] = '',
    *,
    strength: float = 0.8,
    seed: int | Sequence[int] = 0,
    sampling: Sampling = SAMPLING,
    sizes: Sizes | None = None,
    negative_sizes: Sizes | None = None,
    course: Course = Course(),  # noqa: B008 (frozen)
) -> np.ndarray:
    """Images [B, H, W, 3] in [-1, 1], one for each prompt.

    Args:
        images: [H, W, 3] or [B, H, W, 3] in [-1, 1] to begin with, at the size that is wanted.
        strength: share of the steps that are taken, from the end: 1 keeps next to nothing.
        prompts, negative_prompts, seed, sizes, negative_sizes: as in text_to_image.
        course: which part of which run this is, for prompts that change on the way. Steps of prompts are counted from
            the first that is taken, as in the web UI.

    Raises ValueError for a strength outside (0, 1] or that leaves no step, and as text_to_image.
    """
    prompts = [prompts] if isinstance(prompts, str) else list(prompts)
    model_kinds.check(pipeline.parts, 'image_to_image', 'text')
    images = each_image(images, len(prompts))
    size = pipeline.size(images.shape[1:3])
    levels = last_levels(pipeline.plan(sampling)[1], strength)
    seeds = pipelines.seeds_from(seed, len(prompts))
    latents = posterior(pipeline, images, seeds, sampling)
    x = noised(latents, normal_noise(pipeline, sampling, seeds, size, draw=1), levels)
    conds, guidance = prompt_conds(
        pipeline, sampling, prompts, negative_prompts, size, sizes, negative_sizes, course=course
    )
    return pipeline.decode(pipeline.sample(sampling, x, levels, conds, seeds, guidance=guidance))
