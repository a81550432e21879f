"""Prompts and negative prompts, with the model's other kinds of conditioning, and the guidance between them."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

from ldm_jax.conditioning.combine import Conditions, joined
from ldm_jax.conditioning.prompts import Texts
from ldm_jax.conditioning.text import NEGATIVE
from ldm_jax.diffusion.changing import Changing
from ldm_jax.inference.pipeline import Pipeline
from ldm_jax.inference.settings import Guidance, Sampling
from ldm_jax.inference.sizes import Sizes
from ldm_jax.pipelines import long_prompts
from ldm_jax.pipelines.timing import Course, steps_of
from ldm_jax.text.prompts import dialects
from ldm_jax.text.prompts.composition import Part
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
    *,
    course: Course = Course(),  # noqa: B008 (frozen)
    alike: bool = False,
) -> tuple[tuple[Cond | Changing, ...], Guidance]:
    """The conditionings, the unconditional one first, and the guidance between them.

    Args:
        sampling: its `prompting` says how prompts are read.
        prompts, negative_prompts: without guidance the latter are left out; a prompt may have several parts (AND), each
            of which is a conditioning of its own.
        size: (H, W) of the images.
        sizes, negative_sizes: see text_to_image.
        given: the data of the model's kinds of conditioning beside texts and sizes.
        course: which part of which run this is, for prompts that change on the way.
        alike: all prompts get as many tokens as the longest, by empty prompts, so that they can be mixed.

    Raises ValueError where there are not as many negative prompts as prompts, for several parts without guidance, and
    for what the prompt language cannot read.
    """
    dialect = dialects.named(sampling.prompting.syntax)
    columns, weights = columns_of([dialect.parts(prompt) for prompt in prompts])
    guidance = pipeline.guidance(sampling, len(prompts))
    if len(columns) > 1:
        if guidance.scale is None:
            raise ValueError('Several prompts at once (AND) are guided towards: give a guidance_scale.')
        if guidance.autoguidance_scale is not None:
            raise ValueError(
                'Several prompts at once (AND) do not go with autoguidance: leave autoguidance_scale out.'
            )
    guided = guidance.scale is not None
    if guided and guidance.autoguidance_scale is None and (len(columns) > 1 or (weights[0] != 1).any()):
        guidance = dataclasses.replace(guidance, weights=tuple(weights))
    negative = _as_many(negative_prompts, len(prompts)) if guided else None
    found = _texts(pipeline, sampling, columns, negative, course)
    texts = [
        _conditions(pipeline, said, found[-1] if guided else None, size, sizes, negative_sizes)
        for said in found[: len(columns)]
    ]
    others = pipeline.conditions(given or {}, guided=guided)
    if 'weights' in found[0].arrays:
        pieces = [(text, others, ()) for text in texts]
        if guided:
            pieces.insert(0, (texts[0], others, [*texts[0], *others]))
            found = [found[-1], *found[:-1]]
        return long_prompts.assembled(pipeline, sampling, pieces, found, guided=guided, alike=alike), guidance
    conds = tuple(joined({**text, **others}) for text in texts)
    if not guided:
        return conds, guidance
    return (joined({**texts[0], **others}, [*texts[0], *others]), *conds), guidance


def columns_of(prompts: Sequence[Sequence[Part]]) -> tuple[list[list[str]], list[np.ndarray]]:
    """B prompts of parts as C columns of B texts, and C times their weights, float32 [B].

    C is the most parts that one of them has; the others repeat their last part with a weight of 0.
    """
    most = max(map(len, prompts))
    rows = [[*parts, *[Part(parts[-1].text, 0.0)] * (most - len(parts))] for parts in prompts]
    columns = list(zip(*rows, strict=True))
    texts = [[part.text for part in column] for column in columns]
    return texts, [np.asarray([part.weight for part in column], np.float32) for column in columns]


def _texts(
    pipeline: Pipeline,
    sampling: Sampling,
    columns: Sequence[Sequence[str]],
    negative: Sequence[str] | None,
    course: Course,
) -> list[Texts]:
    """Columns of texts, the negative one last, as arrays; either all of them are plain tokens, or none."""
    reader = pipeline.reader(sampling.prompting)
    texts = [*columns, *([] if negative is None else [[reader.dialect.negative(text) for text in negative]])]
    steps, evaluations = steps_of(pipeline, sampling, course, texts)
    found = [reader.read(column, steps) for column in texts]
    if any('weights' in said.arrays for said in found):
        found = [
            said if 'weights' in said.arrays else reader.read(column, steps, weighted=True)
            for said, column in zip(found, texts, strict=True)
        ]
    done = course.done * evaluations
    return [
        said if said.index is None else dataclasses.replace(said, index=said.index[:, done:])
        for said in found
    ]


def _conditions(
    pipeline: Pipeline,
    said: Texts,
    negative: Texts | None,
    size: tuple[int, int],
    sizes: Sizes | None = None,
    negative_sizes: Sizes | None = None,
) -> Conditions:
    """The conditions of texts, and of sizes where the model has them; without negative texts it is not guided.

    Raises ValueError for sizes that the model is not conditioned on.
    """
    count, guided = pipeline.parts.num_sizes, negative is not None
    if sizes is not None and not count:
        raise ValueError(
            f'This model is not conditioned on sizes: leave {sizes} out. SDXL and its refiner are.'
        )
    batch = len(said.chunks)
    given = {'text': dict(said.arrays)}
    if negative is not None:
        given['text'] |= {NEGATIVE + name: array for name, array in negative.arrays.items()}
        given['text']['blank'] = negative.blank
    if count:
        if negative_sizes is None and sizes is not None:
            negative_sizes = dataclasses.replace(sizes, aesthetic_score=None)
        given['sizes'] = {'size': _rows(sizes, count, size, batch, negative=False)}
        if guided:
            given['sizes']['negative_size'] = _rows(negative_sizes, count, size, batch, negative=True)
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
