"""A masked part of an image made anew from what is around it: latent diffusion's inpainting_big.

Ref: Rombach et al. 2022, arXiv:2112.10752, section 4.5.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ldm_jax.inference import model_kinds
from ldm_jax.inference.pipeline import Pipeline
from ldm_jax.inference.settings import SAMPLING, Sampling
from ldm_jax.pipelines import masks
from ldm_jax.pipelines.from_conditioning import from_conditioning
from ldm_jax.pipelines.start import each_image


def inpaint_without_text(
    pipeline: Pipeline,
    images: np.ndarray,
    hidden: np.ndarray,
    *,
    seed: int | Sequence[int] = 0,
    sampling: Sampling = SAMPLING,
) -> np.ndarray:
    """Images [B, H, W, 3] in [-1, 1]: the images with the hidden part made anew, and else their own pixels.

    Args:
        images: [H, W, 3] or [B, H, W, 3] in [-1, 1].
        hidden: masks [H, W, 1] or [B, H, W, 1]; from 0.5 on a pixel is made anew.
        seed: as in text_to_image.

    Raises ValueError for a model of another kind, a guidance scale where training never left the image out, a mask of
    another size, or a size that the model cannot make.
    """
    model_kinds.check(pipeline.parts, 'inpaint_without_text', 'hole')
    images = np.asarray(images, np.float32)
    images = images[None] if images.ndim == 3 else images
    hidden = each_image(hidden, len(images)) >= 0.5
    masks.check_same_size(images[0], hidden[0])
    given = {'inpainting': {'image': images, 'mask': hidden.astype(np.float32)}}
    made = from_conditioning(pipeline, given, size=images.shape[1:3], seed=seed, sampling=sampling)
    return np.where(hidden, made, images)
