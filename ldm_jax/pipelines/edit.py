"""An image changed as an instruction says (InstructPix2Pix): text and image are guided apart.

Ref: Brooks et al. 2023, arXiv:2211.09800.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from ldm_jax import knobs
from ldm_jax.diffusion.changing import fixed, with_parts
from ldm_jax.inference import model_kinds
from ldm_jax.inference import pipeline as pipelines
from ldm_jax.inference.guidance import per_image
from ldm_jax.inference.pipeline import Pipeline
from ldm_jax.inference.settings import SAMPLING, Sampling
from ldm_jax.pipelines.prompts import prompt_conds
from ldm_jax.pipelines.start import each_image, starting_noise
from ldm_jax.text.prompts import dialects

IMAGE_SCALE = 1.5
# Knobs of guidance that go with the two scales.
TWO_SCALES = ('guidance_scale', 'image_guidance_scale', 'guidance_interval', 'cfg_zero_share', 'percentile')


def edit(
    pipeline: Pipeline,
    instructions: str | Sequence[str],
    images: np.ndarray,
    negative_prompts: str | Sequence[str] = '',
    *,
    seed: int | Sequence[int] = 0,
    sampling: Sampling = SAMPLING,
) -> np.ndarray:
    """Images [B, H, W, 3] in [-1, 1], one for each instruction ('make it snow').

    Args:
        images: [H, W, 3] or [B, H, W, 3] in [-1, 1] to change, at the size that is wanted.
        sampling: its guidance.image_scale says how much of the image stays, 1 to 2 as a rule, 1.5 by default, and
            guidance.scale how much the instruction counts; where that is None neither is guided.
        negative_prompts, seed: as in text_to_image.

    Raises ValueError for a model of another kind, for kinds of guidance that do not go with two scales, and for
    images of another count or of a size that the model cannot make.
    """
    prompts = [instructions] if isinstance(instructions, str) else list(instructions)
    model_kinds.check(pipeline.parts, 'edit', 'edit')
    check(prompts, sampling)
    images = each_image(images, len(prompts))
    size = pipeline.size(images.shape[1:3])
    seeds = pipelines.seeds_from(seed, len(prompts))
    _, levels = pipeline.plan(sampling)
    x = starting_noise(pipeline, sampling, levels, seeds, size)
    given = {'source': {'source': images}}
    conds, guidance = prompt_conds(pipeline, sampling, prompts, negative_prompts, size, given=given)
    if guidance.scale is not None:
        # guidance.image_and_text wants neither, the image alone, and both.
        neither, both = conds
        conds = neither, with_parts(neither, concat=fixed(both).concat), both
        image_scale = (
            per_image(IMAGE_SCALE, len(prompts)) if guidance.image_scale is None else guidance.image_scale
        )
        guidance = dataclasses.replace(guidance, image_scale=image_scale)
    return pipeline.decode(pipeline.sample(sampling, x, levels, conds, seeds, guidance=guidance))


def check(prompts: Sequence[str], sampling: Sampling) -> None:
    """Raises ValueError for what does not go with two scales."""
    given = [name for name in knobs.changed(sampling.guidance) if name not in TWO_SCALES]
    parts = dialects.named(sampling.prompting.syntax).parts
    given += ['AND'] if any(len(parts(prompt)) > 1 for prompt in prompts) else []
    if given:
        raise ValueError(f'{given} does not go with the two scales of edit: leave it out.')
