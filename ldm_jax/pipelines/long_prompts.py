"""Prompts of unequal lengths as conditionings of one: padded, and the padding masked.

Prompt and negative prompt of an image, and the parts of a prompt (AND), may have different numbers of chunks. The web
UI repeats the last token of shorter parts, and evaluates the network for prompt and negative prompt apart if they
differ; here one evaluation leaves out the tokens that are padding, to the same answer.

Ref: AUTOMATIC1111/stable-diffusion-webui 1.10, modules/sd_samplers_cfg_denoiser.py and prompt_parser.stack_conds.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ldm_jax import denoising
from ldm_jax.conditioning.combine import Conditions, joined, merge
from ldm_jax.conditioning.prompts import Texts, rounded
from ldm_jax.diffusion.changing import Changing
from ldm_jax.inference.pipeline import Pipeline
from ldm_jax.inference.settings import Sampling
from ldm_jax.types import Array, Cond

Piece = tuple[
    Conditions, Conditions, Iterable[str]
]  # texts with sizes, other kinds, those that are unconditional


def assembled(
    pipeline: Pipeline,
    sampling: Sampling,
    pieces: Sequence[Piece],
    texts: Sequence[Texts],
    *,
    guided: bool,
    alike: bool,
) -> tuple[Cond | Changing, ...]:
    """The conditionings of weighted texts.

    Args:
        pieces: of each conditioning, its texts' leaves [B, V, ...].
        texts: what each says.
        guided: the first one is the negative prompt.
        alike: all get as many tokens as the longest one, of empty prompts.
    """
    split = [_split(*piece) for piece in pieces]
    length = split[0][0].context.shape[2] // texts[0].arrays['weights'].shape[2]
    most = rounded(max(max(said.chunks) for said in texts)) * length
    padding = sampling.prompting.padding
    masks = denoising.masks_context(pipeline.parts.unet) and not alike
    empty = None
    if padding == 'empty' or not masks:
        empty = pipeline.conditions({'text': pipeline.tokens([''])}, guided=False)['text'][1].context[0]
    contexts: list[list[Array]] = [[] for _ in texts]
    lengths: list[list[int]] = [[] for _ in texts]
    for b in range(len(texts[0].chunks)):
        rows = [
            variants.context[b, :, : said.chunks[b] * length]
            for (variants, _), said in zip(split, texts, strict=True)
        ]
        rows = equalized(rows, guided=guided, padding=padding, empty=empty)
        for i, row in enumerate(rows):
            if not masks:
                row = filled(row, most, empty)
            lengths[i].append(row.shape[1])
            contexts[i].append(_xp(row).pad(row, ((0, 0), (0, most - row.shape[1]), (0, 0))))
    found = []
    has_mask = any(size < most for sizes in lengths for size in sizes)
    for (variants, fixed), context, sizes, said in zip(split, contexts, lengths, texts, strict=True):
        variants = dataclasses.replace(variants, context=_xp(context[0]).stack(context))
        if has_mask:
            mask = np.arange(most) < np.array(sizes)[:, None]
            fixed = dataclasses.replace(fixed, context_mask=mask)
        found.append(_changing(variants, fixed, said.index))
    return tuple(found)


def equalized(rows: Sequence[Array], *, guided: bool, padding: str, empty: Array | None) -> list[Array]:
    """The contexts [V, L, D] of one image, of which L differ, brought to one length where the web UI does that.

    Args:
        guided: the first one is the negative prompt's.
        padding: of Prompting.padding.
        empty: context [l, D] of the empty prompt, for the padding 'empty'.
    """
    negative, parts = (rows[:1], rows[1:]) if guided else ([], rows)
    longest = max(part.shape[1] for part in parts)
    parts = [filled(part, longest, part[:, -1:]) for part in parts]
    if not negative or padding == 'masked':
        return [*negative, *parts]
    (first,) = negative
    if padding == 'last':
        return [filled(first[:, :longest], longest, first[:, -1:]), *parts]
    longest = max(longest, first.shape[1])
    return [filled(row, longest, empty) for row in (first, *parts)]


def filled(row: Array, length: int, by: Array) -> Array:
    """A context [V, L, D] with another, [l, D] or [V, l, D], behind it as often as it takes to be so long."""
    if row.shape[1] == length:
        return row
    xp = _xp(row)
    by = xp.broadcast_to(by, (len(row), *by.shape[-2:]))
    times = -(-(length - row.shape[1]) // by.shape[1])
    return xp.concatenate([row, *[by] * times], 1)[:, :length]


def _split(texts: Conditions, others: Conditions, without: Iterable[str]) -> tuple[Cond, Cond]:
    """The parts that have variants [B, V, ...], with what others put into them, and the others [B, ...]."""
    without = set(without)
    said: Any = texts['text']['text' not in without]
    rest = {name: pair for name, pair in {**texts, **others}.items() if name != 'text'}
    fixed = joined(rest, without & rest.keys()) if rest else Cond()
    if fixed.context is not None:
        raise ValueError(
            'Weights, changes and long prompts need the context for themselves, and another kind of conditioning is '
            "part of it too: take prompt_syntax 'plain'."
        )
    if said.vector is None:
        return said, fixed
    variants = said.context.shape[1]
    if fixed.vector is not None:
        vector = _xp(fixed.vector).repeat(fixed.vector[:, None], variants, 1)
        said = merge([said, Cond(vector=vector)])
    return said, dataclasses.replace(fixed, vector=None)


def _changing(variants: Cond, fixed: Cond, index: np.ndarray | None) -> Cond | Changing:
    if index is not None:
        return Changing(fixed, variants, index)
    only = jax.tree.map(lambda a: a[:, 0], variants)
    return dataclasses.replace(
        fixed, context=only.context, **({} if only.vector is None else dict(vector=only.vector))
    )


def _xp(array: Array) -> Any:
    return jnp if isinstance(array, jax.Array) else np
