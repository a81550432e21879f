"""What is asked for on a command line or read from an image: plain names, numbers and paths, checked early."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import pathlib
import re
from collections.abc import Sequence
from typing import Any

import numpy as np

from ldm_jax.build import unknown
from ldm_jax.images import RESIZES, fit
from ldm_jax.inference.settings import Sampling
from ldm_jax.inference.sizes import Sizes, check_size
from ldm_jax.pipelines.masks import CONTENTS, WEB_UI
from ldm_jax.requests import files, image_files
from ldm_jax.text import prompt

PAIRS = {  # field -> the form of its two numbers, and what is between them
    f'{prefix}{name}': form
    for prefix in ('', 'negative_')
    for name, form in {
        'original_size': ('WIDTHxHEIGHT', 'x'),
        'crop_top_left': ('LEFT,TOP', ','),
        'target_size': ('WIDTHxHEIGHT', 'x'),
    }.items()
}
LEAST = 8  # no first stage of Stable Diffusion takes sides that are not multiples of this; the model knows the rest


@dataclasses.dataclass(frozen=True)
class Request:
    """Settings of images to be made; None leaves one to the task or the model."""

    prompts: tuple[str, ...] | None = None
    negative_prompt: str = ''
    num_images: int = 1  # for each prompt
    seed: int = 0  # of the first image of each prompt; the next ones have the next numbers
    sampler: str = 'dpmpp_2m'
    grid: str | None = None
    num_steps: int = 20
    guidance_scale: float | None = None  # 1 is no guidance
    guidance_rescale: float | None = None
    guidance_rule: str = 'linear'
    guidance_interval: tuple[float, float] | None = None
    apg_eta: float | None = None
    apg_threshold: float | None = None
    perturbed_scale: float | None = None
    weak_model: str | None = None
    autoguidance_scale: float | None = None
    cfg_zero_share: float | None = None
    percentile: float | None = None
    eta: float | None = None
    noise_source: str = 'jax'
    start: str = 'noise'
    width: int | None = None
    height: int | None = None
    original_size: tuple[int, int] | None = None  # (width, height), as the others; see Sizes
    crop_top_left: tuple[int, int] | None = None  # pixels to the left and above
    target_size: tuple[int, int] | None = None
    negative_original_size: tuple[int, int] | None = None
    negative_crop_top_left: tuple[int, int] | None = None
    negative_target_size: tuple[int, int] | None = None
    init_image: str | None = None
    mask: str | None = None
    strength: float | None = None
    mask_blur: float | None = None
    mask_content: str | None = None
    mask_padding: int | None = None
    resize: str = 'crop'
    outpaint: tuple[int, int, int, int] | None = None  # pixels to the left, top, right and bottom
    depth: str | None = None
    image_guidance_scale: float | None = None
    noise_level: int | None = None
    mix: tuple[str, ...] | None = None  # images to mix with init_image
    mix_weights: tuple[float, ...] | None = None
    hires_scale: float | None = None
    hires_upscaler: str | None = None
    hires_steps: int | None = None  # that the second pass takes, all of them
    refiner: str | None = None
    refiner_start: float | None = None
    labels: tuple[int, ...] | None = None
    label_map: str | None = None
    layout: str | None = None
    clip_skip: int = 1

    @property
    def size(self) -> tuple[int, int] | None:
        """(H, W), or None for the model's own."""
        if self.width is None and self.height is None:
            return None
        return self.height or self.width, self.width or self.height

    @property
    def rows(self) -> Sequence[Any]:
        """What there are num_images images of, each: classes or prompts."""
        return (self.prompts or ('',)) if self.labels is None else self.labels

    @property
    def seeds(self) -> list[int]:
        """One for each image, row by row."""
        return [self.seed + i for i in range(self.num_images)] * len(self.rows)

    def repeated(self, rows: Sequence[Any]) -> list[Any]:
        """One of the rows for each image."""
        return [row for row in rows for _ in range(self.num_images)]

    def sampling(self, guidance_scale: float | None) -> Sampling:
        """How to sample with this guidance; tasks.guidance_scale says which."""
        sampler = self.sampler if self.eta is None else dict(name=self.sampler, eta=self.eta)
        return Sampling(
            sampler,
            self.grid,
            self.num_steps,
            guidance_scale,
            self.guidance_rule,
            self.guidance_rescale,
            self.guidance_interval,
            apg_eta=self.apg_eta,
            apg_threshold=self.apg_threshold,
            perturbed_scale=self.perturbed_scale,
            autoguidance_scale=self.autoguidance_scale,
            cfg_zero_share=self.cfg_zero_share,
            percentile=self.percentile,
            noise_source=self.noise_source,
            start=self.start,
        )

    def sizes(self) -> tuple[Sizes | None, Sizes | None]:
        """What SDXL is told of the making of what is wanted, and of what is not where that is something else."""
        names = ('original_size', 'crop_top_left', 'target_size')
        wanted = {name: getattr(self, name) for name in names}
        others = {name: getattr(self, f'negative_{name}') for name in names}
        rest = {name: value or wanted[name] for name, value in others.items()}
        return _sizes(**wanted), _sizes(**rest) if any(others.values()) else None

    def image(self, name: str, size: tuple[int, int] | None) -> np.ndarray:
        """The image of a field, at a size where one is wanted: [H, W, 3] in [-1, 1]."""
        return files.load_image(getattr(self, name), size, self.resize)

    def masked(self, size: tuple[int, int] | None) -> tuple[np.ndarray, np.ndarray]:
        """Image and mask [H, W, 1] in [0, 1], fitted alike."""
        image = files.load_image(self.init_image)
        mask = files.load_mask(self.mask, image.shape[:2])
        if size is None:
            return image, mask
        return fit(image, size, self.resize), fit(mask, size, self.resize)

    def boxes(self) -> list[tuple]:
        """The boxes of the layout's file. Raises ValueError for another form."""
        try:
            found = json.loads(pathlib.Path(self.layout).read_text('utf-8'))
            return [(int(label), *map(float, (a, b, c, d))) for label, a, b, c, d in found]
        except (UnicodeDecodeError, json.JSONDecodeError, TypeError, ValueError) as error:
            raise ValueError(
                f'{self.layout} is not a layout, which is JSON [[class, left, top, right, bottom], ...] with sides '
                f'from 0 to 1: {error}.'
            ) from None


