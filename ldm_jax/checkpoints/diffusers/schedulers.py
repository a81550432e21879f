"""scheduler_config.json: the noise schedule and the prediction type. How to sample is left out.

The words of the schedules stand in checkpoints/noise_schedules.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from ldm_jax import build
from ldm_jax.checkpoints import noise_schedules
from ldm_jax.checkpoints.diffusers import pipelines
from ldm_jax.checkpoints.diffusers.fields import Fields, Spec, header, unsupported
from ldm_jax.diffusion import scheduler_config

PREDICTIONS = {'epsilon': 'eps', 'v_prediction': 'v', 'sample': 'x0'}
EDM_PREDICTIONS = {'epsilon': 'edm', 'v_prediction': 'edm_v'}
SIGMA_DATA = {'edm': 0.5, 'edm_v': 1.0}  # where a parameterization does not say
OURS = '_ldm_jax_schedule'  # the spec of a schedule that has no word there, which diffusers reads past
# beta_start, beta_end and beta_schedule where a file is silent.
COMMON = (0.0001, 0.02, 'linear')
DEFAULTS = {
    'HeunDiscreteScheduler': (0.00085, 0.012, 'linear'),
    'KDPM2DiscreteScheduler': (0.00085, 0.012, 'linear'),
    'KDPM2AncestralDiscreteScheduler': (0.00085, 0.012, 'linear'),
    'LCMScheduler': (0.00085, 0.012, 'scaled_linear'),
    'DPMSolverSDEScheduler': (0.00085, 0.012, 'linear'),
    'TCDScheduler': (0.00085, 0.012, 'scaled_linear'),
}
EDM_CLASSES = ('EDMEulerScheduler', 'EDMDPMSolverMultistepScheduler')
EDM_DEFAULTS = dict(
    sigma_min=0.002,
    sigma_max=80.0,
    sigma_data=0.5,
    rho=7.0,
    num_train_timesteps=1000,
    prediction_type='epsilon',
)
DISTILLED, FEW = ('LCMScheduler', 'TCDScheduler'), 4  # and their number of steps
FLOW = ('FlowMatchEulerDiscreteScheduler', 'FlowMatchHeunDiscreteScheduler', 'FlowMatchLCMScheduler')


def read(config: Mapping[str, Any], where: str = 'scheduler_config.json') -> tuple[Spec, str | Spec]:
    """The schedule's spec and the parameterization.

    A file without a prediction type means eps: that is every scheduler's default.

    Raises ValueError for a schedule that ldm_jax does not have, naming it.
    """
    name = config.get('_class_name', '')
    if name in EDM_CLASSES:
        return _read_edm(config, where)
    if name in FLOW:
        raise ValueError(f'{where}: _class_name is {name!r}; flow matching with a U-Net is not supported.')
    start, end, word = DEFAULTS.get(name, COMMON) if isinstance(name, str) else COMMON
    defaults = dict(
        beta_start=start,
        beta_end=end,
        beta_schedule=word,
        num_train_timesteps=1000,
        prediction_type='epsilon',
        rescale_betas_zero_snr=False,
    )
    fields = Fields(config, where, defaults)
    fields.only('use_flow_sigmas', False, None)
    prediction = fields('prediction_type')
    if prediction not in PREDICTIONS:
        raise fields.error('prediction_type', prediction, f'have {sorted(PREDICTIONS)}')
    schedule = _table(fields) if config.get('trained_betas') is not None else _named(fields)
    if fields('rescale_betas_zero_snr'):
        schedule = noise_schedules.with_zero_terminal(schedule)
    return schedule, PREDICTIONS[prediction]


def few_steps(config: Mapping[str, Any]) -> dict[str, Any]:
    """The sampler of a distilled model, as settings.sampling; {} for other models, whose scheduler is a choice.

    Distilled are those of LCM and TCD, and those that predict eps at trailing times: SDXL-Turbo, Lightning, Hyper.
    """
    trailing = config.get('timestep_spacing') == 'trailing' and not config.get('rescale_betas_zero_snr')
    predicts_eps = config.get('prediction_type', 'epsilon') == 'epsilon'
    if config.get('_class_name') not in DISTILLED and not (trailing and predicts_eps):
        return {}
    known = scheduler_config.DEFAULTS.keys()
    kept = {key: value for key, value in config.items() if key == '_class_name' or key in known}
    try:
        scheduler_config.read(kept)
    except ValueError:  # another one is to be chosen
        return {}
    return dict(sampler=kept, num_steps=FEW)


def write(settings: Mapping[str, Any], kind: pipelines.Kind) -> dict[str, dict[str, Any]]:
    """Subfolder -> scheduler_config.json, with the sampler that the published folders of this kind have.

    Raises ValueError for settings without schedule or parameterization, or with one that is not in diffusers.
    """
    for key in ('schedule', 'parameterization'):
        if settings.get(key) is None:
            raise ValueError(f'Settings without {key!r} cannot be written: the scheduler needs it.')
    if settings['schedule']['name'] == 'edm':
        return {'scheduler': _write_edm(settings)}
    schedule, ends_at_noise = noise_schedules.without_zero_terminal(settings['schedule'])
    parameterization = settings['parameterization']
    predictions = {ours: theirs for theirs, ours in PREDICTIONS.items()}
    if not isinstance(parameterization, str) or parameterization not in predictions:
        raise unsupported('parameterization', parameterization, f'have {sorted(predictions)}')
    betas = _betas(schedule)
    ends_at_noise = ends_at_noise or (betas['trained_betas'] or [0])[-1] == 1
    shared = betas | dict(
        # The published samplers begin their grid at step 1, and end at the level of step 0. One that is to begin
        # at noise alone counts from there.
        steps_offset=1,
        timestep_spacing='trailing' if ends_at_noise else 'leading',
        prediction_type=predictions[parameterization],
    )
    own = settings.get('sampling', {}).get('sampler')
    if isinstance(own, Mapping) and '_class_name' in own and not ends_at_noise:
        return {'scheduler': header(own['_class_name']) | shared | dict(own)}
    # Euler's sigmas are infinite where a table ends at noise alone; it knows one that is rescaled to.
    rescale = dict(rescale_betas_zero_snr=settings['schedule']['name'] == 'zero_terminal' and ends_at_noise)
    if kind.xl and (rescale['rescale_betas_zero_snr'] or not ends_at_noise) and parameterization != 'x0':
        config = header('EulerDiscreteScheduler') | shared | rescale
        config |= dict(interpolation_type='linear', use_karras_sigmas=False)
    elif parameterization != 'eps' or ends_at_noise or (kind.pipeline or 'LDM').startswith('LDM'):
        config = header('DDIMScheduler') | shared | rescale | dict(clip_sample=False, set_alpha_to_one=False)
    else:
        config = header('PNDMScheduler') | shared | dict(set_alpha_to_one=False, skip_prk_steps=True)
    found = {'scheduler': config}
    noise = header('DDPMScheduler') | dict(num_train_timesteps=1000, clip_sample=False)
    if kind.pipeline == pipelines.UPSCALE:
        # The small image is noised by the betas of the latents.
        found['low_res_scheduler'] = noise | betas
    if kind.pipeline == pipelines.UNCLIP:
        # Nichol & Dhariwal's cosine schedule, whatever the latents have.
        found['image_noising_scheduler'] = noise | dict(beta_schedule='squaredcos_cap_v2')
    return found


def _named(fields: Fields) -> Spec:
    """The schedule of beta_schedule, beta_start and beta_end."""
    start, end, steps = fields('beta_start'), fields('beta_end'), fields('num_train_timesteps')
    word = fields('beta_schedule')
    try:
        found = noise_schedules.by_word('diffusers', word, start, end, steps)
    except ValueError as error:
        raise fields.error('beta_schedule', word, str(error).rstrip('.')) from None
    return fields.built('schedules', found, 'beta_start, beta_end and num_train_timesteps')


def _table(fields: Fields) -> Spec:
    """The schedule of trained_betas; that of our own word where it is one."""
    fields.used.add('trained_betas')
    betas = fields.config['trained_betas']
    if not isinstance(betas, list) or not all(isinstance(b, int | float) and b is not True for b in betas):
        raise fields.error('trained_betas', str(betas)[:60], 'it must be a list of numbers')
    ours = fields.config.get(OURS)
    if isinstance(ours, Mapping) and noise_schedules.is_table_of(ours, np.asarray(betas, float)):
        return dict(ours)
    return fields.built(
        'schedules', dict(name='trained_betas', betas=[float(b) for b in betas]), 'trained_betas'
    )


def _betas(schedule: Spec) -> dict[str, Any]:
    """How a schedule is said: by its word, or by its table and by what it is called here."""
    steps = noise_schedules.steps_of(schedule)
    words = noise_schedules.word_of('diffusers', schedule)
    if words is not None:
        start, end, _ = COMMON
        return dict(beta_start=start, beta_end=end, trained_betas=None, num_train_timesteps=steps) | words
    try:
        table = noise_schedules.betas(schedule)
    except ValueError as error:
        raise unsupported(
            'schedule', schedule, f'diffusers has no word for {schedule["name"]!r}. {error}'[:-1]
        ) from None
    start, end, word = COMMON
    return {
        'beta_start': start,
        'beta_end': end,
        'beta_schedule': word,
        'trained_betas': table.tolist(),
        'num_train_timesteps': steps,
        OURS: schedule,
    }


def _read_edm(config: Mapping[str, Any], where: str) -> tuple[Spec, str | Spec]:
    fields = Fields(config, where, EDM_DEFAULTS)
    prediction = fields('prediction_type')
    if prediction not in EDM_PREDICTIONS:
        raise fields.error('prediction_type', prediction, f'have {sorted(EDM_PREDICTIONS)}')
    schedule = dict(
        name='edm',
        sigma_min=fields('sigma_min'),
        sigma_max=fields('sigma_max'),
        rho=fields('rho'),
        num_train_steps=fields('num_train_timesteps'),
    )
    fields.built('schedules', schedule, 'sigma_min, sigma_max and rho')
    name, sigma_data = EDM_PREDICTIONS[prediction], fields('sigma_data')
    if sigma_data <= 0:
        raise fields.error('sigma_data', sigma_data, 'it must be above 0')
    return schedule, name if sigma_data == SIGMA_DATA[name] else dict(name=name, sigma_data=sigma_data)


def _write_edm(settings: Mapping[str, Any]) -> dict[str, Any]:
    schedule = build.build('schedules', settings['schedule'])
    given = settings['parameterization']
    given = dict(name=given) if isinstance(given, str) else dict(given)
    predictions = {ours: theirs for theirs, ours in EDM_PREDICTIONS.items()}
    if given['name'] not in predictions:
        raise unsupported(
            'parameterization', given['name'], f'beside the schedule edm diffusers has {sorted(predictions)}'
        )
    return header('EDMEulerScheduler') | dict(
        sigma_min=schedule.sigma_min,
        sigma_max=schedule.sigma_max,
        rho=schedule.rho,
        num_train_timesteps=schedule.num_train_steps,
        sigma_data=given.get('sigma_data', SIGMA_DATA[given['name']]),
        sigma_schedule='karras',
        prediction_type=predictions[given['name']],
    )
