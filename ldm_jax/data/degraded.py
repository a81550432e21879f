"""Examples with a small image beside the large one, for training networks that enlarge: BSRGAN's degradations."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from ldm_jax.data import bsrgan, degradations, pipeline


@dataclasses.dataclass(frozen=True)
class Source:
    """A source's examples, with small=uint8 [H // factor, W // factor, 3] made of image=uint8 [H, W, 3].

    Args:
        source: whose images have sides that factor divides.
        factor: by which they become smaller.
        degradation: 'bsrgan', or 'bsrgan_light' with less blur, noise and compression, which latent diffusion's
            upscaler was trained with.

    By index the draws are those of the index; in a batch those of seed, epoch and example.

    Raises:
        ValueError: an unknown degradation, or a factor below 2; by reading, images that factor does not divide.
        ImportError: OpenCV is not installed.
    """

    source: pipeline.Examples
    factor: int = 4
    degradation: str = 'bsrgan_light'

    def __post_init__(self):
        bsrgan.settings(self.degradation)
        if self.factor < 2:
            raise ValueError(f'factor must be at least 2; got {self.factor}.')
        degradations.opencv()

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, i: int) -> dict[str, Any]:
        return self._with_small(self.source[i], np.random.default_rng(i))

    def view(self, i: int, rng: np.random.Generator) -> dict[str, Any]:
        """Example i as the source shows it, degraded by the generator."""
        return self._with_small(pipeline.view(self.source, i, rng), rng)

    def caption(self, i: int) -> str:
        """The text of example i."""
        return pipeline.caption(self.source, i)

    def captions(self, i: int) -> Sequence[str]:
        """All texts that showings of example i may have."""
        return pipeline.captions(self.source, i)

    def name(self, i: int) -> str:
        """Name of example i."""
        return pipeline.name(self.source, i)

    @property
    def buckets(self) -> Sequence[Sequence[int]]:
        return pipeline.buckets(self.source)

    def _with_small(self, example: dict[str, Any], rng: np.random.Generator) -> dict[str, Any]:
        image = example['image']
        if image.shape[0] % self.factor or image.shape[1] % self.factor:
            raise ValueError(
                f'An image of {image.shape[0]} x {image.shape[1]} is not {self.factor} times another: give the '
                'source an image_size that factor divides.'
            )
        small = bsrgan.degraded(image, self.factor, bsrgan.settings(self.degradation), rng)
        return example | {'small': small}
