"""Image datasets of the tensorflow-datasets catalogue, read without TensorFlow."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
from collections.abc import Collection
from typing import Any

import numpy as np

from ldm_jax import text_files
from ldm_jax.data import rows
from ldm_jax.data.corrupt import Corrupt


@dataclasses.dataclass(frozen=True)
class Source:
    """A dataset's split as dict(image=uint8 [S, S, 3], text=str), with label=int32 [] if asked for.

    Args:
        dataset: its name in the catalogue, with a configuration and a version if need be: 'oxford_flowers102',
            'imagenet_resized/64x64', 'coco_captions:1.1.0'.
        image_size, text, label: as for image_folder. The example's other features are the fields; a class stands for
            its name in text and for its number in label. Nested ones are given as '{captions[text][0]}'.
        split: such as 'train', 'train[:10%]' or 'train+test'.
        image: the feature that is the image; the only one of its kind by default.
        data_dir: where prepared datasets lie; by default tensorflow-datasets' own folder.
        download: one that is not prepared yet is downloaded and written as array_record, which needs TensorFlow for
            most of them; otherwise that is an error.

    Raises:
        ImportError: tensorflow-datasets is not installed.
        FileNotFoundError: not prepared, and download is false.
        ValueError: no such dataset, version, split or feature; or it is stored as tfrecord, which only TensorFlow
            reads.
    """

    dataset: str
    image_size: int | None = None
    text: str | tuple[str, ...] = '{label}'
    label: str = ''
    split: str = 'train'
    image: str = ''
    data_dir: str | None = None
    download: bool = False

    def __post_init__(self):
        rows.check(self, 1)

    @functools.cached_property
    def table(self) -> Table:
        return Table(self.dataset, self.split, self.data_dir, self.image, self.download)

    __len__ = rows.length
    __getitem__ = rows.example
    view = rows.view
    caption = rows.caption
    captions = rows.all_captions
    name = rows.name
    shape = rows.shape

    @property
    def path(self) -> str:
        """The dataset, as messages call it."""
        return self.dataset

    @property
    def stamp(self) -> str:
        """Changes with the version of the dataset."""
        return f'{self.table.builder.info.full_name} {self.table.builder.data_path}'


@dataclasses.dataclass(frozen=True)
class Table:
    """Rows of a prepared dataset."""

    dataset: str
    split: str
    data_dir: str | None
    asked: str = ''  # the feature that was asked for
    download: bool = False

    @functools.cached_property
    def builder(self) -> Any:
        try:
            import tensorflow_datasets as tfds  # takes seconds to import
        except ImportError:
            raise ImportError(
                "The catalogue needs tensorflow-datasets: pip install 'ldm_jax[train]'."
            ) from None
        try:
            # A prepared one needs the folder only, not the code that made it.
            return tfds.builder(self.dataset, data_dir=self.data_dir)
        except tfds.core.DatasetNotFoundError:
            raise ValueError(
                f'tensorflow-datasets has no {self.dataset!r}, and none is prepared in '
                f'{self.data_dir or "its own folder"} (data_dir).'
            ) from None
        except AssertionError as error:  # another version is prepared, or known
            raise ValueError(str(error)) from None

    @functools.cached_property
    def image(self) -> str:
        """The image's feature. Raises ValueError when it is not clear which one."""
        features = self.builder.info.features
        found = [name for name, feature in features.items() if type(feature).__name__ == 'Image']
        if self.asked in found or (len(found) == 1 and not self.asked):
            return self.asked or found[0]
        if 'image' in found and not self.asked:
            return 'image'
        raise ValueError(
            f'{self.dataset}: which feature is the image? image={self.asked!r} is not one of {found}; all features '
            f'are {sorted(features)}.'
        )

    @functools.cached_property
    def _rows(self) -> Any:
        import tensorflow_datasets as tfds

        decoders = {self.image: tfds.decode.SkipDecoding()}  # ours names a broken image
        if self.download:
            self.builder.download_and_prepare(file_format='array_record')
        elif not self.builder.is_prepared():
            raise FileNotFoundError(
                f'{self.dataset} is not prepared in {self.builder.data_path}. Say where it is by data_dir, or '
                'let it be downloaded and prepared by download=True.'
            )
        try:
            return self.builder.as_data_source(split=self.split, decoders=decoders)
        except NotImplementedError as error:
            raise ValueError(
                f'{self.dataset} is stored in a way that has no access by row. Prepare it anew with '
                f"file_format='array_record', in another data_dir. ({error})"
            ) from None

    def __len__(self) -> int:
        return len(self._rows)

    def name(self, row: int) -> str:
        return f'row {row} of {self.dataset}, {self.split}'

    def columns(self, row: int) -> Collection[str]:
        return set(self.builder.info.features) - {self.image}

    def fields(self, row: int) -> rows.Fields:
        return self._fields(self._rows[row])

    def read(self, row: int) -> tuple[bytes, rows.Fields]:
        found = self._rows[row]
        data = found[self.image]
        if not isinstance(data, bytes | np.bytes_):
            raise Corrupt(self.name(row), f'{self.image} holds {type(data).__name__} and no encoded image')
        return bytes(data), self._fields(found)

    def classes(self, field: str) -> list[str] | None:
        return getattr(self.builder.info.features[field], 'names', None)

    def _fields(self, row: dict[str, Any]) -> dict[str, Any]:
        return {name: self._spell(name, value) for name, value in row.items() if name != self.image}

    def _spell(self, name: str, value: Any) -> Any:
        feature = self.builder.info.features[name]
        return feature.int2str(int(value)) if hasattr(feature, 'int2str') else _plain(value)

    def __getstate__(self) -> dict[str, Any]:
        return {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}


def _plain(value: Any) -> Any:
    """Text as str, at any depth; bytes that are no text as they are."""
    if isinstance(value, dict):
        return {name: _plain(item) for name, item in value.items()}
    if isinstance(value, bytes):
        with contextlib.suppress(text_files.NotText):
            return text_files.decode(value)
    if isinstance(value, np.ndarray) and value.dtype == object:
        return [_plain(item) for item in value]
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value.item() if isinstance(value, np.generic) else value
