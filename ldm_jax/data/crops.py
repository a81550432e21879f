"""Windows of a source's images: at random places and mirrored for training, in the middle for everything else."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from ldm_jax.data import pipeline, transforms


@dataclasses.dataclass(frozen=True)
class Source:
    """A source's examples with image=uint8 [h, w, 3] a window, and size=int32 [6] how it was cut.

    An image is scaled until it just covers the window. `size` is height and width of the original, top and left of
    the window, and h and w: SDXL's conditioning (Podell et al. 2023, arXiv:2307.01952, section 2.2).

    Args:
        source: with whole images (image_size None).
        image_size: h and w, or (h, w).
        random: in a batch the window lies anywhere; otherwise, and by index, in the middle.
        flip: in a batch images are mirrored left and right half of the time.
        min_share: in a batch a window shows at least this share of the image's shorter side, and at most all of it.
    """

    source: pipeline.Examples
    image_size: int | tuple[int, int]
    random: bool = True
    flip: bool = False
    min_share: float = 1.0

    def __post_init__(self):
        check_whole(self.source)
        if not 0 < self.min_share <= 1:
            raise ValueError(f'min_share must be above 0 and at most 1; got {self.min_share}.')
        if min(self._target) < 1:
            raise ValueError(f'image_size must be at least 1; got {self.image_size}.')

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, i: int) -> dict[str, Any]:
        return cut(self.source[i], self._target)

    def view(self, i: int, rng: np.random.Generator) -> dict[str, Any]:
        """Example i cut and mirrored by the generator."""
        return cut(
            pipeline.view(self.source, i, rng), self._target, rng, self.random, self.flip, self.min_share
        )

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
    def _target(self) -> tuple[int, int]:
        return (self.image_size,) * 2 if isinstance(self.image_size, int) else tuple(self.image_size)


def cut(
    example: dict[str, Any],
    target: tuple[int, int],
    rng: np.random.Generator | None = None,
    random: bool = False,
    flip: bool = False,
    min_share: float = 1.0,
) -> dict[str, Any]:
    """An example with a window (h, w) of its image, and 'size'; without a generator the middle, unmirrored."""
    window, size = transforms.crop(example['image'], target, rng, random, flip, min_share)
    return example | {'image': window, 'size': size}


def check_whole(source: pipeline.Examples) -> None:
    """Raises ValueError when a source has cut its images already."""
    size = getattr(source, 'image_size', None)
    if size is not None:
        raise ValueError(
            f'The source inside has image_size={size}, which leaves nothing to choose a window from. '
            'Leave it away there.'
        )
