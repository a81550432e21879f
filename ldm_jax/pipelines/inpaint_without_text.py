"""A masked part of an image made anew from what is around it: latent diffusion's inpainting_big.

Ref: Rombach et al. 2022, arXiv:2112.10752, section 4.5.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ldm_jax.inference import model_kinds
from ldm_jax.inference import pipeline as pipelines
from ldm_jax.inference.pipeline import Pipeline
from ldm_jax.inference.settings import SAMPLING, Sampling
from ldm_jax.pipelines import masks
from ldm_jax.pipelines.start import each_image, starting_noise
from ldm_jax.pipelines.unconditional import unguided
from ldm_jax.types import Cond


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

    Raises ValueError for a model of another kind, a guidance scale, a mask of another size, or a size that the
    model cannot make.
    """
    model_kinds.check(pipeline.parts, 'inpaint_without_text', 'hole')
    unguided(sampling, 'inpaint_without_text')
    images = np.asarray(images, np.float32)
    images = images[None] if images.ndim == 3 else images
    hidden = each_image(hidden, len(images)) >= 0.5
    masks.check_same_size(images[0], hidden[0])
    size = pipeline.size(images.shape[1:3])
    seeds = pipelines.seeds_from(seed, len(images))
    _, levels = sampling.plan(pipeline.parts.schedule)
    x = starting_noise(pipeline, sampling, levels, seeds, size)
    # What the model was trained on: black in the hole, where Stable Diffusion's have grey, and a mask of -1 and 1.
    seen = pipeline.encode(np.where(hidden, np.float32(-1), images))
    factor = pipeline.parts.downscale
    mask = np.where(hidden[:, ::factor, ::factor], np.float32(1), np.float32(-1))  # nearest, as there
    cond = Cond(concat=np.concatenate([seen, mask], -1))
    made = pipeline.decode(pipeline.sample(sampling, x, levels, (cond,), seeds))
    return np.where(hidden, made, images)
