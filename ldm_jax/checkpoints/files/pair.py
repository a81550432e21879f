"""Autoencoders in two files, as TAESD is published: taesd_encoder.pth and taesd_decoder.pth."""

from __future__ import annotations

import os
import pathlib
from collections.abc import Collection

from ldm_jax.checkpoints.files import one_file
from ldm_jax.checkpoints.files.tensor_file import MappedFile, TensorFile, merged

HALVES = {'encoder': 'decoder', 'decoder': 'encoder'}
MARKS = {'encoder': ('0.weight', '1.conv.0.weight'), 'decoder': ('1.weight', '3.conv.0.weight')}


def open_pair(encoder: str | os.PathLike, decoder: str | os.PathLike) -> TensorFile:
    """Both halves as one mapping, their keys behind 'encoder.' and 'decoder.'. Raises as `open_file`."""
    halves = {'encoder.': encoder, 'decoder.': decoder}
    return merged([(prefix, one_file.read(MappedFile(path))) for prefix, path in halves.items()])


def sibling(path: str | os.PathLike) -> pathlib.Path | None:
    """The other half of an autoencoder beside a file, by its name; None when there is none.

    'taesd_encoder.pth' -> 'taesd_decoder.pth', and so for taesdxl_, taef2_ and any other name of that form.
    """
    path = pathlib.Path(path)
    other = other_name(path.name)
    return path.with_name(other) if other is not None and path.with_name(other).is_file() else None


def other_name(name: str) -> str | None:
    """What the other half of a file of this name is called; None when the name is of no half."""
    path = pathlib.PurePath(name)
    stem, _, half = path.stem.rpartition('_')
    return f'{stem}_{HALVES[half]}{path.suffix}' if stem and half in HALVES else None


def refuse_half(name: str, keys: Collection[str]) -> None:
    """Raises ValueError for the keys of one half alone, which are numbers of layers; it names the missing file."""
    half = next((half for half, marks in MARKS.items() if all(mark in keys for mark in marks)), None)
    if half is None:
        return
    other = other_name(name)
    if other is None:
        ending = pathlib.PurePath(name).suffix
        names = ' and '.join(f'NAME_{each}{ending}' for each in HALVES)
        missing = f'Name its two files {names}, in one folder'
    else:
        missing = f'There is no {other} beside it, which the other half would be called. Put it there'
    raise ValueError(
        f'{name} is the {half} of a tiny autoencoder alone (TAESD). {missing}; the two are read together.'
    )
