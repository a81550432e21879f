"""Aspect-ratio buckets: each image is cut as little as the shapes allow, and a batch has images of one shape.

The shapes have sides that are multiples of a number and nearly the area of a square; an image goes to the one whose
ratio of sides is nearest to its own. Ref: NovelAI 2022, "Improvements on Stable Diffusion"; Podell et al. 2023,
arXiv:2307.01952, appendix I, lists those of SDXL.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import math
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from ldm_jax.data import crops, index, pipeline
from ldm_jax.data.corrupt import Corrupt
from ldm_jax.progress import progress

Shape = tuple[int, int]  # height, width


@dataclasses.dataclass(frozen=True)
class Source:
    """A source's examples with image=uint8 [h, w, 3] of their bucket's shape, and size=int32 [6] as in crops.

    How batches take turns, and what becomes of those that do not fill one, is said in order.py: every example is shown
    once an epoch, none is dropped. The images' sizes are measured once, by reading their headers, and kept in the cache
    folder (LDM_JAX_CACHE) for as long as the data stay; images whose header cannot be read are left out, logged and
    counted when batches are made.

    Args:
        source: with whole images (image_size None).
        image_size: the side of the square shape; no shape has a larger area.
        multiple: of which all sides are multiples, such as the first stage's pixels per latent times the U-Net's.
        min_side, max_side: of all shapes; half and twice image_size by default.
        min_count: shapes with fewer images are given up, and their images go to the next nearest one. Where a shape
            has fewer images than a batch, one batch shows an image twice: the batch size is a good value.
        random, flip: as in crops.

    Raises:
        ValueError: bad settings, or no shape has min_count images.
    """

    source: pipeline.Examples
    image_size: int
    multiple: int = 64
    min_side: int | None = None
    max_side: int | None = None
    min_count: int = 1
    random: bool = True
    flip: bool = False

    def __post_init__(self):
        crops.check_whole(self.source)
        _ = self._assigned

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, i: int) -> dict[str, Any]:
        return crops.cut(self.source[i], self.shape(i))

    def view(self, i: int, rng: np.random.Generator) -> dict[str, Any]:
        """Example i cut and mirrored by the generator."""
        return crops.cut(pipeline.view(self.source, i, rng), self.shape(i), rng, self.random, self.flip)

    def shape(self, i: int) -> Shape:
        """(h, w) of example i's bucket. Raises Corrupt when its size could not be measured."""
        bucket = self._assigned[i]
        if bucket < 0:
            raise Corrupt(self.name(i), self.unreadable[self.name(i)])
        return self.shapes[bucket]

    def caption(self, i: int) -> str:
        """The text of example i."""
        return pipeline.caption(self.source, i)

    def captions(self, i: int) -> Sequence[str]:
        """All texts that showings of example i may have."""
        return pipeline.captions(self.source, i)

    def name(self, i: int) -> str:
        """Name of example i."""
        return pipeline.name(self.source, i)

    @functools.cached_property
    def shapes(self) -> list[Shape]:
        """Shapes of the buckets, some of which may be empty."""
        low = self.image_size // 2 if self.min_side is None else self.min_side
        high = self.image_size * 2 if self.max_side is None else self.max_side
        return shapes(self.image_size**2, self.multiple, low, high)

    @functools.cached_property
    def buckets(self) -> list[np.ndarray]:
        """The indices of each shape that has any."""
        found = [np.flatnonzero(self._assigned == bucket) for bucket in range(len(self.shapes))]
        return [members for members in found if len(members)]

    @functools.cached_property
    def unreadable(self) -> dict[str, str]:
        """name -> reason of the images without a size."""
        found = self._measured
        return {
            self.name(int(i)): reason.decode()
            for i, reason in zip(found['bad'], found['reason'], strict=True)
        }

    @functools.cached_property
    def _assigned(self) -> np.ndarray:
        """The bucket of each example [N]; -1 for those without a size."""
        sizes = self._measured['sizes']
        good = sizes.min(axis=1) > 0
        found = np.full(len(sizes), -1, np.int32)
        found[good] = assign(sizes[good], self.shapes, self.min_count)
        return found

    @functools.cached_property
    def _measured(self) -> dict[str, np.ndarray]:
        stamp = getattr(self.source, 'stamp', None)
        if stamp is None:
            return measure(self.source)
        key = hashlib.sha256(f'{stamp} {self.source!r}'.encode()).hexdigest()[:32]
        return index.arrays('sizes', key, functools.partial(measure, self.source))


