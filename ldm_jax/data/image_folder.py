"""Images with captions in a folder or a zip file, described by a metadata.jsonl (the `imagefolder` convention)."""

from __future__ import annotations

import dataclasses
import functools
import io
import json
import pathlib
import zipfile
from collections.abc import Mapping, Sequence
from typing import Any

from PIL import Image

from ldm_jax.data import transforms

METADATA = 'metadata.jsonl'


@dataclasses.dataclass(frozen=True)
class Source:
    """Rows of a metadata.jsonl as dict(image=uint8 [S, S, 3], text=str).

    Args:
        path: a folder, or a zip file, with metadata.jsonl at its top: a JSON object a line, whose
            'file_name' names an image beside it.
        image_size: S; the middle square of each image is resized to it, on white where it is transparent.
        text: a format string over a row's fields, such as '{caption}, {style} style'; with several of them
            each image is there once with each.
        select: field -> allowed values; a row must match them all.

    Raises:
        FileNotFoundError: no such path, or no metadata.jsonl in it.
        ValueError: a row lacks a field that `text` or `select` names, or no row is left.
    """

    path: str
    image_size: int
    text: str | tuple[str, ...] = '{caption}'
    select: Mapping[str, Sequence[Any]] = dataclasses.field(default_factory=dict)

    def __post_init__(self):
        for row in self._all_rows:
            try:
                _ = [text.format(**row) for text in self._texts], [row[field] for field in self.select]
            except KeyError as error:
                raise ValueError(
                    f'{self.path}: row {row.get("file_name", row)} has no field {error}; it has {sorted(row)}. '
                    f'text is {self.text!r}, select names {sorted(self.select)}.'
                ) from None
        if not self.rows:
            raise ValueError(
                f'{self.path}: none of {len(self._all_rows)} rows matches select={dict(self.select)}.'
            )

    @functools.cached_property
    def rows(self) -> list[dict[str, Any]]:
        """The selected rows of the metadata, in the file's order."""
        return [row for row in self._all_rows if all(row[k] in values for k, values in self.select.items())]

    def caption(self, i: int) -> str:
        """The text of example i, without reading its image."""
        row, text = divmod(i, len(self._texts))
        return self._texts[text].format(**self.rows[row])

    def __len__(self) -> int:
        return len(self.rows) * len(self._texts)

    def __getitem__(self, i: int) -> dict[str, Any]:
        name = self.rows[i // len(self._texts)]['file_name']
        with Image.open(io.BytesIO(self._read(name))) as image:
            return {'image': transforms.square(image, self.image_size), 'text': self.caption(i)}

    @property
    def _texts(self) -> tuple[str, ...]:
        return (self.text,) if isinstance(self.text, str) else self.text

    @functools.cached_property
    def _all_rows(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self._read(METADATA).decode().splitlines() if line.strip()]

    @functools.cached_property
    def _zip(self) -> zipfile.ZipFile | None:
        return zipfile.ZipFile(self.path) if pathlib.Path(self.path).is_file() else None

    def _read(self, name: str) -> bytes:
        if not pathlib.Path(self.path).exists():
            raise FileNotFoundError(
                f'No data at {self.path!r}; give --config.data.path the folder or zip file.'
            )
        try:
            return self._zip.read(name) if self._zip else (pathlib.Path(self.path) / name).read_bytes()
        except (KeyError, FileNotFoundError):
            raise FileNotFoundError(f'{self.path} holds no {name}.') from None
