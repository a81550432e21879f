"""Small images made larger without a text: latent diffusion's bsr_sr, four times.

Ref: Rombach et al. 2022, arXiv:2112.10752, section 4.4.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ldm_jax.inference import model_kinds
from ldm_jax.inference import pipeline as pipelines
from ldm_jax.inference.pipeline import Pipeline
from ldm_jax.inference.settings import SAMPLING, Sampling
from ldm_jax.pipelines.start import starting_noise
from ldm_jax.pipelines.unconditional import unguided
from ldm_jax.types import Cond


def super_resolution(
    pipeline: Pipeline,
    images: np.ndarray,
    *,
    seed: int | Sequence[int] = 0,
    sampling: Sampling = SAMPLING,
) -> np.ndarray:
    """Images [B, f H, f W, 3] in [-1, 1], f pixels of the first stage to a latent (4).

    Args:
        images: [H, W, 3] or [B, H, W, 3] in [-1, 1]; the network sees them as they are, at the latents' size.
        seed: as in text_to_image.

    Raises ValueError for a model of another kind, a guidance scale, or sides that the U-Net cannot halve.
    """
    model_kinds.check(pipeline.parts, 'super_resolution', 'super_resolution')
    unguided(sampling, 'super_resolution')
    images = np.asarray(images, np.float32)
    images = images[None] if images.ndim == 3 else images
    size = pipeline.size(tuple(side * pipeline.parts.downscale for side in images.shape[1:3]))
    seeds = pipelines.seeds_from(seed, len(images))
    _, levels = sampling.plan(pipeline.parts.schedule)
    x = starting_noise(pipeline, sampling, levels, seeds, size)
    return pipeline.decode(pipeline.sample(sampling, x, levels, (Cond(concat=images),), seeds))
