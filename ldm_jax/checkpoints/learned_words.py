"""Learned words (textual inversion) out of all files in which they are published.

    A1111 .pt                   string_to_param: {'*': [n, D]}
    diffusers .bin              {'<token>': [D] or [n, D]}, one entry a word
    safetensors                 the same; 'emb_params' [n, D]; SDXL: 'clip_l' [n, 768] and 'clip_g' [n, 1280]
    PNG, WebP                   text 'sd-ti-embedding', or hidden in the low bits beside what it shows

A word goes by the name of its file, and one of a file that names it by that too.

Ref: AUTOMATIC1111/stable-diffusion-webui 1.10, modules/textual_inversion/textual_inversion.py and image_embedding.py.
"""

from __future__ import annotations

import base64
import binascii
import dataclasses
import hashlib
import json
import os
import pathlib
import warnings
import zlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from PIL import Image

from ldm_jax.checkpoints.files.reader import BadFile, TensorFile, open_file
from ldm_jax.text.prompts.words import Word

TENSORS = ('.pt', '.bin', '.safetensors')
IMAGES = ('.png', '.webp')
TEXT = 'sd-ti-embedding'
SDXL = {'clip_l', 'clip_g'}
UNNAMED = {'*', 'emb_params', *SDXL}  # keys that are no name of a word
LARGEST = 1 << 26  # bytes of what an image hides, unpacked; its nibbles are fewer
SHOWN = 10  # names that a warning lists


@dataclasses.dataclass(frozen=True, eq=False)
class Found:
    """A word in a file: its vectors [n, D] by their width, and the file's SHA-256."""

    vectors: Mapping[int, np.ndarray]
    hash: str


def load(paths: Sequence[str | os.PathLike[str]], widths: Mapping[str, int]) -> dict[str, Word]:
    """The words of files and folders that fit the text encoders of a model, by name.

    Warns of files in folders that cannot be read, and of words there for other models.

    Args:
        widths: part of the model -> the width of its vectors.

    Raises:
        FileNotFoundError: a path is not there.
        BadFile: a file that is named cannot be read, or holds no learned word.
        ValueError: a file that is named is for another model.
    """
    found: dict[str, Word] = {}
    others: list[str] = []
    for path in map(pathlib.Path, paths):
        if not path.exists():
            raise FileNotFoundError(
                f'No learned words at {str(path)!r}, which is neither a file nor a folder.'
            )
        for file in _files(path):
            try:
                words = read(file)
            except (BadFile, OSError) as error:
                if not path.is_dir():
                    raise
                warnings.warn(f'Left out of the learned words: {error}', stacklevel=2)
                continue
            for name, word in words.items():
                if set(word.vectors) >= set(widths.values()):
                    found[name] = Word(
                        {part: word.vectors[width] for part, width in widths.items()}, word.hash
                    )
                elif path.is_dir():
                    others.append(name)
                else:
                    raise ValueError(
                        f'{file} has vectors {sorted(word.vectors)} wide, and the text encoders of this model have '
                        f'{list(widths.values())}: it is for another model.'
                    )
    if others:
        more = ', ...' if len(others) > SHOWN else ''
        warnings.warn(
            f'Learned words for other models are left out: {", ".join(others[:SHOWN])}{more}.', stacklevel=2
        )
    return found


def read(path: str | os.PathLike[str]) -> dict[str, Found]:
    """The words of a file by name. Raises BadFile where it is damaged or holds none, OSError as opening it."""
    path = pathlib.Path(path)
    name = path.stem
    if path.suffix.lower() in IMAGES:
        data = _of_image(path)
        tensors, name = _tensors_of(path, data), str(data.get('name') or name)
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
    else:
        with open_file(path) as file:
            tensors = {key: _float32(file, key) for key in file}
            digest = next(iter(file.sha256().values()))
    if tensors.keys() >= SDXL:
        groups = {name: [tensors[key] for key in sorted(SDXL, reverse=True)]}
    else:
        groups = {key: [array] for key, array in tensors.items()}
        if len(groups) == 1:
            groups |= {name: next(iter(groups.values()))}
    return {
        word: Found(_by_width(path, arrays), digest) for word, arrays in groups.items() if word not in UNNAMED
    }


