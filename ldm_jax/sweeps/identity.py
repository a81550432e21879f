"""What stands behind the name of a model, so that results of another one are never taken for its own."""

from __future__ import annotations

import functools
import hashlib
import pathlib

from ldm_jax.checkpoints import loading


@functools.lru_cache(64)
def checksum(model: str) -> str:
    """A hash of the checksums of all its arrays and settings. Raises as `loading.resolve` for an unknown model."""
    folder = pathlib.Path(loading.resolve(model))
    return hashlib.sha256((folder / 'checksums.json').read_bytes()).hexdigest()[:20]
