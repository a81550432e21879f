"""What a file of an adapter is, without the model that it is for: one line of words and numbers."""

from __future__ import annotations

import pathlib
from typing import Any

from ldm_jax.adapters import files, made_for
from ldm_jax.checkpoints.files import reader


def describe(path: pathlib.Path) -> dict[str, Any]:
    """Name, family, number of tensors, ranks, hash and size of a file; raises ValueError for one that is none."""
    with reader.open_file(path) as tensors:
        specs = tensors.specs
        ranks = sorted(
            {
                min(spec.shape[:2]) if 'down' not in key and 'lora_A' not in key else spec.shape[0]
                for key, spec in specs.items()
                if any(
                    word in key
                    for word in ('lora_down', 'lora_A', 'lora.down', ':down', '_lora.down', 'w1_b')
                )
                if len(spec.shape) > 1
            }
        )
        said = tensors.metadata.get('ss_base_model_version')
        return {
            'name': path.stem,
            'family': made_for.family(specs, {}) or said or 'unknown',
            'tensors': len(specs),
            'ranks': ranks,
            'hash': files.file_hash(path)[:12],
            'megabytes': round(path.stat().st_size / 1e6, 1),
        }
