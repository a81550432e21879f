"""Prompts to pictures: every model that is told a text and nothing else, SDXL and its refiner too."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from ldm_jax.inference import model_kinds
from ldm_jax.inference import pipeline as pipelines
from ldm_jax.inference.guidance import Guide
from ldm_jax.inference.pipeline import Pipeline
from ldm_jax.inference.settings import Sampling
from ldm_jax.inference.sizes import Sizes
from ldm_jax.text import prompt
from ldm_jax.types import Cond, NoiseLevel


def text_to_image(
    pipeline: Pipeline,
    prompts: str | Sequence[str],
    negative_prompts: str | Sequence[str] = '',
    *,
    size: tuple[int, int] | None = None,
    seed: int | Sequence[int] = 0,
    sampling: Sampling = Sampling(),  # noqa: B008 (frozen)
    sizes: Sizes | None = None,
    negative_sizes: Sizes | None = None,
) -> np.ndarray:
    """Images [B, H, W, 3] in [-1, 1], one for each prompt.

    Args:
        prompts, negative_prompts: one text, or B; one negative text stands for all. A prompt may have several parts,
            which are guided towards at once: 'a cat :1.2 AND a dog :0.8' (text.prompt).
        size: (H, W); by default the model's own.
        seed: of the first picture, the next ones having the next numbers; or B of them. A picture depends on its
            own prompt, seed and settings, not on those beside it or on the devices.
        sizes, negative_sizes: what SDXL is told of the making of what is wanted, and of what is not; the same of
            both by default, but for the refiner's aesthetic score.

    Raises ValueError for a model that is told something else too, or for a size that it cannot make.
    """
    prompts = [prompts] if isinstance(prompts, str) else list(prompts)
    model_kinds.check(pipeline.parts, 'text_to_image', 'text')
    size = pipeline.size(size)
    seeds = pipelines.seeds_from(seed, len(prompts))
    _, levels = sampling.plan(pipeline.parts.schedule)
    x = starting_noise(pipeline, sampling, levels, seeds, size)
    conds, guide = texts(pipeline, sampling, prompts, negative_prompts, size, sizes, negative_sizes)
    return pipeline.decode(pipeline.sample(sampling, x, levels, conds, seeds, guide=guide))


def starting_noise(
    pipeline: Pipeline, sampling: Sampling, levels: NoiseLevel, seeds: Sequence[int], size: tuple[int, int]
) -> np.ndarray:
    """Latents of noise alone at the first level."""
    return at_start(sampling, levels, pipeline.noise(seeds, size, sampling.noise_source))


def at_start(sampling: Sampling, levels: NoiseLevel, noise: np.ndarray) -> np.ndarray:
    """Standard normal noise scaled to the first level."""
    alpha, sigma = float(levels.alpha[0]), float(levels.sigma[0])
    scale = sigma if sampling.start == 'noise' else np.hypot(alpha, sigma)
    return np.float32(scale) * noise


def texts(
    pipeline: Pipeline,
    sampling: Sampling,
    prompts: Sequence[str],
    negative_prompts: str | Sequence[str],
    size: tuple[int, int],
    sizes: Sizes | None = None,
    negative_sizes: Sizes | None = None,
) -> tuple[tuple[Cond, ...], Guide]:
    """What is told and how it guides: negative prompts, unless there is no guidance, and the parts of prompts.

    Raises ValueError where there are not as many negative prompts as prompts, for an empty part of a prompt, and for
    several parts without guidance.
    """
    told, guide = prompt.columns(prompts), sampling.guide(len(prompts))
    if len(told) > 1:
        if guide.scale is None:
            raise ValueError('Several prompts at once (AND) are guided towards: give a guidance_scale.')
        if guide.auto is not None:
            raise ValueError(
                'Several prompts at once (AND) do not go with autoguidance: leave guide_scale out.'
            )
        guide = guide.replace(weights=tuple(weights for _, weights in told))
    conds = tuple(pipeline.text(column, size, sizes=sizes) for column, _ in told)
    if guide.scale is None:
        return conds, guide
    if isinstance(negative_prompts, str):
        negative_prompts = [negative_prompts] * len(prompts)
    if len(negative_prompts) != len(prompts):
        raise ValueError(
            f'{len(negative_prompts)} negative prompts for {len(prompts)} prompts: give as many, or one.'
        )
    if negative_sizes is None and sizes is not None:
        negative_sizes = dataclasses.replace(sizes, aesthetic_score=None)
    uncond = pipeline.text(negative_prompts, size, negative=True, sizes=negative_sizes)
    return (uncond, *conds), guide
