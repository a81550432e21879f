"""Coloured shapes with captions, made on the spot: data for tests and first steps that needs no file."""

from __future__ import annotations

import dataclasses
import itertools
from typing import Any

import numpy as np

COLOURS = {'red': (220, 40, 40), 'green': (40, 170, 60), 'blue': (50, 80, 220), 'yellow': (240, 210, 40)}
SHAPES = ('circle', 'square', 'cross')


@dataclasses.dataclass(frozen=True)
class Source:
    """Every colour of every shape on white: dict(image=uint8 [S, S, 3], text='a red circle')."""

    image_size: int

    def caption(self, i: int) -> str:
        """The text of example i."""
        colour, shape = self._pairs[i]
        return f'a {colour} {shape}'

    def __len__(self) -> int:
        return len(self._pairs)

    def __getitem__(self, i: int) -> dict[str, Any]:
        colour, shape = self._pairs[i]
        axis = (np.arange(self.image_size) + 0.5) / self.image_size * 2 - 1
        x, y = np.meshgrid(axis, axis)
        inside = {
            'circle': x**2 + y**2 < 0.5,
            'square': np.maximum(abs(x), abs(y)) < 0.6,
            'cross': np.minimum(abs(x), abs(y)) < 0.25,
        }[shape]
        image = np.where(inside[..., None], np.uint8(COLOURS[colour]), np.uint8(255))
        return {'image': image, 'text': self.caption(i)}

    @property
    def _pairs(self) -> list[tuple[str, str]]:
        return list(itertools.product(COLOURS, SHAPES))
