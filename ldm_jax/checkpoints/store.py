"""Models on disk: one directory with the parameters of each part and the settings that build them.

    model/settings.json     what built the parts, as JSON
    model/unet/ ...         one Orbax tree a part, compressed, loadable alone

A directory appears under its name only when it is whole.
"""

from __future__ import annotations

import importlib.resources
import json
import pathlib
import shutil
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ldm_jax import trees
from ldm_jax.build import unknown
from ldm_jax.types import PyTree

SETTINGS = 'settings.json'


def save_model(
    path: str, settings: Mapping[str, Any], params: Mapping[str, PyTree], dtype: str = 'float32'
) -> None:
    """Writes a model directory.

    Args:
        path: of the directory to make. An older model there is replaced once the new one is whole.
        settings: plain JSON data.
        params: part -> parameter tree.
        dtype: of the floating-point leaves on disk; float16 halves the size and keeps 11 bits.

    Raises FileExistsError when something other than a model is at the path.
    """
    from orbax.checkpoint import v1 as ocp

    text = json.dumps(dict(settings), indent=2) + '\n'  # first, so that what JSON cannot hold fails at once
    target = pathlib.Path(path).absolute()
    partial, old = target.with_name(target.name + '.partial'), target.with_name(target.name + '.old')
    if target.exists() and not (target / SETTINGS).is_file():
        raise FileExistsError(
            f'{path!r} exists and is not a model (it has no {SETTINGS}); choose another path.'
        )
    if old.exists() and not target.exists():  # a save was killed between the two renames below
        old.rename(target)
    for leftover in (partial, old):
        shutil.rmtree(leftover, ignore_errors=True)
    partial.mkdir(parents=True)
    for part, tree in params.items():
        ocp.save(partial / part, jax.tree.map(np.asarray, trees.cast(tree, jnp.dtype(dtype))))
        # Orbax's own mark of a whole tree names the folder it was written to; ours is the directory's name.
        (partial / part / 'commit_success.txt').unlink(missing_ok=True)
    (partial / SETTINGS).write_text(text)
    if target.exists():
        target.rename(old)
    partial.rename(target)
    shutil.rmtree(old, ignore_errors=True)


def find(model: str) -> str:
    """The directory of a model that the package ships ('emoji32'); any other value is a path already."""
    shipped = importlib.resources.files('ldm_jax') / 'weights' / model
    return str(shipped) if shipped.is_dir() else model


def load_model(path: str, parts: Sequence[str] | None = None) -> tuple[dict[str, Any], dict[str, PyTree]]:
    """Reads (settings, part -> float32 parameters) of a model directory.

    Args:
        path: of the directory.
        parts: which ones to read; all by default.

    Raises:
        FileNotFoundError: there is no model at the path.
        ValueError: it has no such part.
    """
    from orbax.checkpoint import v1 as ocp

    directory = pathlib.Path(path).absolute()
    if not (directory / SETTINGS).is_file():
        raise FileNotFoundError(
            f'No model at {path!r}: it has no {SETTINGS}. Give the directory that training wrote, such as runs/x/model.'
        )
    settings = json.loads((directory / SETTINGS).read_text())
    have = sorted(entry.name for entry in directory.iterdir() if entry.is_dir())
    params = {}
    for part in have if parts is None else parts:
        if part not in have:
            raise unknown(f'part of {path}', part, have)
        shapes = ocp.metadata(directory / part).metadata
        # Host arrays of the stored shape, so that a model loads whatever devices wrote it.
        target = jax.tree.map(lambda leaf: np.empty(leaf.shape, np.float32), shapes)
        params[part] = ocp.load(directory / part, target)
    return settings, params
