"""Where sampling starts: images and noise as latents at the first of the levels that are walked."""

from __future__ import annotations

from collections.abc import Sequence

import jax
import numpy as np

from ldm_jax.diffusion import noise_sources
from ldm_jax.diffusion.process import add_noise
from ldm_jax.diffusion.variation import varied
from ldm_jax.inference.pipeline import Pipeline, seeds_from
from ldm_jax.inference.settings import Sampling
from ldm_jax.types import NoiseLevel


def normal_noise(
    pipeline: Pipeline, sampling: Sampling, seeds: Sequence[int], size: tuple[int, int], draw: int = 0
) -> np.ndarray:
    """Standard normal latents of images of a size: the draw-th noise of each seed, or a variation of it."""
    return variation(sampling, pipeline.noise(seeds, size, sampling.noise_source, draw))


def variation(sampling: Sampling, noise: np.ndarray) -> np.ndarray:
    """Noise [B, ...], turned towards the first noise of the variation seeds where the sampling has them."""
    if sampling.variation_seed is None:
        return noise
    seeds = seeds_from(sampling.variation_seed, len(noise))
    other = noise_sources.noise(sampling.noise_source, seeds, noise.shape[1:])
    return varied(noise, other, sampling.variation_strength)


def starting_noise(
    pipeline: Pipeline, sampling: Sampling, levels: NoiseLevel, seeds: Sequence[int], size: tuple[int, int]
) -> np.ndarray:
    """Latents of noise alone at the first level."""
    return at_start(sampling, levels, normal_noise(pipeline, sampling, seeds, size))


def at_start(sampling: Sampling, levels: NoiseLevel, noise: np.ndarray) -> np.ndarray:
    """Standard normal noise scaled to the first level."""
    alpha, sigma = float(levels.alpha[0]), float(levels.sigma[0])
    scale = sigma if sampling.start == 'noise' else np.hypot(alpha, sigma)
    return np.float32(scale) * noise


def noised(latents: np.ndarray, noise: np.ndarray, levels: NoiseLevel) -> np.ndarray:
    """Latents at the first of the levels."""
    return np.asarray(add_noise(latents, noise, jax.tree.map(lambda a: a[0], levels)))


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


def posterior(
    pipeline: Pipeline, images: np.ndarray, seeds: Sequence[int], sampling: Sampling, draw: int = 0
) -> np.ndarray:
    """Latents of images, sampled from the first stage's posterior by the draw-th noise of each seed."""
    eps = pipeline.noise(seeds, images.shape[1:3], sampling.noise_source, draw)
    return pipeline.encode(images, eps)


def each_image(images: np.ndarray, batch: int) -> np.ndarray:
    """[H, W, C] or [B, H, W, C] as [B, H, W, C]. Raises ValueError for another count."""
    images = np.asarray(images, np.float32)
    images = images[None] if images.ndim == 3 else images
    if len(images) not in (1, batch):
        raise ValueError(f'{len(images)} images for {batch} prompts: give one for each, or one for all.')
    return np.broadcast_to(images, (batch, *images.shape[1:]))
