"""Images that show what others show, and mixes of several: unCLIP, conditioned on an image's CLIP embedding.

Ref: Ramesh et al. 2022, arXiv:2204.06125, sections 3.1 and 3.2; stabilityai/stable-diffusion-2-1-unclip.
"""

from __future__ import annotations

from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np

from ldm_jax.conditioning import image_embedding
from ldm_jax.diffusion import noise_sources
from ldm_jax.inference import model_kinds
from ldm_jax.inference import pipeline as pipelines
from ldm_jax.inference.model import Params, Parts
from ldm_jax.inference.pipeline import Pipeline
from ldm_jax.inference.settings import SAMPLING, Sampling
from ldm_jax.models import clip_vision
from ldm_jax.pipelines import augmentation
from ldm_jax.pipelines.prompts import prompt_conds
from ldm_jax.pipelines.start import at_start, variation
from ldm_jax.types import Array

Images = np.ndarray | Sequence[np.ndarray]


def variations(
    pipeline: Pipeline,
    prompts: str | Sequence[str],
    images: Images,
    negative_prompts: str | Sequence[str] = '',
    *,
    weights: Sequence[float] | None = None,
    noise_level: int | Sequence[int] = 0,
    size: tuple[int, int] | None = None,
    seed: int | Sequence[int] = 0,
    sampling: Sampling = SAMPLING,
) -> np.ndarray:
    """Images [B, H, W, 3] in [-1, 1], one for each prompt and image; one of either goes with all of the others.

    Args:
        prompts: what to add to the image; '' will do.
        images: [h, w, 3] in [-1, 1], an array or a list of such of any sizes, or embeddings [D] or [B, D] as `embed`
            gives them.
        weights: one for each of the images, which are mixed into one by them: see `mixed`.
        noise_level: of all embeddings or of each, 0 .. 999: the more, the freer the variation.
        size: (H, W); by default the model's own.
        negative_prompts, seed: as in text_to_image.

    Raises ValueError for another kind of model, a noise level out of range, other counts, or a size that the model
    cannot make.
    """
    prompts = [prompts] if isinstance(prompts, str) else list(prompts)
    parts = pipeline.parts
    model_kinds.check(parts, 'variations', 'variation')
    size = pipeline.size(size)
    given = _embeddings(parts, images)
    count = _count(images if given is None else given)
    if weights is not None:
        weights, count = _shares(weights, count), 1
    batch = max(len(prompts), count)
    if {len(prompts), count} - {1, batch}:
        raise ValueError(f'{len(prompts)} prompts for {count} images: give as many, or one of either.')
    at = augmentation.levels(image_embedding.SCHEDULE, noise_level, batch)
    seeds = pipelines.seeds_from(seed, batch)
    _, levels = pipeline.plan(sampling)

    embeddings = embed(pipeline, images) if given is None else given
    if weights is not None:
        embeddings = mixed(embeddings, weights)[None]
    embeddings = np.broadcast_to(embeddings, (batch, embeddings.shape[-1]))
    # The embedding's noise is the first that diffusers draws.
    shapes = [embeddings.shape[1:], parts.latents(1, size)[1:]]
    noise, x = noise_sources.noises(sampling.noise_source, seeds, shapes)
    x = at_start(sampling, levels, variation(sampling, x))
    level = np.asarray(at.t, np.int32)
    given = {'image_embedding': {'embedding': embeddings, 'noise': noise, 'level': level}}
    prompts = prompts * (batch // len(prompts))
    conds, guidance = prompt_conds(pipeline, sampling, prompts, negative_prompts, size, given=given)
    return pipeline.decode(pipeline.sample(sampling, x, levels, conds, seeds, guidance=guidance))


def embed(pipeline: Pipeline, images: Images) -> np.ndarray:
    """Images in [-1, 1], one [h, w, 3], an array or a list of them of any sizes, to CLIP embeddings [B, D].

    Raises ValueError for a model without an image encoder.
    """
    model_kinds.check(pipeline.parts, 'embed', 'variation')
    side = pipeline.parts.image_encoder.image_size
    images = [images] if isinstance(images, np.ndarray) and images.ndim == 3 else images
    prepared = [clip_vision.preprocess(jnp.asarray(image, jnp.float32)[None], side)[0] for image in images]
    return pipeline.map(_embedded, np.stack(prepared))


def mixed(embeddings: np.ndarray, weights: Sequence[float]) -> np.ndarray:
    """Embeddings [N, D] to the one [D] between them: slerp for two, the spherical weighted average for more.

    Directions are averaged on the sphere, where a mean in a straight line would fall short of it, and lengths apart.
    Ref: Ramesh et al. 2022, section 3.2; Buss & Fillmore 2001, "Spherical averages", algorithm A1.
    Raises ValueError for another count of weights, a negative one, none above zero, or directions that cancel out.
    """
    weights = _shares(weights, len(embeddings))
    embeddings = np.asarray(embeddings, np.float64)
    lengths = np.linalg.norm(embeddings, axis=1)
    points = embeddings / np.maximum(lengths, 1e-30)[:, None]
    middle = weights @ points
    if np.linalg.norm(middle) < 1e-6:
        raise ValueError('These embeddings cancel each other out: there is none between them.')
    middle /= np.linalg.norm(middle)
    for _ in range(100):
        cosines = np.clip(points @ middle, -1, 1)
        across = points - cosines[:, None] * middle
        sines = np.linalg.norm(across, axis=1)
        move = weights @ (across * (np.arctan2(sines, cosines) / np.maximum(sines, 1e-30))[:, None])
        angle = np.linalg.norm(move)
        if angle < 1e-12:
            break
        middle = np.cos(angle) * middle + np.sin(angle) / angle * move
        middle /= np.linalg.norm(middle)
    return (weights @ lengths * middle).astype(np.float32)


def _shares(weights: Sequence[float], count: int) -> np.ndarray:
    """Weights [N] that add up to one."""
    shares = np.asarray(weights, np.float64)
    if shares.shape != (count,):
        raise ValueError(f'{shares.size} weights for {count} images: give one for each.')
    if not (shares >= 0).all() or shares.sum() <= 0:
        raise ValueError(f'weights must be at least 0, and one of them above; got {shares.tolist()}.')
    return shares / shares.sum()


def _embeddings(parts: Parts, images: Images) -> np.ndarray | None:
    """Embeddings [B, D], where these are such."""
    if not hasattr(images, 'ndim') or images.ndim > 2:
        return None
    width = parts.image_normalizer.width
    if images.shape[-1:] != (width,):
        raise ValueError(f'Embeddings for this model are {width} wide; got shape {list(images.shape)}.')
    return np.asarray(images, np.float32).reshape(-1, width)


def _count(images: Images) -> int:
    return 1 if isinstance(images, np.ndarray) and images.ndim == 3 else len(images)


def _embedded(parts: Parts, params: Params, images: Array) -> Array:
    return image_embedding.embed(parts.networks(params), images)
