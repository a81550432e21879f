"""Small images made large after a prompt: the x4 upscaler, conditioned on a noisy small image and its noise level.

The small image is noised by the schedule of the latents, as in the original settings (x4-upscaling.yaml).
Ref: Rombach et al. 2022, arXiv:2112.10752; stabilityai/stable-diffusion-x4-upscaler.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ldm_jax.diffusion import noise_sources
from ldm_jax.inference import model_kinds
from ldm_jax.inference import pipeline as pipelines
from ldm_jax.inference.pipeline import Pipeline
from ldm_jax.inference.settings import SAMPLING, Sampling
from ldm_jax.inference.sizes import check_size
from ldm_jax.pipelines import augmentation
from ldm_jax.pipelines.prompts import prompt_conds
from ldm_jax.pipelines.start import at_start, each_image, variation


def upscale(
    pipeline: Pipeline,
    prompts: str | Sequence[str],
    images: np.ndarray,
    negative_prompts: str | Sequence[str] = '',
    *,
    noise_level: int | Sequence[int] = 20,
    seed: int | Sequence[int] = 0,
    sampling: Sampling = SAMPLING,
) -> np.ndarray:
    """Images [B, F H, F W, 3] in [-1, 1], one for each prompt; F is 4 of the published model.

    Args:
        prompts: what the image shows; '' will do.
        images: [H, W, 3] or [B, H, W, 3] in [-1, 1], small.
        noise_level: of all images or of each, 0 .. 350: more invents more, and hides artefacts of compression.
        negative_prompts, seed: as in text_to_image.

    Raises ValueError for another kind of model, a noise level out of range, or sides that the U-Net cannot halve.
    """
    prompts = [prompts] if isinstance(prompts, str) else list(prompts)
    parts = pipeline.parts
    model_kinds.check(parts, 'upscale', 'upscale')
    images = each_image(images, len(prompts))
    height, width = images.shape[1:3]
    kind = parts.kinds['low_resolution']
    check_size((height, width), max(1, parts.multiple // kind.factor))
    size = pipeline.size((height * kind.factor, width * kind.factor))
    highest = kind.max_noise_level
    at = augmentation.levels(parts.schedule, noise_level, len(prompts), highest)
    seeds = pipelines.seeds_from(seed, len(prompts))
    _, levels = pipeline.plan(sampling)
    # The small image's noise is the first that diffusers draws.
    shapes = [images.shape[1:], parts.latents(1, size)[1:]]
    noise, x = noise_sources.noises(sampling.noise_source, seeds, shapes)
    x = at_start(sampling, levels, variation(sampling, x))
    given = {'low_resolution': {'image': images, 'noise': noise, 'level': np.asarray(at.t, np.int32)}}
    conds, guidance = prompt_conds(pipeline, sampling, prompts, negative_prompts, size, given=given)
    return pipeline.decode(pipeline.sample(sampling, x, levels, conds, seeds, guidance=guidance))
