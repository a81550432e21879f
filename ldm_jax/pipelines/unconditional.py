"""Images from noise alone: the models of CelebA-HQ, FFHQ, LSUN bedrooms and churches.

Ref: Rombach et al. 2022, arXiv:2112.10752, section 4.2.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ldm_jax.inference import model_kinds
from ldm_jax.inference import pipeline as pipelines
from ldm_jax.inference.pipeline import Pipeline
from ldm_jax.inference.settings import OWN, SAMPLING, Sampling
from ldm_jax.pipelines.start import starting_noise
from ldm_jax.types import Cond


def unconditional(
    pipeline: Pipeline,
    num_images: int = 1,
    *,
    size: tuple[int, int] | None = None,
    seed: int | Sequence[int] = 0,
    sampling: Sampling = SAMPLING,
) -> np.ndarray:
    """Images [num_images, H, W, 3] in [-1, 1]; the arguments are those of text_to_image.

    Raises ValueError for a model of another kind, or a guidance scale: there is nothing to be guided by.
    """
    model_kinds.check(pipeline.parts, 'unconditional', 'unconditional')
    unguided(sampling, 'unconditional')
    size = pipeline.size(size)
    seeds = pipelines.seeds_from(seed, num_images)
    _, levels = sampling.plan(pipeline.parts.schedule)
    x = starting_noise(pipeline, sampling, levels, seeds, size)
    return pipeline.decode(pipeline.sample(sampling, x, levels, (Cond(),), seeds))


def unguided(sampling: Sampling, task: str) -> None:
    """Raises ValueError for settings with a guidance scale."""
    if sampling.guidance.scale not in (None, OWN):
        raise ValueError(
            f'{task} has no guidance: its model was trained on one conditioning alone. Leave the guidance scale '
            f'{sampling.guidance.scale} out (None).'
        )
