"""Image datasets of the tensorflow-datasets catalogue, read without TensorFlow."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import numpy as np
from PIL import Image

from ldm_jax.data import transforms


@dataclasses.dataclass(frozen=True)
class Source:
    """A dataset's split as dict(image=uint8 [S, S, 3], text=str).

    Args:
        dataset: its name in the catalogue, such as 'oxford_flowers102'. One that is not prepared yet is
            downloaded and written as array_record, which needs TensorFlow once for most of them.
        image_size: S; the middle square of each image is resized to it.
        text: a format string over the example's other features; class labels stand for their names.
        split: such as 'train' or 'train[:10%]'.
        data_dir: where prepared datasets lie; by default tensorflow-datasets' own folder.
    """

    dataset: str
    image_size: int
    text: str = '{label}'
    split: str = 'train'
    data_dir: str | None = None

    def __post_init__(self):
        features = set(self._rows.dataset_info.features) - {'image'}
        try:
            self.text.format(**dict.fromkeys(features, ''))
        except KeyError as error:
            raise ValueError(
                f'{self.dataset} has no feature {error}; text is {self.text!r}, the features are {sorted(features)}.'
            ) from None

    def caption(self, i: int) -> str:
        """The text of example i."""
        return self._caption(self._rows[i])

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, i: int) -> dict[str, Any]:
        row = self._rows[i]
        pixels = np.asarray(row['image'])
        image = Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels)
        return {'image': transforms.square(image, self.image_size), 'text': self._caption(row)}

    @functools.cached_property
    def _rows(self) -> Any:
        import tensorflow_datasets as tfds  # takes seconds to import

        return tfds.data_source(self.dataset, split=self.split, data_dir=self.data_dir)

    def _caption(self, row: dict[str, Any]) -> str:
        features = self._rows.dataset_info.features

        def spell(name, value):
            if hasattr(features[name], 'int2str'):
                return features[name].int2str(int(value))
            return value.decode() if isinstance(value, bytes) else value

        return self.text.format(
            **{name: spell(name, value) for name, value in row.items() if name != 'image'}
        )
