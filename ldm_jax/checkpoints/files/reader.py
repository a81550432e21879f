"""Public checkpoint files as mappings from key to array: safetensors and PyTorch's, without PyTorch.

    open_file      a file, or the index of one model's shards
    open_folder    a diffusers pipeline, or one model of such
    open_pair      an encoder and a decoder in two files; `sibling` finds the other by its name

Trusted is that the operating system maps a file that is not changed meanwhile. Every number in a file is
checked before it is used, nothing in it is executed or imported, and what it makes us allocate is bounded by its
size.
"""

from __future__ import annotations

import os

from ldm_jax.checkpoints.files import one_file, shards
from ldm_jax.checkpoints.files.folder import open_folder
from ldm_jax.checkpoints.files.pair import open_pair, refuse_half, sibling
from ldm_jax.checkpoints.files.tensor_file import BadFile, MappedFile, TensorFile, TensorSpec

__all__ = [
    'BadFile',
    'TensorFile',
    'TensorSpec',
    'open_file',
    'open_folder',
    'open_pair',
    'refuse_half',
    'sibling',
]


def open_file(path: str | os.PathLike) -> TensorFile:
    """The tensors of a safetensors file, a PyTorch checkpoint, or the shards of an *.index.json.

    Raises BadFile for a file that is damaged or none of these, OSError for one that cannot be opened.
    """
    file = MappedFile(path)
    start = file.read(0, min(file.size, 8))
    # A safetensors header whose length begins with a brace's code has zeros in the upper bytes.
    if start.startswith(b'{') and start[4:] != bytes(4):
        return shards.read(file)
    return one_file.read(file)