def _sizes(original_size, crop_top_left, target_size) -> Sizes | None:
    if not (original_size or crop_top_left or target_size):
        return None
    # From width and height to height and width.
    original, crop, target = (pair and pair[::-1] for pair in (original_size, crop_top_left, target_size))
    return Sizes(original, crop or (0, 0), target)


def read_pair(name: str, text: str) -> tuple[int, int]:
    """The two numbers of a field of PAIRS. Raises ValueError for another form."""
    form, mark = PAIRS[name]
    numbers = text.lower().split(mark)
    if len(numbers) != 2 or not all(re.fullmatch(r'\s*-?\d+\s*', number) for number in numbers):
        raise ValueError(f'{name} must be two numbers, {form}; got {text!r}.')
    return int(numbers[0]), int(numbers[1])


def check(request: Request) -> None:
    """Raises ValueError or FileNotFoundError for what is wrong whatever the model is."""
    request.sampling(None)
    request.sizes()
    _check_guidance(request)
    for name in ('num_images', 'clip_skip', 'hires_steps'):
        if getattr(request, name) is not None and getattr(request, name) < 1:
            raise ValueError(f'{name} must be at least 1; got {getattr(request, name)}.')
    if request.size is not None:
        check_size(request.size, LEAST)
    if request.strength is not None and not 0 < request.strength <= 1:
        raise ValueError(f'strength must be above 0 and at most 1; got {request.strength}.')
    if request.resize not in RESIZES:
        raise unknown('resize', request.resize, list(RESIZES))
    if request.mask_content is not None and request.mask_content not in (*CONTENTS, *WEB_UI):
        raise unknown('masked content', request.mask_content, list(CONTENTS))
    for path in (request.init_image, request.depth, request.label_map, *(request.mix or ())):
        if path is not None:
            image_files.read_image(path)
    if request.mix_weights is not None and len(request.mix_weights) != 1 + len(request.mix or ()):
        raise ValueError(
            f'{len(request.mix_weights)} weights for a mix of {1 + len(request.mix or ())} images: give one '
            'for each, that of init_image first.'
        )
    if request.mask is not None:
        if request.init_image is None:
            raise ValueError(
                'A mask says which part of an image is made anew: give the image too (init_image).'
            )
        request.masked(None)
    if request.layout is not None:
        if not os.path.isfile(request.layout):
            raise FileNotFoundError(f'No layout at {request.layout!r}.')
        request.boxes()


def _check_guidance(request: Request) -> None:
    parts = len(prompt.columns(request.prompts or ()))
    for field in dataclasses.fields(request):
        value = getattr(request, field.name)
        if isinstance(value, float) and not math.isfinite(value):
            raise ValueError(f'{field.name} must be a finite number; got {value}.')
    if (request.weak_model is None) != (request.autoguidance_scale is None):
        raise ValueError('Autoguidance is away from a weak_model by a autoguidance_scale: give both.')
    if request.weak_model is None:
        return
    if request.refiner is not None or parts > 1:
        raise ValueError('Autoguidance goes neither with a refiner nor with several prompts at once (AND).')
    if request.negative_prompt and request.guidance_scale is None:
        raise ValueError(
            'With a weak_model and no guidance_scale there is nothing that a negative_prompt would be told to: '
            'give a guidance_scale too.'
        )


def read_prompts(path: str) -> tuple[str, ...]:
    """The prompts of a file, one a line; empty lines are left out.

    Raises FileNotFoundError, or ValueError for a file without any or that is not UTF-8.
    """
    file = pathlib.Path(path)
    if not file.is_file():
        raise FileNotFoundError(f'No file of prompts at {path!r}.')
    try:
        lines = [line.strip() for line in file.read_text('utf-8-sig').splitlines()]
    except UnicodeDecodeError as error:
        raise ValueError(f'{path} is not a text in UTF-8: {error}.') from None
    prompts = tuple(line for line in lines if line)
    if not prompts:
        raise ValueError(f'{path} has no prompts, which stand one on each line.')
    return prompts
