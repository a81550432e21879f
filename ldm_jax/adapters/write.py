"""Adapters as files that other programs read: kohya's form (A1111, ComfyUI), and that of diffusers and PEFT."""

from __future__ import annotations

import hashlib
import json
import os
import struct
from collections.abc import Mapping
from typing import Any

import numpy as np

import ldm_jax
from ldm_jax import atomic
from ldm_jax.adapters.files import Adapter, Change
from ldm_jax.checkpoints.layouts.adapter_names import KOHYA, TENSORS, TEXT, Layer

FORMS = ('kohya', 'diffusers')
# What kohya's scripts call the models, and the Stability standard for metadata: width of the context -> names.
BASES = {
    (768, 'eps'): ('sd_v1', 'stable-diffusion-v1', 512),
    (1024, 'eps'): ('sd_v2', 'stable-diffusion-v2-512', 512),
    (1024, 'v'): ('sd_v2_v', 'stable-diffusion-v2-768-v', 768),
    (2048, 'eps'): ('sdxl_base_v1-0', 'stable-diffusion-xl-v1-base', 1024),
}
# Tensor -> its ending in kohya's files; the first of TENSORS' spellings that means it.
ENDINGS = {name: ending for ending, name in reversed(TENSORS.items())}
DIFFUSERS = {'lora_down': 'lora_A.weight', 'lora_up': 'lora_B.weight', 'magnitude': 'lora_magnitude_vector'}


def write(
    path: str | os.PathLike,
    adapter: Adapter,
    form: str = 'kohya',
    *,
    context: int | None = None,
    parameterization: str = 'eps',
    dtype: str | None = None,
) -> None:
    """Writes an adapter; the file appears whole.

    Args:
        form: 'kohya', or 'diffusers', which holds LoRA and DoRA alone.
        context, parameterization: of the model that it is for, which its metadata name.
        dtype: of the tensors; as they are by default. alpha and the like stay float32.

    Raises ValueError for kinds that the form cannot hold.
    """
    if form == 'kohya':
        tensors = kohya(adapter)
        metadata = kohya_metadata(adapter, tensors, context, parameterization)
    else:
        tensors, metadata = diffusers(adapter)
    if dtype is not None:
        tensors = {key: a.astype(_dtype(dtype)) if a.ndim else a for key, a in tensors.items()}
    if form == 'kohya':
        metadata |= hashes(tensors, metadata)
    atomic.write(path, serialized(tensors, metadata))


def kohya(adapter: Adapter) -> dict[str, np.ndarray]:
    """Key -> tensor in kohya's names, those of diffusers below 'lora_unet_' and of transformers below 'lora_te_'."""
    two = any(layer.part == 'text_encoder_2' for layer in adapter.changes) or _is_xl(adapter)
    found = {}
    for layer, change in adapter.changes.items():
        prefix = KOHYA[layer.part][1 if layer.part == 'text_encoder' and two else 0]
        stem = prefix + layer.name.replace('.', '_')
        for name, array in _known(change, layer).items():
            found[f'{stem}.{ENDINGS[name]}'] = array
    return found


def diffusers(adapter: Adapter) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """(key -> tensor, metadata) as diffusers saves LoRAs; alpha and rank are in the header, layer by layer.

    Raises ValueError for other kinds.
    """
    found, config = {}, {}
    for layer, change in adapter.changes.items():
        tensors = dict(change.tensors)
        if change.kind != 'lora' or 'lora_mid' in tensors:
            raise ValueError(
                f'diffusers reads LoRAs; {layer.name} of {adapter.name} is {change.kind}: write kohya.'
            )
        if 'dora_scale' in tensors:
            magnitude = tensors.pop('dora_scale')
            if magnitude.shape[0] == 1:
                raise ValueError(
                    f'diffusers has DoRAs of outputs alone; {layer.name} is one of inputs: write kohya.'
                )
            windowed = tensors['lora_down'].ndim > 2
            tensors['magnitude'] = magnitude.reshape((1, -1, 1, 1) if windowed else -1)
        rank = tensors['lora_down'].shape[0]
        own_alpha, own_scale = tensors.pop('alpha', rank), tensors.pop('scale', None)
        alpha = _number(own_alpha) if own_scale is None else _number(own_scale) * rank
        name = layer.name.removeprefix(TEXT) if layer.part == 'text_encoder' else layer.name
        for tensor, array in tensors.items():
            found[f'{layer.part}.{name}.{DIFFUSERS[tensor]}'] = array
        fresh = dict(r=rank, lora_alpha=alpha, target_modules=[], rank_pattern={}, alpha_pattern={})
        own = config.setdefault(layer.part, fresh)
        own['target_modules'].append(name)
        if 'magnitude' in tensors:
            own['use_dora'] = True
        for field, value, pattern in (('r', rank, 'rank_pattern'), ('lora_alpha', alpha, 'alpha_pattern')):
            if own[field] != value:
                own[pattern][name] = value
    header = {f'{part}.{field}': value for part, own in config.items() for field, value in own.items()}
    return found, {'format': 'pt', 'lora_adapter_metadata': json.dumps(header, indent=2, sort_keys=True)}


