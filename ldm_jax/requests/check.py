"""Checks of a request that need no model."""

from __future__ import annotations

import pathlib

from ldm_jax import knobs, text_files
from ldm_jax.inference.sizes import Sizes, check_size
from ldm_jax.pipelines.hires import upscaler_named
from ldm_jax.pipelines.interpolate import stops
from ldm_jax.pipelines.masks import content_named
from ldm_jax.requests.request import Request
from ldm_jax.text.prompts import dialects, styles

LEAST = 8  # no first stage of Stable Diffusion takes sides that are not multiples of this; the model knows the rest


def check(request: Request) -> None:
    """Raises ValueError for values of wrong types or out of range, and for fields that do not go together."""
    knobs.check(request)
    sizes(request)
    _check_guidance(request)
    _check_prompts(request)
    if request.size is not None:
        check_size(request.size, LEAST)
    if request.mask_content is not None:
        content_named(request.mask_content)
    if request.interpolate is not None:
        for prompts, seeds in request.ways:
            stops(prompts, seeds)
        if request.sampling.variation_seed is not None:
            raise ValueError('An interpolation has seeds of its own on its way: leave variation_seed out.')
    if request.hires_upscaler is not None:
        upscaler_named(request.hires_upscaler)
    if request.hires_scale is not None and request.hires_size is not None:
        raise ValueError(
            'hires_scale and hires_size both say how large the second pass is: give one of them.'
        )
    if request.hires_size is not None:
        check_size(request.hires_size[::-1], LEAST)
    if request.mix_weights is not None and len(request.mix_weights) != 1 + len(request.mix or ()):
        raise ValueError(
            f'{len(request.mix_weights)} weights for a mix of {1 + len(request.mix or ())} images: give one '
            'for each, that of init_image first.'
        )


def _check_prompts(request: Request) -> None:
    """Raises ValueError for prompts that their language cannot read."""
    dialect = dialects.named(request.sampling.prompting.syntax)
    parts = [part.text for text in request.prompts or () for part in dialect.parts(text)]
    for part in (*parts, dialect.negative(request.negative_prompt)):
        for _, text in dialect.entries(part, dialects.Steps(2)):
            dialect.fragments(text)


def _check_guidance(request: Request) -> None:
    guidance = request.sampling.guidance
    parts = max(
        (
            len(dialects.named(request.sampling.prompting.syntax).parts(text))
            for text in request.prompts or ()
        ),
        default=1,
    )
    if (request.weak_model is None) != (guidance.autoguidance_scale is None):
        raise ValueError('Autoguidance is away from a weak_model by an autoguidance_scale: give both.')
    if request.weak_model is None:
        return
    if request.refiner is not None or parts > 1:
        raise ValueError('Autoguidance goes neither with a refiner nor with several prompts at once (AND).')
    if request.negative_prompt and 'guidance_scale' not in knobs.changed(request):
        raise ValueError(
            'With a weak_model and no guidance_scale a negative_prompt has no effect: give a guidance_scale too.'
        )


def sizes(request: Request) -> tuple[Sizes | None, Sizes | None]:
    """What SDXL is conditioned on for the prompt, and for the negative prompt where that is something else.

    Raises ValueError for an empty size.
    """
    names = ('original_size', 'crop_top_left', 'target_size')
    wanted = {name: getattr(request, name) for name in names}
    others = {name: getattr(request, f'negative_{name}') for name in names}
    rest = {name: value or wanted[name] for name, value in others.items()}
    return _sizes(**wanted), _sizes(**rest) if any(others.values()) else None


def _sizes(original_size, crop_top_left, target_size) -> Sizes | None:
    if not (original_size or crop_top_left or target_size):
        return None
    # From width and height to height and width.
    original, crop, target = (pair and pair[::-1] for pair in (original_size, crop_top_left, target_size))
    return Sizes(original, crop or (0, 0), target)


def read_styles(path: str) -> dict[str, styles.Style]:
    """The styles of a file. Raises FileNotFoundError, or ValueError for a file that is no table of styles."""
    if not pathlib.Path(path).is_file():
        raise FileNotFoundError(f'No file of styles at {path!r}: give --styles_file.')
    try:
        return styles.parse(text_files.read(path))
    except ValueError as error:
        raise ValueError(f'{path}: {error}') from None


def read_prompts(path: str) -> tuple[str, ...]:
    """The prompts of a file, one a line; empty lines are left out.

    Raises FileNotFoundError, or ValueError for a file without any, or that is no text.
    """
    if not pathlib.Path(path).is_file():
        raise FileNotFoundError(f'No file of prompts at {path!r}.')
    lines = [line.strip() for line in text_files.lines(text_files.read(path))]
    prompts = tuple(line for line in lines if line)
    if not prompts:
        raise ValueError(f'{path} has no prompts, which stand one on each line.')
    return prompts
