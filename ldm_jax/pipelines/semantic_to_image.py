"""Maps of classes to images: latent diffusion's semantic synthesis of landscapes.

Ref: Rombach et al. 2022, arXiv:2112.10752, section 4.3.2.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ldm_jax.inference import model_kinds
from ldm_jax.inference import pipeline as pipelines
from ldm_jax.inference.model import Parts
from ldm_jax.inference.pipeline import Pipeline
from ldm_jax.inference.settings import SAMPLING, Sampling
from ldm_jax.pipelines.start import starting_noise
from ldm_jax.pipelines.unconditional import unguided
from ldm_jax.types import Cond


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

    Raises ValueError for a model of another kind, a guidance scale, a class beyond its own, or a size that the model
    cannot make.
    """
    model_kinds.check(pipeline.parts, 'semantic_to_image', 'semantic')
    unguided(sampling, 'semantic_to_image')
    labels = np.asarray(labels)
    labels = labels[None] if labels.ndim == 2 else labels
    known = pipeline.parts.rescaler.in_channels
    if not np.issubdtype(labels.dtype, np.integer) or labels.min() < 0 or labels.max() >= known:
        raise ValueError(
            f'A map holds integers from 0 to {known - 1}; this one {labels.min()} to {labels.max()}.'
        )
    size = pipeline.size(labels.shape[1:])
    seeds = pipelines.seeds_from(seed, len(labels))
    _, levels = sampling.plan(pipeline.parts.schedule)
    x = starting_noise(pipeline, sampling, levels, seeds, size)
    concat = pipeline.programs.map(Parts.semantics, pipeline.params, labels.astype(np.int32))
    return pipeline.decode(pipeline.sample(sampling, x, levels, (Cond(concat=concat),), seeds))
