"""Adapters' files, whoever wrote them: what they change, by the layers of a model."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import pathlib
import re
from collections.abc import Mapping

import flax.linen as nn
import numpy as np

from ldm_jax.adapters import kinds, made_for, peft_config
from ldm_jax.adapters import scale as scales
from ldm_jax.checkpoints import hub
from ldm_jax.checkpoints.files import reader
from ldm_jax.checkpoints.files.pickles import hostile
from ldm_jax.checkpoints.files.tensor_file import TensorFile
from ldm_jax.checkpoints.layouts import adapter_names
from ldm_jax.checkpoints.layouts.adapter_names import Layer
from ldm_jax.checkpoints.layouts.rules import listed
from ldm_jax.checkpoints.lazy_arrays import all_finite, is_float

BUNDLED = re.compile(r'bundle_emb\.(.+)\.(clip_l|clip_g)')
ENCODERS = {'clip_l': 'text_encoder', 'clip_g': 'text_encoder_2'}
BEYOND = re.compile(r'lora_te\d?_.*encoder_layers_(\d+)_.*|text_encoder(?:_2)?\..*encoder\.layers\.(\d+)\..*')
# What a folder of an adapter holds, the likeliest first.
NAMES = tuple(
    f'{name}.{kind}' for kind in ('safetensors', 'bin') for name in ('adapter_model', 'pytorch_lora_weights')
)
SUFFIXES = ('.safetensors', '.pt', '.bin', '.ckpt')


@dataclasses.dataclass(frozen=True, eq=False)
class Change:
    """What an adapter does to one layer: a kind of ldm_jax/adapters, and its tensors by their names there."""

    kind: str
    tensors: Mapping[str, np.ndarray]


@dataclasses.dataclass(frozen=True, eq=False)
class Adapter:
    """An adapter that was read.

    Attributes:
        name: of its file, without the ending.
        changes: layer -> what is done to it.
        words: learned words that came with it -> part of the model -> vectors [n, D], for the prompts.
        ignored: key of the file -> why it has no effect.
        metadata: of the file's header.
        path: of the file.
    """

    name: str
    changes: Mapping[Layer, Change]
    words: Mapping[str, Mapping[str, np.ndarray]]
    ignored: Mapping[str, str]
    metadata: Mapping[str, str]
    path: pathlib.Path

    @functools.cached_property
    def hash(self) -> str:
        """The digest by which A1111's web UI knows the file: SHA-256 of the tensors alone for safetensors."""
        return file_hash(self.path)


def truncated(adapter: Adapter, rank: int) -> Adapter:
    """The adapter with the first so many of its rank alone, its scale as it was ('dyn' of A1111's tags).

    Raises ValueError for a rank below 1.
    """
    if rank < 1:
        raise ValueError(f'The rank of an adapter is at least 1; got {rank}.')
    changes = {}
    for layer, change in adapter.changes.items():
        tensors = change.tensors
        if change.kind == 'lora' and 'lora_mid' not in tensors:
            up, down = tensors['lora_up'], tensors['lora_down']
            scale = scales.scale(tensors, down.shape[0])
            tensors = {name: array for name, array in tensors.items() if name != 'alpha'}
            tensors |= dict(lora_up=up[:, :rank], lora_down=down[:rank], scale=np.float32(scale))
        changes[layer] = Change(change.kind, tensors)
    return dataclasses.replace(adapter, changes=changes)


def file_hash(path: pathlib.Path) -> str:
    """SHA-256 of a file; of a safetensors file of what is behind its header, so that edited metadata change nothing."""
    with open(path, 'rb') as file:
        if path.suffix == '.safetensors':
            file.seek(8 + int.from_bytes(file.read(8), 'little'))
        return hashlib.file_digest(file, 'sha256').hexdigest()


def locate(name: str) -> pathlib.Path:
    """The file of an adapter that is named by a path, its folder, or its repository on the hub.

    Raises:
        FileNotFoundError: there is none.
        ValueError: a folder that holds none, or several.
        ConnectionError: the hub cannot be reached.
    """
    path = pathlib.Path(hub.locate(name)[0])
    if not path.exists():
        raise FileNotFoundError(
            f'No adapter at {name!r}: give a .safetensors, .pt or .bin file, the folder of one, the id of a repository '
            'on the Hugging Face hub (owner/name), or a name in the folder of --adapters.'
        )
    if path.is_dir():
        known = [path / each for each in NAMES if (path / each).exists()]
        found = known[:1] or sorted(path.glob('*.safetensors'))
        if len(found) != 1:
            raise ValueError(
                f'{path} holds {len(found)} adapters ({listed([f.name for f in found])}); name one.'
            )
        return found[0]
    return path