def kohya_metadata(
    adapter: Adapter, tensors: Mapping[str, np.ndarray], context: int | None, parameterization: str
) -> dict[str, str]:
    """What A1111's and ComfyUI's users see of a file: the ss_ fields of kohya's scripts, and the modelspec ones.

    Metadata that the adapter brought stay, but for those that are measured.
    """
    ranks = [a.shape[0] for key, a in tensors.items() if key.endswith('lora_down.weight')]
    alphas = [_number(a) for key, a in tensors.items() if key.endswith('.alpha')]
    dora = any('dora_scale' in key for key in tensors)
    plain = all(change.kind == 'lora' for change in adapter.changes.values())
    arguments: dict[str, Any] = {} if plain else {'algo': next(iter(adapter.changes.values())).kind}
    arguments |= {'dora_wd': 'True'} if dora else {}
    found = {
        'ss_network_module': 'networks.lora' if plain and not dora else 'lycoris.kohya',
        'ss_network_dim': str(max(ranks, default=0)) if ranks else 'None',
        'ss_network_alpha': str(max(alphas, default=0.0)) if alphas else 'None',
        'ss_network_args': json.dumps(arguments),
        'ss_output_name': adapter.name,
        'modelspec.sai_model_spec': '1.0.1',
        'modelspec.title': adapter.name,
        'modelspec.implementation': f'https://github.com/ldm-jax/ldm_jax {ldm_jax.__version__}',
    }
    base = BASES.get((context or 0, parameterization))
    if base is not None:
        version, architecture, side = base
        found |= {
            'ss_base_model_version': version,
            'ss_v2': str(version.startswith('sd_v2')),
            'modelspec.architecture': f'{architecture}/lora',
            'modelspec.resolution': f'{side}x{side}',
        }
    kept = {key: value for key, value in adapter.metadata.items() if key.startswith(('ss_', 'modelspec.'))}
    measured = {'ss_network_dim', 'ss_network_alpha', 'ss_output_name', 'modelspec.title'}
    measured |= set() if base is None else {'ss_base_model_version', 'ss_v2', 'modelspec.architecture'}
    return found | {key: value for key, value in kept.items() if key not in measured}


def hashes(tensors: Mapping[str, np.ndarray], metadata: Mapping[str, str]) -> dict[str, str]:
    """The two digests by which kohya's scripts and the web UI know a file's tensors, whatever its header."""
    known = {key: value for key, value in metadata.items() if key.startswith('ss_')}
    whole = serialized(tensors, known)
    body = whole[8 + struct.unpack('<Q', whole[:8])[0] :]
    legacy = hashlib.sha256(whole[0x100000:0x110000]).hexdigest()[:8]
    return {'sshs_model_hash': hashlib.sha256(body).hexdigest(), 'sshs_legacy_hash': legacy}


def serialized(tensors: Mapping[str, np.ndarray], metadata: Mapping[str, str]) -> bytes:
    """A safetensors file, its tensors in the order in which the reference library writes them."""
    order = sorted(tensors, key=lambda key: (-tensors[key].dtype.itemsize, key))
    header: dict[str, Any] = {'__metadata__': dict(metadata)} if metadata else {}
    at, parts = 0, []
    for key in order:
        array = np.asarray(tensors[key])
        data = array.tobytes()  # in C order
        header[key] = dict(
            dtype=_name(array.dtype), shape=list(array.shape), data_offsets=[at, at + len(data)]
        )
        at += len(data)
        parts.append(data)
    text = json.dumps(header, separators=(',', ':'), ensure_ascii=False).encode()
    text += b' ' * (-len(text) % 8)
    return struct.pack('<Q', len(text)) + text + b''.join(parts)


def _number(value: Any) -> float:
    """A number of a file, which may have axes of size 1."""
    return float(np.reshape(value, ()))


def _known(change: Change, layer: Layer) -> dict[str, np.ndarray]:
    """The tensors of a change that kohya's form has a name for; PEFT's own are brought into LyCORIS'."""
    tensors = dict(change.tensors)
    if 'magnitude' in tensors:
        ones = (1,) * (tensors['lora_down'].ndim - 1)
        tensors['dora_scale'] = tensors.pop('magnitude').reshape(-1, *ones)
    if 'scale' in tensors and 'lora_down' in tensors:
        tensors['alpha'] = np.float32(tensors.pop('scale') * tensors['lora_down'].shape[0])
    if unwritten := sorted(tensors.keys() - ENDINGS.keys() | tensors.keys() & {'ia3_l', 'oft_R'}):
        raise ValueError(
            f'{layer.name} has {unwritten}, which PEFT alone reads: merge it into a model instead.'
        )
    return tensors


def _is_xl(adapter: Adapter) -> bool:
    return any(
        change.tensors['lora_down'].shape[1] == 2048
        for layer, change in adapter.changes.items()
        if layer.name.endswith('attn2.to_k') and 'lora_down' in change.tensors
    )


def _dtype(name: str) -> np.dtype:
    import ml_dtypes

    return np.dtype(ml_dtypes.bfloat16 if name == 'bfloat16' else name)


def _name(dtype: np.dtype) -> str:
    names = {
        'float32': 'F32',
        'float16': 'F16',
        'bfloat16': 'BF16',
        'float64': 'F64',
        'int64': 'I64',
        'int32': 'I32',
    }
    return names[dtype.name]
