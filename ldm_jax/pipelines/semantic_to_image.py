"""Maps of classes to images: latent diffusion's semantic synthesis of landscapes.

Ref: Rombach et al. 2022, arXiv:2112.10752, section 4.3.2.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ldm_jax.inference import model_kinds
from ldm_jax.inference.pipeline import Pipeline
from ldm_jax.inference.settings import SAMPLING, Sampling
from ldm_jax.pipelines.from_conditioning import from_conditioning


def semantic_to_image(
    pipeline: Pipeline,
    labels: np.ndarray,
    *,
    seed: int | Sequence[int] = 0,
    sampling: Sampling = SAMPLING,
) -> np.ndarray:
    """Images [B, H, W, 3] in [-1, 1], one for each map.

    Args:
        labels: integers [H, W] or [B, H, W], each pixel's class (0 to 181 in COCO-Stuff's numbering).
        seed: as in text_to_image.

    Raises ValueError for a model of another kind, a guidance scale where training never left the map out, a class
    beyond the model's own, or a size that it cannot make.
    """
    model_kinds.check(pipeline.parts, 'semantic_to_image', 'semantic')
    labels = np.asarray(labels)
    labels = labels[None] if labels.ndim == 2 else labels
    known = pipeline.parts.rescaler.in_channels
    if not np.issubdtype(labels.dtype, np.integer) or labels.min() < 0 or labels.max() >= known:
        raise ValueError(
            f'A map holds integers from 0 to {known - 1}; this one {labels.min()} to {labels.max()}.'
        )
    given = {'label_map': {'map': labels.astype(np.int32)}}
    return from_conditioning(pipeline, given, size=labels.shape[1:], seed=seed, sampling=sampling)
