"""Images into a folder: one file each with what it was made from, and a sheet of several."""

from __future__ import annotations

import os
import pathlib
import re
import tempfile
from collections.abc import Sequence

import numpy as np

from ldm_jax.images import enlarged, save_png, to_uint8
from ldm_jax.requests import infotext
from ldm_jax.requests.image_files import PARAMETERS
from ldm_jax.sheet import labelled_sheet

NUMBERED = re.compile(r'(\d{5,})-.*\.png')
WORDS = 60  # characters of a prompt in the name of a file


def prepare(folder: str | os.PathLike) -> pathlib.Path:
    """The folder, made if need be. Raises ValueError where files cannot be written."""
    path = pathlib.Path(folder)
    try:
        path.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path):
            return path
    except OSError as error:
        raise ValueError(f'Images cannot be written to {os.fspath(folder)!r}: {error.strerror}.') from None


def save(
    folder: str | os.PathLike, images: np.ndarray, texts: Sequence[str], names: Sequence[str], scale: int = 1
) -> list[pathlib.Path]:
    """Writes images [B, H, W, 3] in [-1, 1] as PNGs, numbered on from those that are there; their paths.

    Args:
        texts: of each, as `infotext` writes them.
        names: of each, behind the number: a seed and a prompt, say.
        scale: each pixel becomes scale x scale of them.
    """
    folder = prepare(folder)
    first = _next(folder)
    paths = []
    for i, (image, text, name) in enumerate(zip(images, texts, names, strict=True)):
        path = folder / f'{first + i:05}-{file_name(name)}.png'
        save_png(path, image, {PARAMETERS: text}, scale)
        paths.append(path)
    return paths


def save_sheet(
    folder: str | os.PathLike,
    rows: np.ndarray,
    prompts: Sequence[str],
    captions: Sequence[str],
    text: str,
    scale: int = 1,
) -> pathlib.Path:
    """Writes rows of images [R, C, H, W, 3] in [-1, 1] with their labels as one PNG; its path.

    Args:
        prompts: of each row; captions: of each column, its seed.
        text: of the first image, as `infotext` writes it.
        scale: each pixel becomes scale x scale of them.
    """
    folder = prepare(folder)
    path = folder / f'{_next(folder):05}-sheet.png'
    sheet = labelled_sheet(enlarged(to_uint8(rows), scale), prompts, captions)
    settings = infotext.read(text) | {infotext.SHEET: f'{rows.shape[0]}x{rows.shape[1]}'}
    save_png(path, sheet, {PARAMETERS: infotext.write(settings)})
    return path


def file_name(text: str) -> str:
    """The letters and digits of a text, for the name of a file."""
    return re.sub(r'[\W_]+', '_', text.lower())[:WORDS].strip('_') or 'image'


def _next(folder: pathlib.Path) -> int:
    numbers = [int(match[1]) for path in folder.iterdir() if (match := NUMBERED.fullmatch(path.name))]
    return max(numbers, default=0) + 1