def shapes(area: int, multiple: int, min_side: int, max_side: int) -> list[Shape]:
    """The (height, width) of buckets, ordered from wide to high.

    For each height that is a multiple, the widest that keeps within the area and max_side; the mirror image of each;
    and the largest square. All sides lie between min_side and max_side.

    Raises ValueError when no square fits.
    """
    square = math.isqrt(area) // max(multiple, 1) * multiple
    if not 0 < multiple <= min_side <= square <= max_side:
        raise ValueError(
            f'Buckets need 0 < multiple <= min_side <= image_size <= max_side; got multiple {multiple}, min_side '
            f'{min_side}, an area of {area} (largest square {square}), max_side {max_side}.'
        )
    found = {(square, square)}
    for height in range(-(-min_side // multiple) * multiple, max_side + 1, multiple):
        width = min(area // height, max_side) // multiple * multiple
        if width >= min_side:
            found |= {(height, width), (width, height)}
    return sorted(found, key=lambda shape: (shape[0] / shape[1], shape))


def assign(sizes: np.ndarray, shapes: Sequence[Shape], min_count: int = 1) -> np.ndarray:
    """The number of the shape nearest in ratio of sides, for images of sizes [N, 2] (height, width) -> [N].

    Ratios are compared by their logarithms, so that high and wide images fare alike; of shapes with equal ratios the
    larger one counts. The shape with the fewest images is given up for as long as that is fewer than min_count.
    Raises ValueError when there are fewer images than min_count.
    """
    if len(sizes) < min_count:
        raise ValueError(f'min_count is {min_count}, and there are {len(sizes)} images.')
    ratios = np.log(sizes[:, 0] / sizes[:, 1])
    kept = sorted(range(len(shapes)), key=lambda number: -math.prod(shapes[number]))
    while True:
        table = np.log([shapes[number][0] / shapes[number][1] for number in kept])
        # In parts: images times shapes is a lot.
        nearest = np.concatenate(
            [np.zeros(0, np.int64)]
            + [
                np.abs(part[:, None] - table).argmin(axis=1)
                for part in np.array_split(ratios, len(ratios) // 100_000 + 1)
            ]
        )
        counts = np.bincount(nearest, minlength=len(kept))
        poor = [position for position in range(len(kept)) if 0 < counts[position] < min_count]
        if not poor:
            return np.array(kept)[nearest]
        kept.pop(min(poor, key=lambda position: counts[position]))


def measure(source: pipeline.Examples) -> dict[str, np.ndarray]:
    """sizes [N, 2] (height, width), 0 where there is none; the examples without, bad [M], and the reason [M]."""

    def size(i: int) -> Shape | Corrupt:
        try:
            return source.shape(i) if hasattr(source, 'shape') else source[i]['image'].shape[:2]
        except Corrupt as error:
            return error

    with ThreadPoolExecutor(8) as pool:
        found = list(progress(pool.map(size, range(len(source))), len(source), 'measuring images'))
    bad = [i for i, one in enumerate(found) if isinstance(one, Corrupt)]
    return {
        'sizes': np.array([(0, 0) if isinstance(one, Corrupt) else one for one in found], np.int32).reshape(
            -1, 2
        ),
        'bad': np.array(bad, np.int64),
        'reason': np.array([found[i].reason.encode() for i in bad], np.bytes_),
    }
