"""Images from the data of a model's kinds of conditioning, whatever they are: a researcher's own among them.

The other tasks know one kind of model each and check what they are given; this one knows ldm_jax/conditioning alone.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ldm_jax.conditioning.combine import check_given, joined
from ldm_jax.inference import pipeline as pipelines
from ldm_jax.inference.pipeline import Pipeline
from ldm_jax.inference.settings import SAMPLING, Sampling
from ldm_jax.pipelines.prompts import Given
from ldm_jax.pipelines.start import starting_noise


def from_conditioning(
    pipeline: Pipeline,
    given: Given,
    num_images: int | None = None,
    *,
    size: tuple[int, int] | None = None,
    seed: int | Sequence[int] = 0,
    sampling: Sampling = SAMPLING,
) -> np.ndarray:
    """Images [B, H, W, 3] in [-1, 1].

    Args:
        given: name of each of the model's kinds of conditioning -> the arrays [B, ...] that `sample` of its module
            takes: {'class_label': {'label': np.array([3, 7])}}.
        num_images: B, where nothing is given.
        size, seed: as in text_to_image.

    Raises ValueError where `given` is not what the model is conditioned on, for arrays of different lengths, for a
    guidance scale where training left nothing out, and for a size that the model cannot make.
    """
    given = {name: {} for name in pipeline.parts.kinds} | dict(given)
    check_given(pipeline.parts.kinds, given)
    batch = _batch(given, num_images)
    check_guidable(pipeline, sampling)
    guidance = pipeline.guidance(sampling, batch)
    size = pipeline.size(size)
    seeds = pipelines.seeds_from(seed, batch)
    _, levels = pipeline.plan(sampling)
    x = starting_noise(pipeline, sampling, levels, seeds, size)
    conditions = pipeline.conditions(given, guided=guidance.scale is not None)
    conds = (joined(conditions),)
    if guidance.scale is not None:
        conds = joined(conditions, conditions), *conds
    return pipeline.decode(pipeline.sample(sampling, x, levels, conds, seeds, guidance=guidance))


def check_guidable(pipeline: Pipeline, sampling: Sampling) -> None:
    """Raises ValueError for a guidance scale where there is nothing to guide away from."""
    scale = sampling.guidance.scale
    if scale is not None and not isinstance(scale, str) and not pipeline.parts.guidable:
        kinds = list(pipeline.parts.kinds)
        always = (
            f'was trained with {" and ".join(kinds)} throughout' if kinds else 'is conditioned on nothing'
        )
        raise ValueError(
            f'This model {always}, so there is nothing to guide away from: leave the guidance scale {scale} out (None).'
        )


def _batch(given: Given, num_images: int | None) -> int:
    """How many images there are to be."""
    lengths = {f'{name}.{key}': len(a) for name, arrays in given.items() for key, a in arrays.items()}
    found = {*lengths.values(), *([] if num_images is None else [num_images])}
    if len(found) > 1:
        raise ValueError(f'Each image needs its own data; got {lengths}, and num_images {num_images}.')
    return found.pop() if found else 1
