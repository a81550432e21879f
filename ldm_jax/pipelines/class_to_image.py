"""Classes to images: the models of ImageNet.

Ref: Rombach et al. 2022, arXiv:2112.10752, section 4.3.1 and appendix D.5.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ldm_jax.inference import model_kinds
from ldm_jax.inference import pipeline as pipelines
from ldm_jax.inference.model import Parts
from ldm_jax.inference.pipeline import Pipeline
from ldm_jax.inference.settings import SAMPLING, Sampling
from ldm_jax.pipelines.start import starting_noise


def class_to_image(
    pipeline: Pipeline,
    labels: int | Sequence[int],
    *,
    size: tuple[int, int] | None = None,
    seed: int | Sequence[int] = 0,
    sampling: Sampling = SAMPLING,
) -> np.ndarray:
    """Images [B, H, W, 3] in [-1, 1], one for each class; the other arguments are those of text_to_image.

    Raises ValueError for a model of another kind, a class that it does not know, and a guidance scale where the
    model has no class for none (cin256, the first ImageNet model): give None there.
    """
    model_kinds.check(pipeline.parts, 'class_to_image', 'class')
    labels = np.atleast_1d(np.asarray(labels, np.int32))
    known = num_classes(pipeline.parts)
    if labels.min() < 0 or labels.max() >= known:
        raise ValueError(f'Classes are 0 to {known - 1}; got {labels.tolist()}.')
    guidance = pipeline.guidance(sampling, len(labels))
    told: list[Any] = [labels]
    if guidance.scale is not None:
        if not model_kinds.has_null(pipeline.parts):
            raise ValueError(
                f'This model has no class for none, so there is nothing to guide away from: leave the guidance '
                f'scale {sampling.guidance.scale} out (None).'
            )
        told = [np.full_like(labels, known), labels]
    size = pipeline.size(size)
    seeds = pipelines.seeds_from(seed, len(labels))
    _, levels = sampling.plan(pipeline.parts.schedule)
    x = starting_noise(pipeline, sampling, levels, seeds, size)
    conds = tuple(pipeline.programs.map(Parts.classes, pipeline.params, each) for each in told)
    return pipeline.decode(pipeline.sample(sampling, x, levels, conds, seeds, guidance=guidance))


def num_classes(parts: Parts) -> int:
    """Classes that there are images of."""
    return parts.class_embedder.num_classes - model_kinds.has_null(parts)
