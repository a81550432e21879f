"""Public checkpoint files as mappings from key to array: safetensors and PyTorch's, without PyTorch.

What a file is, its content says, not its name.
"""

from __future__ import annotations

import os

from ldm_jax.checkpoints.files import safetensors
from ldm_jax.checkpoints.files.tensor_file import BadFile, MappedFile, TensorFile, TensorSpec

__all__ = ['BadFile', 'TensorFile', 'TensorSpec', 'open_file']


def open_file(path: str | os.PathLike) -> TensorFile:
    """The tensors of one file.

    Raises BadFile for what is damaged or none of these, OSError for what cannot be opened.
    """
    file = MappedFile(path)
    return safetensors.read(file)
