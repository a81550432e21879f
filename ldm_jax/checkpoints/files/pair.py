"""Autoencoders in two files, as TAESD is published: taesd_encoder.pth and taesd_decoder.pth."""

from __future__ import annotations

import os
import pathlib

from ldm_jax.checkpoints.files import one_file
from ldm_jax.checkpoints.files.tensor_file import MappedFile, TensorFile, merged

HALVES = {'encoder': 'decoder', 'decoder': 'encoder'}


def open_pair(encoder: str | os.PathLike, decoder: str | os.PathLike) -> TensorFile:
    """Both halves as one mapping, their keys behind 'encoder.' and 'decoder.'. Raises as `open_file`."""
    halves = {'encoder.': encoder, 'decoder.': decoder}
    return merged([(prefix, one_file.read(MappedFile(path))) for prefix, path in halves.items()])


def sibling(path: str | os.PathLike) -> pathlib.Path | None:
    """The other half of an autoencoder beside a file, by its name; None when there is none.

    'taesd_encoder.pth' -> 'taesd_decoder.pth', and so for taesdxl_, taef2_ and any other name of that form.
    """
    path = pathlib.Path(path)
    stem, _, half = path.stem.rpartition('_')
    if not stem or half not in HALVES:
        return None
    other = path.with_name(f'{stem}_{HALVES[half]}{path.suffix}')
    return other if other.is_file() else None
