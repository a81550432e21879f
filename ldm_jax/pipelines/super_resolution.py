"""Small images made larger without a text: latent diffusion's bsr_sr, four times.

Ref: Rombach et al. 2022, arXiv:2112.10752, section 4.4.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ldm_jax.inference import model_kinds
from ldm_jax.inference.pipeline import Pipeline
from ldm_jax.inference.settings import SAMPLING, Sampling
from ldm_jax.pipelines.from_conditioning import from_conditioning


def super_resolution(
    pipeline: Pipeline,
    images: np.ndarray,
    *,
    seed: int | Sequence[int] = 0,
    sampling: Sampling = SAMPLING,
) -> np.ndarray:
    """Images [B, f H, f W, 3] in [-1, 1], f times as large: what the model was trained to (4).

    Args:
        images: [H, W, 3] or [B, H, W, 3] in [-1, 1].
        seed: as in text_to_image.

    Raises ValueError for a model of another kind, a guidance scale where training never left the image out, or sides
    that the network cannot halve.
    """
    model_kinds.check(pipeline.parts, 'super_resolution', 'super_resolution')
    images = np.asarray(images, np.float32)
    images = images[None] if images.ndim == 3 else images
    factor = pipeline.parts.kinds['low_resolution'].factor
    size = tuple(side * factor for side in images.shape[1:3])
    given = {'low_resolution': {'image': images}}
    return from_conditioning(pipeline, given, size=size, seed=seed, sampling=sampling)
