"""Images back to the noise that would make them, and what another prompt makes of that noise (DDIM inversion).

Ref: Song et al. 2021, arXiv:2010.02502, section 4.3; Mokady et al. 2023, arXiv:2211.09794, section 3.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from ldm_jax.diffusion.changing import reverse
from ldm_jax.diffusion.sampling import ascending
from ldm_jax.inference import model_kinds
from ldm_jax.inference.pipeline import Pipeline
from ldm_jax.inference.settings import Guidance, Sampling
from ldm_jax.pipelines.prompts import prompt_conds
from ldm_jax.pipelines.start import each_image
from ldm_jax.samplers import ddim_inverse

DDIM = Sampling('ddim', 'leading', num_steps=50)


def invert(
    pipeline: Pipeline,
    prompts: str | Sequence[str],
    images: np.ndarray,
    *,
    iterations: int = 1,
    sampling: Sampling = DDIM,
) -> np.ndarray:
    """Latents [B, h, w, Z] at the first level of sampling's grid, from which DDIM with no guidance makes the images.

    Args:
        prompts: what the images show; '' will do.
        images: [H, W, 3] or [B, H, W, 3] in [-1, 1].
        iterations: evaluations for each step. With one the way back is DDIM's but for an error of first order;
            with more, each step solves for its own noise.
        sampling: its grid and number of steps; the guidance is left out.

    Raises ValueError for a model conditioned on more than a text, and for a size that it cannot make.
    """
    prompts = [prompts] if isinstance(prompts, str) else list(prompts)
    model_kinds.check(pipeline.parts, 'invert', 'text')
    images = each_image(images, len(prompts))
    size = pipeline.size(images.shape[1:3])
    _, levels = pipeline.plan(sampling)
    plain = dataclasses.replace(sampling, sampler='ddim', eta=None, guidance=Guidance(None))
    conds, guidance = prompt_conds(pipeline, plain, prompts, '', size)
    conds = tuple(reverse(cond, len(levels.sigma) - 1, iterations) for cond in conds)
    latents = pipeline.encode(images)
    sampler, seeds = ddim_inverse.Sampler(iterations), [0] * len(prompts)
    return pipeline.sample(
        plain, latents, ascending(levels), conds, seeds, sampler=sampler, guidance=guidance
    )


def edit_by_inversion(
    pipeline: Pipeline,
    source_prompts: str | Sequence[str],
    prompts: str | Sequence[str],
    images: np.ndarray,
    negative_prompts: str | Sequence[str] = '',
    *,
    iterations: int = 1,
    sampling: Sampling = DDIM,
) -> np.ndarray:
    """Images [B, H, W, 3] in [-1, 1]: the images as other prompts would have them, their composition kept.

    Args:
        source_prompts: what the images show; prompts: what they should show, one for each.
        images, iterations: as in invert; negative_prompts: as in text_to_image.
        sampling: of both ways; its guidance is that of the way down.

    Raises ValueError as invert, and for another count of prompts.
    """
    prompts = [prompts] if isinstance(prompts, str) else list(prompts)
    if isinstance(source_prompts, str):
        source_prompts = [source_prompts] * len(prompts)
    if len(source_prompts) != len(prompts):
        raise ValueError(
            f'{len(source_prompts)} source prompts for {len(prompts)} prompts: give as many, or one.'
        )
    x = invert(pipeline, source_prompts, images, iterations=iterations, sampling=sampling)
    _, levels = pipeline.plan(sampling)
    size = tuple(side * pipeline.parts.downscale for side in x.shape[1:3])
    conds, guidance = prompt_conds(pipeline, sampling, prompts, negative_prompts, size)
    return pipeline.decode(pipeline.sample(sampling, x, levels, conds, [0] * len(prompts), guidance=guidance))
