"""An image made anew after a prompt and a depth map, which keeps the shapes of things.

The published model is the one of Stable Diffusion 2 that has depth beside the noisy latents.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ldm_jax.conditioning import depth
from ldm_jax.inference import model_kinds
from ldm_jax.inference import pipeline as pipelines
from ldm_jax.inference.pipeline import Pipeline
from ldm_jax.inference.settings import SAMPLING, Sampling
from ldm_jax.pipelines.prompts import prompt_conds
from ldm_jax.pipelines.start import each_image, last_levels, noised, normal_noise, posterior


def depth_to_image(
    pipeline: Pipeline,
    prompts: str | Sequence[str],
    images: np.ndarray,
    depths: np.ndarray,
    negative_prompts: str | Sequence[str] = '',
    *,
    strength: float = 0.8,
    seed: int | Sequence[int] = 0,
    sampling: Sampling = SAMPLING,
) -> np.ndarray:
    """Images [B, H, W, 3] in [-1, 1], one for each prompt.

    Args:
        images: [H, W, 3] or [B, H, W, 3] in [-1, 1] to begin with, at the size that is wanted.
        depths: [H', W', 1] or [B, H', W', 1] of any size and scale, larger where things are nearer, as MiDaS gives
            it. It is stretched over the image.
        strength: share of the steps that are taken, from the end: at 1 nothing but the depth map is left of the image.
        prompts, negative_prompts, seed: as in text_to_image.

    Raises ValueError for a model of another kind, for a depth map that is flat, not finite or of another count, and
    as image_to_image.
    """
    prompts = [prompts] if isinstance(prompts, str) else list(prompts)
    model_kinds.check(pipeline.parts, 'depth_to_image', 'depth')
    images = each_image(images, len(prompts))
    size = pipeline.size(images.shape[1:3])
    levels = last_levels(pipeline.plan(sampling)[1], strength)
    seeds = pipelines.seeds_from(seed, len(prompts))
    depths = latent_depths(each_image(depths, len(prompts)), pipeline.parts.latents(1, size)[1:3])
    given = {'depth': {'depth': depths}}
    conds, guidance = prompt_conds(pipeline, sampling, prompts, negative_prompts, size, given=given)
    latents = posterior(pipeline, images, seeds, sampling)
    x = noised(latents, normal_noise(pipeline, sampling, seeds, size, draw=1), levels)
    return pipeline.decode(pipeline.sample(sampling, x, levels, conds, seeds, guidance=guidance))


def latent_depths(depths: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Depth maps [B, H, W, 1] at the size (h, w) of the latents: [B, h, w, 1].

    Raises ValueError for maps with more than one channel, with infinite values, or without any depth.
    """
    if depths.ndim != 4 or depths.shape[-1] != 1:
        raise ValueError(
            f'The depth map is {list(depths.shape)}: give one channel, [H, W, 1], or [B, H, W, 1] for B images.'
        )
    if not np.isfinite(depths).all():
        raise ValueError('The depth map has values that are not finite. Give the far distance a number.')
    small = np.asarray(depth.resized(depths, size))
    low, high = small.min(axis=(1, 2, 3)), small.max(axis=(1, 2, 3))
    if (low == high).any():
        raise ValueError(f'The depth map is {low[low == high][0]:g} everywhere: it has no depth to keep.')
    return small
