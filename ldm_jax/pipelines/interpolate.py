"""Images on the way from one prompt to the next, or from one seed to the next.

Between two prompts their conditionings are mixed in a straight line; between two seeds the starting noise is turned on
the arc of variation seeds (diffusion.variation), so that it stays as long as noise is.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import jax
import numpy as np

from ldm_jax.diffusion.changing import aligned
from ldm_jax.diffusion.variation import varied
from ldm_jax.inference import model_kinds
from ldm_jax.inference.pipeline import Pipeline
from ldm_jax.inference.settings import SAMPLING, Sampling
from ldm_jax.inference.sizes import Sizes
from ldm_jax.pipelines.prompts import prompt_conds
from ldm_jax.pipelines.start import at_start


def interpolate(
    pipeline: Pipeline,
    prompts: str | Sequence[str],
    negative_prompt: str = '',
    *,
    shares: Sequence[float],
    seed: int | Sequence[int] = 0,
    size: tuple[int, int] | None = None,
    sampling: Sampling = SAMPLING,
    sizes: Sizes | None = None,
    negative_sizes: Sizes | None = None,
) -> np.ndarray:
    """Images [B, H, W, 3] in [-1, 1], one for each share.

    Args:
        prompts, seed: the stops of the way, at equal distances: K prompts and one seed, one prompt and K seeds, or K
            of both; K is at least 2.
        shares: of the way, 0 the first stop and 1 the last one.
        negative_prompt: of all images.
        size, sampling, sizes, negative_sizes: as in text_to_image. Samplers that add noise draw that of the seed
            before each image.

    Raises ValueError for fewer stops than two or other counts, a share outside [0, 1], and as text_to_image.
    """
    model_kinds.check(pipeline.parts, 'interpolate', 'text')
    prompts, seeds = stops(prompts, seed)
    size = pipeline.size(size)
    before, within = segments(shares, len(seeds))
    _, levels = pipeline.plan(sampling)
    noise = pipeline.noise(seeds, size, sampling.noise_source)
    x = at_start(sampling, levels, _turned(noise, before, within))
    conds, guidance = prompt_conds(
        pipeline, sampling, prompts, negative_prompt, size, sizes, negative_sizes, alike=True
    )
    conds = tuple(map(aligned, conds))
    conds, weights = jax.tree.map(lambda a: _mixed(a, before, within), (conds, guidance.weights))
    guidance = dataclasses.replace(pipeline.guidance(sampling, len(before)), weights=weights)
    own = [seeds[i] for i in before]
    return pipeline.decode(pipeline.sample(sampling, x, levels, conds, own, guidance=guidance))


def stops(prompts: str | Sequence[str], seed: int | Sequence[int]) -> tuple[list[str], list[int]]:
    """K prompts and K seeds. Raises ValueError for counts that differ, or less than two stops."""
    prompts = [prompts] if isinstance(prompts, str) else list(prompts)
    seeds = [int(each) for each in np.atleast_1d(np.asarray(seed, object))]
    count = max(len(prompts), len(seeds))
    if count < 2 or {len(prompts), len(seeds)} - {1, count}:
        raise ValueError(
            f'Prompts: {len(prompts)}, seeds: {len(seeds)}. A way has two stops or more: give two prompts or more, or '
            'two seeds or more (num_images), as many of both or one of either.'
        )
    return prompts * (count // len(prompts)), seeds * (count // len(seeds))


def segments(shares: Sequence[float], count: int) -> tuple[list[int], list[float]]:
    """For each share of a way with so many stops: the number of the stop before it, and its share from there on.

    Raises ValueError for a share outside [0, 1].
    """
    found = np.asarray(shares, np.float64)
    if not ((found >= 0) & (found <= 1)).all():
        raise ValueError(f'Shares of a way are from 0 to 1; got {list(shares)}.')
    at = found * (count - 1)
    before = np.minimum(at.astype(int), count - 2)
    return before.tolist(), (at - before).tolist()


def _turned(noise: np.ndarray, before: Sequence[int], within: Sequence[float]) -> np.ndarray:
    """Noise [K, ...] of the stops to that of the images [B, ...]."""
    pairs = zip(before, within, strict=True)
    return np.concatenate([varied(noise[i : i + 1], noise[i + 1 : i + 2], share) for i, share in pairs])


def _mixed(array: np.ndarray, before: Sequence[int], within: Sequence[float]) -> np.ndarray:
    """An array [K, ...] of the stops, in straight lines, to that of the images [B, ...]."""
    array = np.asarray(array)
    if array.dtype.kind in 'bi':  # masks and indices, which all stops share
        return array[before]
    share = np.asarray(within, array.dtype).reshape(-1, *[1] * (array.ndim - 1))
    low, high = array[before], array[np.asarray(before) + 1]
    return np.where(share == 1, high, low + share * (high - low))
