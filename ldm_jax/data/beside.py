"""Examples with what lies in files of the same name elsewhere: an image to edit, a depth map, a map of classes, boxes.

images/000139.jpg   maps/000139.png   boxes/000139.json      as COCO-Stuff has them
"""

from __future__ import annotations

import dataclasses
import io
import json
import pathlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from PIL import Image

from ldm_jax.build import unknown
from ldm_jax.data import box_tokens, pipeline, transforms
from ldm_jax.data import rows as rows_of
from ldm_jax.data.corrupt import Corrupt


@dataclasses.dataclass(frozen=True)
class Source:
    """A source's examples with one key more, read from `folder`/<the image's name><suffix>.

    kind: which key, and what a file holds.
        'source': an image, uint8 [S, S, 3], for instruct-pix2pix: `image` is what it becomes.
        'depth': one channel of 8 or 16 bits, nearer things brighter: float32 [S, S, 1] in [0, 1].
        'map': an image whose values are classes: int32 [S, S].
        'boxes': JSON [[class, left, top, right, bottom], ...] in [0, 1] of the whole image: tokens int32 [length] of
            the largest that fit, cut to the middle square.

    Args:
        source: of images with an image_size S, whose middle square was taken; the file's is taken alike.
        folder: the files, at the same path below it as images have below theirs.
        suffix: of a file; '.png', or '.json' of boxes, by default.
        vocab_size, length: of boxes' tokens, as of the text encoder that reads them.

    Raises:
        ValueError: an unknown kind, or a source without image_size.
        FileNotFoundError: no such folder.
        Corrupt: by reading, where a file is missing or is not what its kind is.
    """

    source: pipeline.Examples
    folder: str
    kind: str
    suffix: str = ''
    vocab_size: int = 8192
    length: int = 92

    def __post_init__(self):
        if self.kind not in KINDS:
            raise unknown('kind of files beside images', self.kind, sorted(KINDS))
        if not isinstance(getattr(self.source, 'image_size', None), int):
            raise ValueError(
                'The source needs an image_size: files beside an image are cut as it was, its middle square.'
            )
        if not pathlib.Path(self.folder).is_dir():
            raise FileNotFoundError(f'No folder {self.folder!r} of files beside the images.')

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, i: int) -> dict[str, Any]:
        return self.source[i] | self._read(i)

    def view(self, i: int, rng: np.random.Generator) -> dict[str, Any]:
        """Example i as the source shows it, with what is beside it."""
        return pipeline.view(self.source, i, rng) | self._read(i)

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
    def image_size(self) -> int:
        return self.source.image_size  # type: ignore[attr-defined]

    def _read(self, i: int) -> dict[str, Any]:
        suffix = self.suffix or ('.json' if self.kind == 'boxes' else '.png')
        path = (pathlib.Path(self.folder) / self.name(i)).with_suffix(suffix)
        try:
            data = path.read_bytes()
        except OSError as error:
            raise Corrupt(self.name(i), f'{path} cannot be read: {error.strerror}') from None
        try:
            return {self.kind: KINDS[self.kind](self, i, data)}
        except Corrupt:
            raise
        except Exception as error:  # of Pillow any, see transforms
            raise Corrupt(self.name(i), f'{path}: {str(error) or type(error).__name__}') from None


def _image(source: Source, i: int, data: bytes) -> np.ndarray:
    return transforms.square(transforms.decode(data, source.folder), source.image_size)


def _depth(source: Source, i: int, data: bytes) -> np.ndarray:
    image = Image.open(io.BytesIO(data))
    if image.mode not in ('L', 'I', 'I;16'):
        raise ValueError(f'a depth map has one channel of 8 or 16 bits; this image is {image.mode}')
    most = 255 if image.mode == 'L' else 65535
    values = Image.fromarray(np.asarray(image, np.float32) / most)
    return _middle(values, source.image_size, Image.Resampling.BICUBIC).astype(np.float32)[..., None]


def _map(source: Source, i: int, data: bytes) -> np.ndarray:
    image = Image.open(io.BytesIO(data))
    if image.mode not in ('L', 'P', 'I', 'I;16'):
        raise ValueError(f'a map of classes has one channel; this image is {image.mode}')
    values = Image.fromarray(np.asarray(image, np.int32))
    return _middle(values, source.image_size, Image.Resampling.NEAREST).astype(np.int32)


def _boxes(source: Source, i: int, data: bytes) -> np.ndarray:
    rows = json.loads(data)
    if not isinstance(rows, list) or not all(isinstance(row, list) and len(row) == 5 for row in rows):
        raise ValueError('it must be rows [class, left, top, right, bottom]')
    table: Any = source.source
    image = table.table.read(i // len(rows_of.texts(table)))[0]  # as it was before it was cut
    height, width = transforms.dimensions(image, source.name(i))
    side = min(height, width)
    found = []
    for label, *corners in rows:
        x = np.clip((np.array(corners[::2]) * width - (width - side) // 2) / side, 0, 1)
        y = np.clip((np.array(corners[1::2]) * height - (height - side) // 2) / side, 0, 1)
        if x[0] < x[1] and y[0] < y[1]:
            found.append((int(label), float(x[0]), float(y[0]), float(x[1]), float(y[1])))
    found.sort(key=lambda box: (box[1] - box[3]) * (box[4] - box[2]))
    most = (source.length - 2) // 3
    return np.asarray(box_tokens.tokens(found[:most], source.vocab_size, source.length), np.int32)


def _middle(image: Image.Image, size: int, resampling: Image.Resampling) -> np.ndarray:
    """The middle square of an image of one channel, at a size."""
    side = min(image.size)
    left, top = (image.width - side) // 2, (image.height - side) // 2
    return np.asarray(image.crop((left, top, left + side, top + side)).resize((size, size), resampling))


KINDS: dict[str, Callable[[Source, int, bytes], np.ndarray]] = {
    'source': _image,
    'depth': _depth,
    'map': _map,
    'boxes': _boxes,
}
