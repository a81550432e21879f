"""Classes to images.

Ref: Rombach et al. 2022, arXiv:2112.10752, section 4.3.1 and appendix D.5.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ldm_jax.inference import model_kinds
from ldm_jax.inference.pipeline import Pipeline
from ldm_jax.inference.settings import SAMPLING, Sampling
from ldm_jax.pipelines.from_conditioning import from_conditioning


def class_to_image(
    pipeline: Pipeline,
    labels: int | Sequence[int],
    *,
    size: tuple[int, int] | None = None,
    seed: int | Sequence[int] = 0,
    sampling: Sampling = SAMPLING,
) -> np.ndarray:
    """Images [B, H, W, 3] in [-1, 1], one for each class; the other arguments are those of text_to_image.

    Raises ValueError for a model of another kind, an unknown class, and a guidance scale where the model has no class
    for none (cin256, the first ImageNet model): give None there.
    """
    model_kinds.check(pipeline.parts, 'class_to_image', 'class')
    rows = np.atleast_1d(np.asarray(labels, np.int32))
    known = pipeline.parts.kinds['class_label'].num_classes(pipeline.parts.networks({}))
    if rows.min() < 0 or rows.max() >= known:
        raise ValueError(f'Classes are 0 to {known - 1}; got {rows.tolist()}.')
    return from_conditioning(
        pipeline, {'class_label': {'label': rows}}, size=size, seed=seed, sampling=sampling
    )
