"""What a single file holds beside parameters to say how its model was trained: tables of betas, and key flags.

betas, alphas_cumprod                        the original code's tables, which it loads over its own settings
ztsnr                                        the table is to be rescaled to end at noise alone
v_pred                                       SDXL with v-prediction; for other models a YAML says it
edm_vpred.sigma_max, edm_vpred.sigma_min     SDXL with EDM's noise and its sign of v
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from ldm_jax import build
from ldm_jax.checkpoints import noise_schedules

V, ZERO_TERMINAL = 'v_pred', 'ztsnr'
EDM_MAX, EDM_MIN = 'edm_vpred.sigma_max', 'edm_vpred.sigma_min'


def tensors(settings: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """The tables and flags of a model's settings, by key; none where a silent file means the same.

    Raises ValueError for what no table or flag says.
    """
    if 'unet' not in settings['models'] or settings.get('schedule') is None:
        return {}
    schedule, ends_at_noise = noise_schedules.without_zero_terminal(settings['schedule'])
    parameterization = settings.get('parameterization')
    if schedule['name'] == 'edm':
        return _edm(schedule, parameterization)
    if parameterization not in ('eps', 'v'):
        raise _unsupported(
            'parameterization', parameterization, "'eps' and 'v' can, and 'edm_v' with EDM's noise"
        )
    found: dict[str, np.ndarray] = {}
    if ends_at_noise:
        found[ZERO_TERMINAL] = np.zeros(0, np.float32)
    if parameterization == 'v' and (ends_at_noise or 'text_encoder_2' in settings['models']):
        found[V] = np.zeros(0, np.float32)
    built = build.build('schedules', schedule)
    if built != build.build('schedules', noise_schedules.PUBLISHED):
        try:
            betas = noise_schedules.betas(schedule)
        except ValueError as error:
            raise _unsupported('schedule', schedule['name'], str(error).rstrip('.')) from None
        found['betas'] = betas.astype(np.float32)
        found['alphas_cumprod'] = np.cumprod(1 - betas).astype(np.float32)
    return found


def _edm(schedule: Mapping[str, Any], parameterization: Any) -> dict[str, np.ndarray]:
    given = {'name': parameterization} if isinstance(parameterization, str) else dict(parameterization)
    if given.pop('name') != 'edm_v' or given.get('sigma_data', 1.0) != 1.0:
        raise _unsupported('parameterization', parameterization, "with EDM's noise only 'edm_v' can")
    built = build.build('schedules', schedule)
    return {EDM_MAX: np.float32(built.sigma_max), EDM_MIN: np.float32(built.sigma_min)}


def _unsupported(field: str, value: Any, reason: str) -> ValueError:
    return ValueError(f'{field}={value!r} cannot be written as a single file: {reason}. --to orbax keeps it.')
