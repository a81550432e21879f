"""Boxes with classes to images: latent diffusion's layout2img, trained on OpenImages.

A layout is a row of tokens: three for each box, its class and its two corners, each corner a cell of a square grid; a
token for none fills what is left of the boxes, and two for the corners of the image's crop end the row.
Ref: Rombach et al. 2022, arXiv:2112.10752, section 4.3.1; Jahn et al. 2021, arXiv:2105.06458.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from ldm_jax.inference import model_kinds
from ldm_jax.inference import pipeline as pipelines
from ldm_jax.inference.model import Parts
from ldm_jax.inference.pipeline import Pipeline
from ldm_jax.inference.settings import SAMPLING, Sampling
from ldm_jax.pipelines.start import starting_noise
from ldm_jax.pipelines.unconditional import unguided

# Class, left, top, right, bottom; the image is 0 to 1 each way.
Box = tuple[int, float, float, float, float]


def layout_to_image(
    pipeline: Pipeline,
    layouts: Sequence[Box] | Sequence[Sequence[Box]],
    *,
    seed: int | Sequence[int] = 0,
    sampling: Sampling = SAMPLING,
) -> np.ndarray:
    """Images [B, H, W, 3] in [-1, 1], one for each layout.

    Args:
        layouts: boxes (class, left, top, right, bottom), with sides from 0 to 1; or B lists of them.
        seed: as in text_to_image.

    Raises ValueError for a model of another kind, a guidance scale, or a layout that it cannot be told.
    """
    model_kinds.check(pipeline.parts, 'layout_to_image', 'layout')
    unguided(sampling, 'layout_to_image')
    if not layouts or not isinstance(layouts[0][0], Sequence):
        layouts = [layouts]
    encoder = pipeline.parts.text_encoder
    rows = np.array(
        [tokens(boxes, encoder.vocab_size, encoder.context_length) for boxes in layouts], np.int32
    )
    size = pipeline.size()
    seeds = pipelines.seeds_from(seed, len(rows))
    _, levels = sampling.plan(pipeline.parts.schedule)
    x = starting_noise(pipeline, sampling, levels, seeds, size)
    cond = pipeline.programs.map(Parts.text, pipeline.params, (rows,), np.ones(len(rows), np.float32))
    return pipeline.decode(pipeline.sample(sampling, x, levels, (cond,), seeds))


def tokens(boxes: Sequence[Box], vocab_size: int, length: int) -> list[int]:
    """A layout as a row of so many tokens.

    Raises ValueError for more boxes than fit, a class beyond the vocabulary, or a box that is not inside 0 to 1.
    """
    none, most = vocab_size - 1, (length - 2) // 3
    if len(boxes) > most:
        raise ValueError(f'{len(boxes)} boxes: this model is told {most} at most.')
    row = []
    for label, left, top, right, bottom in boxes:
        if not (0 <= left < right <= 1 and 0 <= top < bottom <= 1):
            raise ValueError(
                f'Box {(label, left, top, right, bottom)} must be (class, left, top, right, bottom) with '
                '0 <= left < right <= 1 and 0 <= top < bottom <= 1.'
            )
        if not 0 <= label < none:
            raise ValueError(f'Class {label} of a box must be from 0 to {none - 1}.')
        row += [int(label), _cell(left, top, vocab_size), _cell(right, bottom, vocab_size)]
    row += [none] * (3 * (most - len(boxes)))
    return [*row, _cell(0, 0, vocab_size), _cell(1, 1, vocab_size)]


def _cell(x: float, y: float, vocab_size: int) -> int:
    """The token of a point: row by row, the cells of the largest square grid that the vocabulary has numbers for."""
    sections = math.isqrt(vocab_size)
    return round(y * (sections - 1)) * sections + round(x * (sections - 1))
