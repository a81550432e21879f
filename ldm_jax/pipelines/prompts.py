"""Prompts and negative prompts, with the model's other kinds of conditioning, and the guidance between them."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

from ldm_jax.conditioning.combine import Conditions, joined
from ldm_jax.inference.pipeline import Pipeline
from ldm_jax.inference.settings import Guidance, Sampling
from ldm_jax.inference.sizes import Sizes
from ldm_jax.text import prompt
from ldm_jax.types import Cond

Given = Mapping[str, Mapping[str, np.ndarray]]  # name of a kind of conditioning -> arrays [B, ...]


def prompt_conds(
    pipeline: Pipeline,
    sampling: Sampling,
    prompts: Sequence[str],
    negative_prompts: str | Sequence[str],
    size: tuple[int, int],
    sizes: Sizes | None = None,
    negative_sizes: Sizes | None = None,
    given: Given | None = None,
) -> tuple[tuple[Cond, ...], Guidance]:
    """The conditionings, the unconditional one first, and the guidance between them.

    Args:
        prompts, negative_prompts: without guidance the latter are left out; a prompt may have several parts (AND), each
            of which is a conditioning of its own.
        size: (H, W) of the images.
        sizes, negative_sizes: see text_to_image.
        given: the data of the model's kinds of conditioning beside texts and sizes.

    Raises ValueError where there are not as many negative prompts as prompts, for an empty part of a prompt, and for
    several parts without guidance.
    """
    parts, guidance = prompt.columns(prompts), pipeline.guidance(sampling, len(prompts))
    if len(parts) > 1:
        if guidance.scale is None:
            raise ValueError('Several prompts at once (AND) are guided towards: give a guidance_scale.')
        if guidance.autoguidance_scale is not None:
            raise ValueError(
                'Several prompts at once (AND) do not go with autoguidance: leave autoguidance_scale out.'
            )
        guidance = dataclasses.replace(guidance, weights=tuple(weights for _, weights in parts))
    guided = guidance.scale is not None
    negative = _as_many(negative_prompts, len(prompts)) if guided else None
    texts = [text_conditions(pipeline, column, negative, size, sizes, negative_sizes) for column, _ in parts]
    others = pipeline.conditions(given or {}, guided=guided)
    conds = tuple(joined({**text, **others}) for text in texts)
    if not guided:
        return conds, guidance
    return (joined({**texts[0], **others}, [*texts[0], *others]), *conds), guidance


def text_conditions(
    pipeline: Pipeline,
    prompts: Sequence[str],
    negative_prompts: Sequence[str] | None,
    size: tuple[int, int],
    sizes: Sizes | None = None,
    negative_sizes: Sizes | None = None,
) -> Conditions:
    """The conditions of texts, and of sizes where the model has them; without negative prompts it is not guided.

    Raises ValueError for sizes that the model is not conditioned on.
    """
    count, guided = pipeline.parts.num_sizes, negative_prompts is not None
    if sizes is not None and not count:
        raise ValueError(
            f'This model is not conditioned on sizes: leave {sizes} out. SDXL and its refiner are.'
        )
    given = {'text': pipeline.tokens(prompts)}
    if guided:
        given['text'] |= pipeline.tokens(negative_prompts, 'negative_')
        given['text']['blank'] = np.array([not text.strip() for text in negative_prompts])
    if count:
        if negative_sizes is None and sizes is not None:
            negative_sizes = dataclasses.replace(sizes, aesthetic_score=None)
        given['sizes'] = {'size': _rows(sizes, count, size, len(prompts), negative=False)}
        if guided:
            given['sizes']['negative_size'] = _rows(negative_sizes, count, size, len(prompts), negative=True)
    return pipeline.conditions(given, guided=guided)


def _rows(sizes: Sizes | None, count: int, size: tuple[int, int], batch: int, negative: bool) -> np.ndarray:
    numbers = np.asarray((sizes or Sizes()).numbers(count, size, negative), np.float32)
    return np.broadcast_to(numbers, (batch, count))


def _as_many(negative_prompts: str | Sequence[str], count: int) -> list[str]:
    if isinstance(negative_prompts, str):
        return [negative_prompts] * count
    if len(negative_prompts) != count:
        raise ValueError(
            f'{len(negative_prompts)} negative prompts for {count} prompts: give as many, or one.'
        )
    return list(negative_prompts)
