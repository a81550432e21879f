"""A picture made anew after a prompt: noised part of the way, then denoised (SDEdit).

Ref: Meng et al. 2021, arXiv:2108.01073.
"""

from __future__ import annotations

from collections.abc import Sequence

import jax
import numpy as np

from ldm_jax.diffusion.process import add_noise
from ldm_jax.inference import model_kinds
from ldm_jax.inference import pipeline as pipelines
from ldm_jax.inference.pipeline import Pipeline
from ldm_jax.inference.settings import Sampling
from ldm_jax.inference.sizes import Sizes
from ldm_jax.pipelines import text_to_image
from ldm_jax.types import NoiseLevel


def image_to_image(
    pipeline: Pipeline,
    prompts: str | Sequence[str],
    images: np.ndarray,
    negative_prompts: str | Sequence[str] = '',
    *,
    strength: float = 0.8,
    seed: int | Sequence[int] = 0,
    sampling: Sampling = Sampling(),  # noqa: B008 (frozen)
    sizes: Sizes | None = None,
    negative_sizes: Sizes | None = None,
) -> np.ndarray:
    """Images [B, H, W, 3] in [-1, 1], one for each prompt.

    Args:
        images: [H, W, 3] or [B, H, W, 3] in [-1, 1] to begin with, at the size that is wanted.
        strength: share of the steps that are taken, from the end: 1 keeps next to nothing.
        prompts, negative_prompts, seed, sizes, negative_sizes: as in text_to_image.

    Raises ValueError for a strength outside (0, 1] or that leaves no step, and as text_to_image.
    """
    prompts = [prompts] if isinstance(prompts, str) else list(prompts)
    model_kinds.check(pipeline.parts, 'image_to_image', 'text')
    images = each_picture(images, len(prompts))
    size = pipeline.size(images.shape[1:3])
    levels = last_levels(sampling.plan(pipeline.parts.schedule)[1], strength)
    seeds = pipelines.seeds_from(seed, len(prompts))
    latents = posterior(pipeline, images, seeds, sampling)
    x = noised(latents, pipeline.noise(seeds, size, sampling.noise_source, draw=1), levels)
    told = (prompts, negative_prompts, size, sizes, negative_sizes)
    conds, guide = text_to_image.texts(pipeline, sampling, *told)
    return pipeline.decode(pipeline.sample(sampling, x, levels, conds, seeds, guide=guide))


def each_picture(images: np.ndarray, batch: int) -> np.ndarray:
    """[H, W, C] or [B, H, W, C] as [B, H, W, C]. Raises ValueError for another count."""
    images = np.asarray(images, np.float32)
    images = images[None] if images.ndim == 3 else images
    if len(images) not in (1, batch):
        raise ValueError(f'{len(images)} pictures for {batch} prompts: give one for each, or one for all.')
    return np.broadcast_to(images, (batch, *images.shape[1:]))


def posterior(
    pipeline: Pipeline, images: np.ndarray, seeds: Sequence[int], sampling: Sampling, draw: int = 0
) -> np.ndarray:
    """Latents of pictures, sampled from the first stage's posterior by the draw-th noise of each seed."""
    eps = pipeline.noise(seeds, images.shape[1:3], sampling.noise_source, draw)
    return pipeline.encode(images, eps)


def last_levels(levels: NoiseLevel, strength: float) -> NoiseLevel:
    """The last levels, for a share of the steps as diffusers counts it: S strength of them, rounded down.

    Raises ValueError for a strength outside (0, 1], or that leaves no step.
    """
    if not 0 < strength <= 1:
        raise ValueError(f'strength must be above 0 and at most 1; got {strength}.')
    total = len(levels.sigma) - 1
    count = int(total * strength)
    if count < 1:
        raise ValueError(
            f'strength {strength} of {total} steps leaves none: take at least {1 / total:.3g}, or more steps.'
        )
    return jax.tree.map(lambda a: a[total - count :], levels)


def noised(latents: np.ndarray, noise: np.ndarray, levels: NoiseLevel) -> np.ndarray:
    """Latents at the first of the levels."""
    return np.asarray(add_noise(latents, noise, jax.tree.map(lambda a: a[0], levels)))
