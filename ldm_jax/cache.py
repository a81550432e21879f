"""The folder for files that the package can make again: converted checkpoints, indexes of data files."""

from __future__ import annotations

import os
import pathlib

CACHE = 'LDM_JAX_CACHE'  # an environment variable: another folder than ~/.cache/ldm_jax


def cache_folder() -> pathlib.Path:
    """The folder; it need not exist yet."""
    return pathlib.Path(os.environ.get(CACHE) or pathlib.Path.home() / '.cache' / 'ldm_jax')
