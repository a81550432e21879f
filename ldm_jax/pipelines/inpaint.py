"""A masked part of an image made anew after a prompt.

Two kinds of model do it. Those with channels for it are conditioned on a mask and the latents of the image with a grey
hole, and see what they paint around. Any other text model has the rest of the image kept while it samples
(diffusion.inpainting). Ref: Rombach et al. 2022, arXiv:2112.10752, section 4.5; Lugmayr et al. 2022, arXiv:2201.09865.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np

from ldm_jax.build import unknown
from ldm_jax.images import fit
from ldm_jax.inference import model_kinds
from ldm_jax.inference import pipeline as pipelines
from ldm_jax.inference.pipeline import Pipeline
from ldm_jax.inference.programs import KnownRegion
from ldm_jax.inference.settings import SAMPLING, Sampling
from ldm_jax.pipelines import masks as masking
from ldm_jax.pipelines.prompts import prompt_conds
from ldm_jax.pipelines.start import at_start, each_image, last_levels, noised, normal_noise, posterior

KEEPS = ('x0', 'step')


def inpaint(
    pipeline: Pipeline,
    prompts: str | Sequence[str],
    images: np.ndarray,
    masks: np.ndarray,
    negative_prompts: str | Sequence[str] = '',
    *,
    strength: float = 1.0,
    content: str = 'original',
    blur: float = 4.0,
    padding: int | None = None,
    size: tuple[int, int] | None = None,
    keep: str = 'x0',
    paste: bool = True,
    seed: int | Sequence[int] = 0,
    sampling: Sampling = SAMPLING,
) -> np.ndarray:
    """Images [B, H, W, 3] in [-1, 1], one for each prompt: the images with their masked parts made anew.

    Args:
        images: [H, W, 3] or [B, H, W, 3] in [-1, 1].
        masks: [H, W, 1] or [B, H, W, 1] in [0, 1], 1 where images are made anew.
        strength: share of the steps that are taken, from the end; 1 begins with noise alone, whatever the content.
        content: what the masked part begins with: 'original'; 'fill', the colours around it; 'latent_noise';
            'latent_nothing'. See `masks`.
        blur: standard deviation in pixels of the mask's soft edge.
        padding: works on the masked part alone, with so many pixels around it, scaled to `size`; images may then
            be of any size. None works on whole images.
        size: (H, W) to work at with a padding; by default the model's own.
        keep: how models without channels for masks keep the rest: 'x0' in every prediction, with the mask scaled
            smoothly, as A1111's web UI does; 'step' at every step's end, with every n-th pixel of the mask, as
            diffusers does. Samplers that make their own steps always keep the predictions.
        paste: puts the original pixels back around the mask. Without it images are what the first stage made,
            at `size` where there is a padding.
        prompts, negative_prompts, seed: as in text_to_image.

    Raises ValueError for a model of another kind, a mask of another size, with values outside [0, 1] or with nothing
    to make anew, an unknown content or keep, a size without a padding, and as image_to_image.
    """
    prompts = [prompts] if isinstance(prompts, str) else list(prompts)
    model_kinds.check(pipeline.parts, 'inpaint', 'inpaint', 'text')
    _check(content, keep, padding, size)
    images, masks = each_image(images, len(prompts)), each_image(masks, len(prompts))
    _check_masks(images, masks)
    levels = last_levels(pipeline.plan(sampling)[1], strength)
    seeds = pipelines.seeds_from(seed, len(prompts))
    masks = np.stack([masking.blur(mask, blur) for mask in masks])
    size = pipeline.size(images.shape[1:3] if padding is None else size)
    views, view_masks, regions = _views(images, masks, padding, size)
    small = _latent_masks(pipeline, view_masks, keep)
    start = np.stack([masking.masked_image(content, *each) for each in zip(views, view_masks, strict=True)])
    has_channels, full, draws = 'inpainting' in pipeline.parts.kinds, strength == 1, itertools.count()
    # In diffusers' order, which draws nothing for what it does not need.
    known = None if has_channels and full else posterior(pipeline, start, seeds, sampling, next(draws))
    noise = normal_noise(pipeline, sampling, seeds, size, next(draws))
    if full:
        x = at_start(sampling, levels, noise)
    else:
        # The content 'latent_noise' is the very noise that is added, as in A1111's web UI.
        x = noised(masking.masked_latents(content, known, small, noise), noise, levels)
    given, kept = {}, None
    if has_channels:
        eps = pipeline.noise(seeds, size, sampling.noise_source, next(draws))
        given = {'inpainting': {'image': views, 'mask': view_masks, 'eps': eps}}
    else:
        kept = KnownRegion(known, small, noise, keep)
    conds, guidance = prompt_conds(pipeline, sampling, prompts, negative_prompts, size, given=given)
    latents = pipeline.sample(sampling, x, levels, conds, seeds, guidance=guidance, kept=kept)
    if not has_channels:
        # Grids may end at the first training level, which has some noise; what is known has none.
        latents = small * latents + (1 - small) * known
    made = pipeline.decode(latents)
    if not paste:
        return made
    return np.stack([masking.paste_back(*each) for each in zip(images, made, masks, regions, strict=True)])


def _check(content: str, keep: str, padding: int | None, size: tuple[int, int] | None) -> None:
    masking.content_named(content)
    if keep not in KEEPS:
        raise unknown('way to keep', keep, list(KEEPS))
    if padding is not None and padding < 0:
        raise ValueError(
            f'padding {padding} is negative: give pixels around the mask, or None for whole images.'
        )
    if padding is None and size is not None:
        raise ValueError(
            'size is for the masked part alone: give a padding too, or scale image and mask with `images.fit`.'
        )


def _check_masks(images: np.ndarray, masks: np.ndarray) -> None:
    masking.check_same_size(images[0], masks[0])
    if not ((masks >= 0) & (masks <= 1)).all():
        raise ValueError(
            f'The mask has values from {masks.min():g} to {masks.max():g}; they must be in [0, 1], 1 where the '
            'image is made anew.'
        )


def _views(
    images: np.ndarray, masks: np.ndarray, padding: int | None, size: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray, list[masking.Region | None]]:
    """Regions of images and masks to work on, at that size, and their places: the whole without a padding."""
    if padding is None:
        return images, masks, [None] * len(images)
    regions = [masking.masked_crop(mask, padding, size[1] / size[0]) for mask in masks]
    views, view_masks = (
        np.stack([fit(region.of(a), size, 'fill') for region, a in zip(regions, whole, strict=True)])
        for whole in (images, masks)
    )
    return views, view_masks, regions


def _latent_masks(pipeline: Pipeline, masks: np.ndarray, keep: str) -> np.ndarray:
    """Zeros and ones [B, h, w, 1]: where latents are made anew."""
    factor = pipeline.parts.downscale
    if 'inpainting' in pipeline.parts.kinds or keep == 'step':
        small = np.stack([masking.nearest_mask(mask, factor) for mask in masks])
    else:
        size = (masks.shape[1] // factor, masks.shape[2] // factor)
        small = np.stack([masking.latent_mask(mask, size) for mask in masks])
    if not small.any(axis=(1, 2, 3)).all():
        raise ValueError(
            f'The mask leaves nothing to make anew: it is empty, or thinner than the {factor} pixels of a latent '
            'once it is blurred. Paint more white, blur less, or work on the masked part alone with a padding.'
        )
    return small
