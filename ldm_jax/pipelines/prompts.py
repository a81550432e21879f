"""Prompts and negative prompts as conditionings, and the guidance between them."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from ldm_jax.inference.pipeline import Pipeline
from ldm_jax.inference.settings import Guidance, Sampling
from ldm_jax.inference.sizes import Sizes
from ldm_jax.text import prompt
from ldm_jax.types import Cond


def prompt_conds(
    pipeline: Pipeline,
    sampling: Sampling,
    prompts: Sequence[str],
    negative_prompts: str | Sequence[str],
    size: tuple[int, int],
    sizes: Sizes | None = None,
    negative_sizes: Sizes | None = None,
) -> tuple[tuple[Cond, ...], Guidance]:
    """What is told and how it guides: negative prompts, unless there is no guidance, and the parts of prompts.

    Raises ValueError where there are not as many negative prompts as prompts, for an empty part of a prompt, and for
    several parts without guidance.
    """
    told, guidance = prompt.columns(prompts), pipeline.guidance(sampling, len(prompts))
    if len(told) > 1:
        if guidance.scale is None:
            raise ValueError('Several prompts at once (AND) are guided towards: give a guidance_scale.')
        if guidance.autoguidance_scale is not None:
            raise ValueError(
                'Several prompts at once (AND) do not go with autoguidance: leave autoguidance_scale out.'
            )
        guidance = dataclasses.replace(guidance, weights=tuple(weights for _, weights in told))
    conds = tuple(pipeline.text(column, size, sizes=sizes) for column, _ in told)
    if guidance.scale is None:
        return conds, guidance
    if isinstance(negative_prompts, str):
        negative_prompts = [negative_prompts] * len(prompts)
    if len(negative_prompts) != len(prompts):
        raise ValueError(
            f'{len(negative_prompts)} negative prompts for {len(prompts)} prompts: give as many, or one.'
        )
    if negative_sizes is None and sizes is not None:
        negative_sizes = dataclasses.replace(sizes, aesthetic_score=None)
    uncond = pipeline.text(negative_prompts, size, negative=True, sizes=negative_sizes)
    return (uncond, *conds), guidance
