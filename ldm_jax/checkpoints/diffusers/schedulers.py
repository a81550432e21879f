"""scheduler_config.json: the noise schedule and what the network predicts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ldm_jax.checkpoints.diffusers import pipelines
from ldm_jax.checkpoints.diffusers.fields import Spec, header, unsupported

PREDICTIONS = {'epsilon': 'eps', 'v_prediction': 'v'}
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


def read(config: Mapping[str, Any], where: str = 'scheduler_config.json') -> tuple[Spec, str]:
    """The schedule's spec and the parameterization, 'eps' or 'v'; how to sample is left out.

    A file that does not say what is predicted means eps: that is every scheduler's default.

    Raises ValueError for a schedule that ldm_jax does not have, naming it.
    """
    start, end, shape = DEFAULTS.get(config.get('_class_name', ''), COMMON)
    shape = config.get('beta_schedule', shape)
    prediction = config.get('prediction_type', 'epsilon')
    if shape != 'scaled_linear':
        raise ValueError(f"{where}: beta_schedule is {shape!r}; only 'scaled_linear' is supported.")
    if prediction not in PREDICTIONS:
        raise ValueError(f'{where}: prediction_type is {prediction!r}; have {sorted(PREDICTIONS)}.')
    for key in ('trained_betas', 'rescale_betas_zero_snr', 'use_flow_sigmas'):
        value = config.get(key)
        if value is not None and value is not False:
            raise ValueError(f'{where}: {key} is {value!r}; it is not supported, leave it out.')
    schedule = dict(
        name='scaled_linear',
        beta_start=config.get('beta_start', start),
        beta_end=config.get('beta_end', end),
        num_train_steps=config.get('num_train_timesteps', 1000),
    )
    return schedule, PREDICTIONS[prediction]


def write(settings: Mapping[str, Any], kind: pipelines.Kind) -> dict[str, dict[str, Any]]:
    """Subfolder -> scheduler_config.json, with the sampler that the published folders of this kind have.

    Raises ValueError for settings without schedule or parameterization, or with one that is not in diffusers.
    """
    for key in ('schedule', 'parameterization'):
        if settings.get(key) is None:
            raise ValueError(f'Settings without {key!r} cannot be written: the scheduler needs it.')
    schedule, parameterization = dict(settings['schedule']), settings['parameterization']
    if schedule.pop('name') != 'scaled_linear':
        raise unsupported('schedule.name', settings['schedule']['name'], "only 'scaled_linear' is known")
    predictions = {ours: theirs for theirs, ours in PREDICTIONS.items()}
    if parameterization not in predictions:
        raise unsupported('parameterization', parameterization, f'have {sorted(predictions)}')
    shared = dict(
        beta_end=schedule.pop('beta_end', 0.012),
        beta_schedule='scaled_linear',
        beta_start=schedule.pop('beta_start', 0.00085),
        num_train_timesteps=schedule.pop('num_train_steps', 1000),
        # The published samplers begin their grid at step 1, and end at the level of step 0.
        steps_offset=1,
        timestep_spacing='leading',
        prediction_type=predictions[parameterization],
        trained_betas=None,
    )
    if schedule:
        raise unsupported('schedule', settings['schedule'], f'{sorted(schedule)} is not known')
    if kind.xl:
        config = header('EulerDiscreteScheduler') | shared
        config |= dict(interpolation_type='linear', use_karras_sigmas=False)
    elif parameterization == 'v' or (kind.pipeline or 'LDM').startswith('LDM'):
        config = header('DDIMScheduler') | shared
        config |= dict(clip_sample=False, set_alpha_to_one=False, rescale_betas_zero_snr=False)
    else:
        config = header('PNDMScheduler') | shared | dict(set_alpha_to_one=False, skip_prk_steps=True)
    found = {'scheduler': config}
    noise = header('DDPMScheduler') | dict(num_train_timesteps=1000, clip_sample=False)
    if kind.pipeline == pipelines.UPSCALE:
        # The small image is noised by the betas of the latents.
        names = ('beta_start', 'beta_end', 'beta_schedule', 'num_train_timesteps')
        found['low_res_scheduler'] = noise | {name: shared[name] for name in names}
    if kind.pipeline == pipelines.UNCLIP:
        # Nichol & Dhariwal's cosine schedule, whatever the latents have.
        found['image_noising_scheduler'] = noise | dict(beta_schedule='squaredcos_cap_v2')
    return found