def read(path: str | pathlib.Path, models: Mapping[str, nn.Module]) -> Adapter:
    """The adapter of a file for a model's networks (part -> module). Its arrays are read when they are used.

    Raises:
        ValueError: a file that is no adapter, is damaged or made to do harm, or was made for another model; says
            which, and what to take.
        OSError: it cannot be opened.
    """
    path = pathlib.Path(path)
    with reader.open_file(path) as tensors:
        if wanted := hostile.names(tensors.refused):
            raise ValueError(
                f'{path.name} is a pickle that was made to do harm: it asks for {listed(wanted)}, which no adapter '
                'needs. Nothing of it was run. Do not open it with anything else.'
            )
        layers = adapter_names.layers(models)
        found, words, ignored, unknown = _sorted(tensors, layers)
        if unknown or not (found or words) or not made_for.fits(found, tensors.specs, models):
            raise ValueError(made_for.message(path.name, tensors.specs, models, unknown, found))
        config = peft_config.read(path, tensors.metadata)
        changes = {}
        for layer, keys in found.items():
            arrays = {name: tensors[key] for name, key in keys.items()}
            for name, array in arrays.items():
                _check(path.name, keys[name], array)
            try:
                arrays |= peft_config.tensors(config, layer, arrays)
                changes[layer] = Change(kinds.kind_of(arrays), arrays)
            except ValueError as error:
                raise ValueError(f'{path.name}: of {layer.part} {layer.name} {error}.') from None
        return Adapter(path.stem, changes, words, ignored, tensors.metadata, path)


def _sorted(
    tensors: TensorFile, layers: Mapping[tuple[str, str], Layer]
) -> tuple[dict[Layer, dict[str, str]], dict[str, dict[str, np.ndarray]], dict[str, str], list[str]]:
    """A file's keys: layer -> tensor -> key; learned words; those without an effect; and unknown ones.

    Raises ValueError where two keys name the same tensor.
    """
    table = adapter_names.spellings(layers.values())
    order = adapter_names.numbered(layers, 'GEGLU' in tensors.metadata.get('unet', 'GEGLU'))
    for part, listed_layers in order.items():
        if sum(key.startswith(f'{part}:') for key in tensors) not in (0, 2 * len(listed_layers)):
            order[part] = []  # numbered in another network
    found: dict[Layer, dict[str, str]] = {}
    words: dict[str, dict[str, np.ndarray]] = {}
    ignored: dict[str, str] = {}
    unknown: list[str] = []
    for key in tensors:
        hit = _numbered(key, order) or adapter_names.find(key, table)
        if hit is not None and (hit[1] != 'weight' or f'{key.removesuffix("weight")}on_input' in tensors):
            layer, name = hit
            if name in found.setdefault(layer, {}):
                raise ValueError(f'{key} and {found[layer][name]} name the same tensor of {layer.name}.')
            found[layer][name] = key
        elif match := BUNDLED.fullmatch(key):
            words.setdefault(match[1], {})[ENCODERS[match[2]]] = _rows(tensors[key])
        elif tensors.metadata.get(key) == '<embed>':
            words[key] = dict(text_encoder=_rows(tensors[key]))
        elif reason := _beyond(key, layers):
            ignored[key] = reason
        else:
            unknown.append(key)
    return found, words, ignored, unknown


def _numbered(key: str, order: Mapping[str, list[Layer]]) -> tuple[Layer, str] | None:
    match = adapter_names.NUMBERED.fullmatch(key)
    if match is None or int(match[2]) >= len(order[match[1]]):
        return None
    return order[match[1]][int(match[2])], f'lora_{match[3]}'


def _beyond(key: str, layers: Mapping[tuple[str, str], Layer]) -> str | None:
    """The reason to leave out a layer of a text encoder that is never computed (the last one of SD 2's)."""
    match = BEYOND.fullmatch(key)
    if match is None:
        return None
    part = 'text_encoder_2' if key.startswith(('lora_te2_', 'text_encoder_2.')) else 'text_encoder'
    number = int(match[1] or match[2])
    last = f'text_model.encoder.layers.{number - 1}.mlp.fc1'
    here = last.replace(f'.{number - 1}.', f'.{number}.')
    if (part, last) in layers and (part, here) not in layers and number == 23:
        return 'a layer after the last one that is used'
    return None


def _rows(vectors: np.ndarray) -> np.ndarray:
    return np.atleast_2d(np.asarray(vectors, np.float32))


def _check(file: str, key: str, array: np.ndarray) -> None:
    if not is_float(array.dtype) and not key.endswith(('on_input', 'alpha')):
        raise ValueError(f'{file}: {key} is {array.dtype}; adapters are of floating-point numbers.')
    if not all_finite(array):
        raise ValueError(
            f'{file}: {key} has values that are NaN or infinite. The file is damaged, or was saved after training went '
            'wrong; take another one.'
        )
