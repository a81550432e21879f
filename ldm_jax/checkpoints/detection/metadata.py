"""What a single file says of its training, beyond shapes: the latents' scale, eps or v."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from ldm_jax.checkpoints.detection import sidecar as yaml
from ldm_jax.checkpoints.detection.file_schedules import Read
from ldm_jax.checkpoints.layouts import marks

GLOBAL_STEP_EPS = 875_000  # of Stable Diffusion 2.0 base; diffusers knows it by the same number


def prediction(
    specs: Mapping[str, Any], metadata: Mapping[str, str], sidecar: yaml.Sidecar | None
) -> str | None:
    """'eps' or 'v' as the file, or the YAML beside it, says, or 'edm' by its keys; None where neither does.

    Raises ValueError for words that are neither.
    """
    if marks.MEAN in specs:
        return 'edm'
    for said in (yaml.prediction(sidecar), _of_metadata(metadata)):
        if said is not None:
            return said
    return 'v' if marks.V in specs or marks.EDM_MAX in specs else None


def prediction_by_step(scalars: Mapping[str, Any]) -> str | None:
    """'eps' for a checkpoint of Stable Diffusion 2 that stopped where 2.0 base did; None for any other."""
    return 'eps' if scalars.get('global_step') == GLOBAL_STEP_EPS else None


def scaling_factor(
    specs: Mapping[str, Any], read: Read | None, sidecar: yaml.Sidecar | None, default: float | None
) -> float | None:
    """The factor on latents: of the buffer 'scale_factor', else the YAML's, else the default.

    Raises ValueError for a buffer that is no number above 0.
    """
    if marks.MEAN in specs:
        return marks.EDM_SCALE
    if 'scale_factor' in specs and read:
        held = np.asarray(read('scale_factor'), np.float64)
        if held.size != 1 or not 0 < held.item() < math.inf:
            raise ValueError(f"The tensor 'scale_factor' is {str(held)[:60]}; it must be a number above 0.")
        return held.item()
    # Where the factor is the data's (scale_by_std), the YAML says 1 or nothing: that is where training began.
    params = yaml.params(sidecar)
    return default if params.get('scale_by_std') else params.get('scale_factor', default)


def latents(specs: Mapping[str, Any], read: Read | None) -> dict[str, Any]:
    """The fields of a first stage whose latents' mean and deviation are in the file; none for others.

    Raises ValueError for numbers that are none.
    """
    if marks.MEAN not in specs:
        return {}
    found = {}
    for key, (name, published) in zip((marks.MEAN, marks.STD), marks.LATENTS.items(), strict=True):
        values = list(published)
        if read is not None and key in specs and math.prod(specs[key].shape):
            values = np.asarray(read(key), np.float64).reshape(-1).round(6).tolist()
        if not all(map(math.isfinite, values)):
            raise ValueError(
                f'The tensor {key!r} is {str(values)[:60]}; it must be a number for each channel.'
            )
        found[name] = values
    return found


def _of_metadata(metadata: Mapping[str, str]) -> str | None:
    if said := metadata.get('modelspec.prediction_type'):
        return yaml.word(said, 'modelspec.prediction_type')
    architecture = metadata.get('modelspec.architecture', '')
    for mark, said in (('v2-768-v', 'v'), ('v2-512', 'eps')):
        if mark in architecture:
            return said
    if 'ss_v_parameterization' in metadata and metadata['ss_v_parameterization'] != 'None':
        return 'v' if metadata['ss_v_parameterization'] == 'True' else 'eps'
    return 'eps' if metadata.get('ss_v2') == 'True' and 'ss_v_parameterization' in metadata else None
