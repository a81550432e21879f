"""Prompts to images: every model conditioned on a text and nothing else, SDXL and its refiner too."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ldm_jax.inference import model_kinds
from ldm_jax.inference import pipeline as pipelines
from ldm_jax.inference.pipeline import Pipeline
from ldm_jax.inference.settings import SAMPLING, Sampling
from ldm_jax.inference.sizes import Sizes
from ldm_jax.pipelines.prompts import prompt_conds
from ldm_jax.pipelines.start import starting_noise


def text_to_image(
    pipeline: Pipeline,
    prompts: str | Sequence[str],
    negative_prompts: str | Sequence[str] = '',
    *,
    size: tuple[int, int] | None = None,
    seed: int | Sequence[int] = 0,
    sampling: Sampling = SAMPLING,
    sizes: Sizes | None = None,
    negative_sizes: Sizes | None = None,
) -> np.ndarray:
    """Images [B, H, W, 3] in [-1, 1], one for each prompt.

    Args:
        prompts, negative_prompts: one text, or B; one negative text stands for all. A prompt may have several parts,
            which are guided towards at once: 'a cat :1.2 AND a dog :0.8' (text.prompt).
        size: (H, W); by default the model's own.
        seed: of the first image, the next ones having the next numbers; or B of them. An image depends on its
            own prompt, seed and settings, not on those beside it or on the devices.
        sizes, negative_sizes: SDXL's sizes for the prompt and for the negative prompt; the same for
            both by default, but for the refiner's aesthetic score.

    Raises ValueError for a model conditioned on something else too, or for a size that it cannot make.
    """
    prompts = [prompts] if isinstance(prompts, str) else list(prompts)
    model_kinds.check(pipeline.parts, 'text_to_image', 'text')
    size = pipeline.size(size)
    seeds = pipelines.seeds_from(seed, len(prompts))
    _, levels = pipeline.plan(sampling)
    x = starting_noise(pipeline, sampling, levels, seeds, size)
    conds, guidance = prompt_conds(pipeline, sampling, prompts, negative_prompts, size, sizes, negative_sizes)
    return pipeline.decode(pipeline.sample(sampling, x, levels, conds, seeds, guidance=guidance))
