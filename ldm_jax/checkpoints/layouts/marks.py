"""What a single file holds beside parameters to say how its model was trained: tables of betas, and key flags.

betas, alphas_cumprod                        the original code's tables, which it loads over its own settings
ztsnr                                        the table is to be rescaled to end at noise alone
v_pred                                       SDXL with v-prediction; for other models a YAML says it
edm_vpred.sigma_max, edm_vpred.sigma_min     SDXL with EDM's noise and its sign of v
edm_mean, edm_std                            SDXL with EDM's noise, its latents' mean and deviation (Playground 2.5)
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from ldm_jax import build
from ldm_jax.checkpoints import noise_schedules

V, ZERO_TERMINAL = 'v_pred', 'ztsnr'
EDM_MAX, EDM_MIN = 'edm_vpred.sigma_max', 'edm_vpred.sigma_min'
MEAN, STD = 'edm_mean', 'edm_std'
EDM = dict(name='edm', sigma_min=0.002, sigma_max=80.0)  # the noise that goes with them
EDM_SCALE = 0.5  # and the factor on latents

# Of Playground 2.5's latents.
LATENTS = dict(latents_mean=(-1.6574, 1.886, -1.383, 2.5155), latents_std=(8.4927, 5.9022, 6.5498, 5.2299))


def tensors(settings: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """The tables and flags of a model's settings, by key; none where a silent file means the same.

    Raises ValueError for what no table or flag says.
    """
    if 'unet' not in settings['models'] or settings.get('schedule') is None:
        return {}
    schedule, ends_at_noise = noise_schedules.without_zero_terminal(settings['schedule'])
    parameterization = settings.get('parameterization')
    if schedule['name'] == 'edm':
        return _edm(settings, schedule, parameterization)
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


def _edm(
    settings: Mapping[str, Any], schedule: Mapping[str, Any], parameterization: Any
) -> dict[str, np.ndarray]:
    given = {'name': parameterization} if isinstance(parameterization, str) else dict(parameterization)
    first_stage = settings['models'].get('first_stage', {})
    if given == {'name': 'edm'} and first_stage.get('latents_std'):
        if build.build('schedules', schedule) != build.build('schedules', EDM):
            raise _unsupported('schedule', schedule, f"beside the latents' mean a file means {EDM}")
        if settings.get('scaling_factor') != EDM_SCALE:
            raise _unsupported(
                'scaling_factor', settings.get('scaling_factor'), f'a file with a mean means {EDM_SCALE}'
            )
        return {
            key: np.asarray(first_stage[name], np.float32).reshape(1, -1, 1, 1)
            for key, name in ((MEAN, 'latents_mean'), (STD, 'latents_std'))
        }
    if given.pop('name') != 'edm_v' or given.get('sigma_data', 1.0) != 1.0:
        raise _unsupported(
            'parameterization',
            parameterization,
            "with EDM's noise only 'edm_v' can, and 'edm' beside a mean and deviation of latents",
        )
    built = build.build('schedules', schedule)
    return {EDM_MAX: np.float32(built.sigma_max), EDM_MIN: np.float32(built.sigma_min)}


def _unsupported(field: str, value: Any, reason: str) -> ValueError:
    return ValueError(f'{field}={value!r} cannot be written as a single file: {reason}. --to orbax keeps it.')
