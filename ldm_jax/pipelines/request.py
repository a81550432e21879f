"""What is asked for on a command line or read from a picture: checked early, run by the task that fits the model.

A request is plain: names, numbers and paths. Everything that can be wrong about it without the model is found by
`check` before the model is loaded.
"""

from __future__ import annotations

import dataclasses
import json
import os
import pathlib
import tempfile
from collections.abc import Mapping
from typing import Any

import numpy as np

from ldm_jax.build import unknown
from ldm_jax.pipelines import images, infotext
from ldm_jax.pipelines.outpaint import SIDES
from ldm_jax.pipelines.sampling import Sampling

GUIDANCE_SCALE = 7.5


@dataclasses.dataclass(frozen=True)
class Request:
    """Settings of pictures to be made; None leaves one to the task or the model."""

    prompts: tuple[str, ...] = ('',)
    negative_prompt: str = ''
    num_images: int = 1  # for each prompt
    seed: int = 0  # of the first picture of each prompt; the next ones have the next numbers
    sampler: str = 'dpmpp_2m'
    grid: str | None = None
    num_steps: int = 20
    guidance_scale: float | None = None  # 1 is no guidance
    guidance_rescale: float | None = None
    guidance_rule: str = 'linear'
    eta: float | None = None
    noise_source: str = 'jax'
    start: str = 'noise'
    width: int | None = None
    height: int | None = None
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
    hires_scale: float | None = None
    hires_upscaler: str | None = None
    refiner: str | None = None
    refiner_start: float | None = None
    labels: tuple[int, ...] | None = None
    label_map: str | None = None
    layout: str | None = None

    @property
    def size(self) -> tuple[int, int] | None:
        """(H, W), or None for the model's own."""
        if self.width is None and self.height is None:
            return None
        return self.height or self.width, self.width or self.height

    @property
    def seeds(self) -> list[int]:
        """One for each picture."""
        return [self.seed + i for i in range(self.num_images)] * len(self.labels or self.prompts)

    def sampling(self, guidance_scale: float | None) -> Sampling:
        """How to sample, with this guidance where the request has none of its own."""
        sampler = self.sampler if self.eta is None else dict(name=self.sampler, eta=self.eta)
        scale = guidance_scale if self.guidance_scale is None else self.guidance_scale
        return Sampling(
            sampler,
            self.grid,
            self.num_steps,
            scale,
            self.guidance_rule,
            self.guidance_rescale,
            noise_source=self.noise_source,
            start=self.start,
        )
