"""Boxes with classes to images: latent diffusion's layout2img, trained on OpenImages.

Ref: Rombach et al. 2022, arXiv:2112.10752, section 4.3.1.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ldm_jax.data.box_tokens import Box, tokens
from ldm_jax.inference import model_kinds
from ldm_jax.inference.pipeline import Pipeline
from ldm_jax.inference.settings import SAMPLING, Sampling
from ldm_jax.pipelines.from_conditioning import from_conditioning


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

    Raises ValueError for a model of another kind, a guidance scale where training never left the layout out, or a
    layout that the model cannot read.
    """
    model_kinds.check(pipeline.parts, 'layout_to_image', 'layout')
    if not layouts or not isinstance(layouts[0][0], Sequence):
        layouts = [layouts]
    encoder = pipeline.parts.text_encoder
    rows = [tokens(boxes, encoder.vocab_size, encoder.context_length) for boxes in layouts]
    given = {'boxes': {'boxes': np.array(rows, np.int32)}}
    return from_conditioning(pipeline, given, seed=seed, sampling=sampling)