def _files(path: pathlib.Path) -> Iterator[pathlib.Path]:
    """A file, or those in a folder and below that may hold words, previews of other files left out."""
    if not path.is_dir():
        yield path
        return
    for file in sorted(path.rglob('*')):
        preview = file.stem.lower().endswith('.preview')
        if (
            file.suffix.lower() in (*TENSORS, *IMAGES)
            and file.is_file()
            and file.stat().st_size
            and not preview
        ):
            yield file


def _float32(file: TensorFile, key: str) -> np.ndarray:
    return np.array(file[key], np.float32)


def _by_width(path: pathlib.Path, arrays: Sequence[np.ndarray]) -> dict[int, np.ndarray]:
    arrays = [array[None] if array.ndim == 1 else array for array in arrays]
    for array in arrays:
        if array.ndim != 2 or not array.size:
            raise BadFile(f'{path}: a learned word is vectors [n, D]; got a tensor {list(array.shape)}.')
        if not np.isfinite(array).all():
            raise BadFile(f'{path}: its vectors are not finite. Train the word anew.')
    if len({len(array) for array in arrays}) > 1:
        raise BadFile(
            f'{path}: its text encoders have {[len(array) for array in arrays]} vectors; expected as many.'
        )
    return {array.shape[1]: array for array in arrays}


def _tensors_of(path: pathlib.Path, data: Any) -> dict[str, np.ndarray]:
    """The tensors in JSON that an image holds, {'string_to_param': {'*': {'TORCHTENSOR': [[...]]}}} or without it."""
    state = data.get('string_to_param', data)
    found = {}
    for key, value in state.items() if isinstance(state, dict) else ():
        if isinstance(value, dict) and 'TORCHTENSOR' in value:
            try:
                found[key] = np.array(value['TORCHTENSOR'], np.float32)
            except (TypeError, ValueError):
                raise BadFile(f'{path}: its tensor {key!r:.40} is no array of numbers.') from None
    if not found:
        raise BadFile(f'{path}: what it holds is no learned word.')
    return found


def _of_image(path: pathlib.Path) -> dict[str, Any]:
    """What an image holds in a text or in its low bits. Raises BadFile where it holds nothing."""
    try:
        with Image.open(path) as image:
            text = image.info.get(TEXT)
            packed = base64.b64decode(text) if isinstance(text, str) else _unpacked(_hidden(path, image))
        data = json.loads(packed)
    except (
        binascii.Error,
        ValueError,
        RecursionError,
        OSError,
        SyntaxError,
        Image.DecompressionBombError,
    ) as error:
        if isinstance(error, BadFile | FileNotFoundError):
            raise
        raise BadFile(f'{path}: it holds no learned word that can be read ({error}).') from None
    if not isinstance(data, dict):
        raise BadFile(f'{path}: what it holds is no learned word.')
    return data


def _unpacked(data: bytes) -> bytes:
    machine = zlib.decompressobj()
    try:
        found = machine.decompress(data, LARGEST)
    except zlib.error as error:
        raise ValueError(str(error)) from None
    if machine.unconsumed_tail:
        raise ValueError(f'it unpacks to more than {LARGEST} bytes')
    return found


def _hidden(path: pathlib.Path, image: Image.Image) -> bytes:
    """The bytes beside what an image shows: low nibbles to the left, high ones to the right, black columns between."""
    pixels = np.asarray(image.convert('RGB'))
    bright = pixels.min(2) > 0
    rows, columns = np.flatnonzero(bright.any(1)), np.flatnonzero(bright.any(0))
    if not rows.size:
        raise BadFile(f'{path}: it holds no learned word.')
    nibbles = pixels[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1] & 0x0F
    black = np.flatnonzero(nibbles.sum((0, 2)) == 0)
    if len(black) < 2:
        raise BadFile(f'{path}: it holds no learned word.')
    low, high = nibbles[:, : black[0]], nibbles[:, black[-1] + 1 :]
    if low.shape != high.shape or low.size > LARGEST // 16:
        raise BadFile(f'{path}: what is hidden in it is damaged, {low.shape} beside {high.shape}.')
    mask = _mask(low.size).reshape(low.shape)
    return ((high ^ mask) << 4 | (low ^ mask)).tobytes()


def _mask(size: int) -> np.ndarray:
    """The nibbles of a linear congruential generator, from seed 0."""
    found, seed = np.empty(size, np.uint8), 0
    for i in range(size):
        seed = (1664525 * seed + 1013904223) % 2**32
        found[i] = seed % 255 & 0x0F
    return found
