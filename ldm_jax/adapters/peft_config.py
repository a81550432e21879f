"""The settings of PEFT, which say what an adapter's tensors leave open: its scales, and how rotations are made.

They lie in adapter_config.json beside the file, or in its header as diffusers writes it ('lora_adapter_metadata', with
'unet.' or 'text_encoder.' before each name).
"""

from __future__ import annotations

import json
import pathlib
import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from ldm_jax.checkpoints.layouts.adapter_names import Layer

FILE, HEADER = 'adapter_config.json', 'lora_adapter_metadata'


def read(path: pathlib.Path, metadata: Mapping[str, str]) -> dict[str, Mapping[str, Any]]:
    """The settings by part of the model, or under '' for all parts. Raises ValueError for a file that is no JSON."""
    beside, text = path.with_name(FILE), metadata.get(HEADER)
    if text is None and not (beside.is_file() and path.name.startswith('adapter_model')):
        return {}
    try:
        found = json.loads(beside.read_text() if text is None else text)
    except ValueError:
        raise ValueError(f'{beside if text is None else f"{HEADER} of {path.name}"} is no JSON.') from None
    if not isinstance(found, dict):
        raise ValueError(f'{beside if text is None else f"{HEADER} of {path.name}"} is no JSON object.')
    if text is None:
        return {'': found}
    parts: dict[str, dict[str, Any]] = {}
    for name, value in found.items():
        part, _, field = name.partition('.')
        parts.setdefault(part, {})[field] = value
    return parts


def tensors(
    config: Mapping[str, Mapping[str, Any]], layer: Layer, given: Mapping[str, np.ndarray]
) -> dict[str, np.ndarray]:
    """What the settings add to the tensors of a layer: 'scale', or the terms of a rotation's series.

    A file that holds an alpha itself goes before them. Raises ValueError for settings without a meaning here.
    """
    own = config.get(layer.part, config.get(''))
    if own is None:
        return {}
    if 'oft_R' in given:
        if own.get('coft'):
            raise ValueError('is a constrained OFT of PEFT (coft), which is not known')
        terms = int(own.get('num_cayley_neumann_terms', 5))
        return {'neumann': np.ones(terms, np.float32)} if own.get('use_cayley_neumann', True) else {}
    if 'lora_down' not in given and not any(name.startswith(('hada', 'lokr')) for name in given):
        return {}
    if 'alpha' in given:
        return {}
    alpha = _of(own.get('alpha_pattern'), layer.name, own.get('lora_alpha', own.get('alpha')))
    rank = _of(own.get('rank_pattern'), layer.name, own.get('r'))
    if alpha is None or not rank:
        return {}
    return {'scale': np.float32(alpha / (rank**0.5 if own.get('use_rslora') else rank))}


def _of(patterns: Mapping[str, float] | None, name: str, default: float | None) -> float | None:
    """The value for a layer's name: of the first pattern that fits it or its end, or the default."""
    for pattern, value in (patterns or {}).items():
        if re.fullmatch(rf'(.*\.)?({pattern})', name):
            return value
    return default
