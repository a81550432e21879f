"""Images from noise alone: the models of CelebA-HQ, FFHQ, LSUN bedrooms and churches.

Ref: Rombach et al. 2022, arXiv:2112.10752, section 4.2.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ldm_jax.inference import model_kinds
from ldm_jax.inference.pipeline import Pipeline
from ldm_jax.inference.settings import SAMPLING, Sampling
from ldm_jax.pipelines.from_conditioning import from_conditioning


def unconditional(
    pipeline: Pipeline,
    num_images: int = 1,
    *,
    size: tuple[int, int] | None = None,
    seed: int | Sequence[int] = 0,
    sampling: Sampling = SAMPLING,
) -> np.ndarray:
    """Images [num_images, H, W, 3] in [-1, 1]; the arguments are those of text_to_image.

    Raises ValueError for a model of another kind, or a guidance scale: there is nothing to guide away from.
    """
    model_kinds.check(pipeline.parts, 'unconditional', 'unconditional')
    return from_conditioning(pipeline, {}, num_images, size=size, seed=seed, sampling=sampling)
