"""Large images in two passes: a small one for the composition, made larger, and denoised again for its details.

A network repeats itself at sizes far above those it was trained at; what is already there keeps it from that.
Known as "hires. fix" in AUTOMATIC1111's web UI.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence

import numpy as np
from PIL.Image import Resampling

from ldm_jax.build import unknown
from ldm_jax.images import fit, resample
from ldm_jax.inference import model_kinds
from ldm_jax.inference import pipeline as pipelines
from ldm_jax.inference.pipeline import Pipeline
from ldm_jax.inference.settings import SAMPLING, Sampling
from ldm_jax.inference.sizes import Sizes
from ldm_jax.pipelines import resize_latents, text_to_image
from ldm_jax.pipelines.image_to_image import image_to_image
from ldm_jax.pipelines.prompts import prompt_conds
from ldm_jax.pipelines.start import last_levels, noised, normal_noise, starting_noise
from ldm_jax.pipelines.timing import Course

STRENGTH = 0.7
LATENT = 'latent_'  # before a method of interpolation
PIXELS = {
    'lanczos': Resampling.LANCZOS,
    'bicubic': Resampling.BICUBIC,
    'bilinear': Resampling.BILINEAR,
    'nearest': Resampling.NEAREST,
}
UPSCALERS = (*(LATENT + method for method in resize_latents.METHODS), *PIXELS)
WEB_UI = {  # its names
    'Latent': 'latent_bilinear',
    'Latent (antialiased)': 'latent_bilinear_antialiased',
    'Latent (bicubic)': 'latent_bicubic',
    'Latent (bicubic antialiased)': 'latent_bicubic_antialiased',
    'Latent (nearest)': 'latent_nearest',
    'Latent (nearest-exact)': 'latent_nearest_exact',
    'Lanczos': 'lanczos',
    'Nearest': 'nearest',
}


def hires(
    pipeline: Pipeline,
    prompts: str | Sequence[str],
    negative_prompts: str | Sequence[str] = '',
    *,
    size: tuple[int, int] | None = None,
    scale: float = 2.0,
    final_size: tuple[int, int] | None = None,
    upscaler: str = 'latent_bilinear',
    strength: float = STRENGTH,
    seed: int | Sequence[int] = 0,
    sampling: Sampling = SAMPLING,
    second: Sampling | None = None,
    sizes: Sizes | None = None,
    negative_sizes: Sizes | None = None,
) -> np.ndarray:
    """Images [B, H', W', 3] in [-1, 1], one for each prompt.

    Args:
        prompts, negative_prompts, seed, sizes, negative_sizes: as in text_to_image, for both passes.
        size: (H, W) of the first pass; by default the model's own.
        scale: H' / H and W' / W, up to what the model can make; no less than 1.
        final_size: (H', W') in place of scale. Of other proportions, the middle of the first pass is kept.
        upscaler: of UPSCALERS or the web UI's name: 'latent_bilinear' and its like interpolate latents, which blurs
            and wants a strength of half or more; 'lanczos' and its like pixels, through the first stage.
        strength: share of the second pass's steps that are taken, as in image_to_image ("denoising strength").
        sampling: of the first pass.
        second: of the second pass; like the first by default. The web UI takes all of its "hires steps", so that
            N of these are num_steps = int(N / strength) here.

    Raises ValueError for an unknown upscaler, a strength outside (0, 1] or that leaves no step, a size that
    the model cannot make or below the first, and as text_to_image.
    """
    prompts = [prompts] if isinstance(prompts, str) else list(prompts)
    model_kinds.check(pipeline.parts, 'hires', 'text')
    second = sampling if second is None else second
    name = upscaler_named(upscaler)
    size = pipeline.size(size)
    final_size = _final(pipeline, size, scale, final_size)
    levels = last_levels(second.plan(pipeline.parts.schedule)[1], strength)
    seeds = pipelines.seeds_from(seed, len(prompts))
    course = Course(sampling, len(levels.sigma) - 1)
    of_sizes = dict(sizes=sizes, negative_sizes=negative_sizes)

    if not name.startswith(LATENT):
        images = text_to_image.text_to_image(
            pipeline, prompts, negative_prompts, size=size, seed=seeds, sampling=sampling, **of_sizes
        )
        images = _each(images, final_size, functools.partial(resample, method=PIXELS[name]))
        return image_to_image(
            pipeline,
            prompts,
            images,
            negative_prompts,
            strength=strength,
            seed=seeds,
            sampling=second,
            **of_sizes,
            course=course,
        )
    _, first = pipeline.plan(sampling)
    x = starting_noise(pipeline, sampling, first, seeds, size)
    conds, guidance = prompt_conds(pipeline, sampling, prompts, negative_prompts, size, **of_sizes)
    latents = pipeline.sample(sampling, x, first, conds, seeds, guidance=guidance)
    side = pipeline.parts.latents(1, final_size)[1:3]
    method = name.removeprefix(LATENT)
    latents = _each(latents, side, functools.partial(resize_latents.interpolated, method=method))
    # Each seed's first noise again, in the new shape, as the web UI has it.
    x = noised(latents, normal_noise(pipeline, second, seeds, final_size), levels)
    conds, guidance = prompt_conds(
        pipeline, second, prompts, negative_prompts, final_size, **of_sizes, course=course
    )
    return pipeline.decode(pipeline.sample(second, x, levels, conds, seeds, guidance=guidance))


def upscaler_named(upscaler: str) -> str:
    """The name among UPSCALERS, from that or from the web UI's. Raises ValueError, with the known ones, for another."""
    name = WEB_UI.get(upscaler, upscaler)
    if name not in UPSCALERS:
        raise unknown('upscaler', upscaler, [*UPSCALERS, *WEB_UI])
    return name


def _final(
    pipeline: Pipeline, size: tuple[int, int], scale: float, final_size: tuple[int, int] | None
) -> tuple[int, int]:
    """The size of the second pass."""
    if final_size is None:
        if not scale >= 1:
            raise ValueError(f'scale must be at least 1; got {scale}.')
        multiple = pipeline.parts.multiple
        final_size = tuple(round(side * scale / multiple) * multiple for side in size)
    final_size = pipeline.size(final_size)
    if min(a - b for a, b in zip(final_size, size, strict=True)) < 0:
        raise ValueError(
            f'The second pass is larger than the first; got {final_size[0]} x {final_size[1]} after '
            f'{size[0]} x {size[1]} (height x width). Make the first pass smaller.'
        )
    return final_size


def _each(
    batch: np.ndarray, size: tuple[int, int], scale: Callable[[np.ndarray, tuple[int, int]], np.ndarray]
) -> np.ndarray:
    """A batch made to cover a size, its middles cut out."""
    return np.stack([fit(each, size, 'crop', scale) for each in batch])
