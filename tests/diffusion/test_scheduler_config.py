"""Settings of diffusers' schedulers: read, they do the same as the class; written, they are read as the same."""

import json

import numpy as np
import pytest

from ldm_jax import build
from ldm_jax.diffusion import grids, scheduler_config
from ldm_jax.diffusion.scheduler_config_inverse import full, write
from ldm_jax.inference.settings import Sampling
from ldm_jax.schedules.scaled_linear import Schedule
from tests import diffusers_schedulers as walks

STEPS = (1, 2, 5, 9, 17)
SIGMA_MIN = dict(final_sigmas_type='sigma_min')
DDIM, MULTI, UNIPC = 'DDIMScheduler', 'DPMSolverMultistepScheduler', 'UniPCMultistepScheduler'
EULER, SINGLE = 'EulerDiscreteScheduler', 'DPMSolverSinglestepScheduler'
COSINE = dict(beta_schedule='squaredcos_cap_v2')
CASES = [
    (DDIM, dict()),  # which clips x0_hat to [-1, 1]
    (DDIM, dict(clip_sample_range=0.4, steps_offset=1, set_alpha_to_one=False)),
    (DDIM, dict(clip_sample=False, timestep_spacing='trailing')),
    (DDIM, dict(clip_sample=False, timestep_spacing='linspace')),
    (DDIM, dict(clip_sample=False, timestep_spacing='linspace', set_alpha_to_one=False)),
    ('DDPMScheduler', dict()),
    ('DDPMScheduler', dict(clip_sample=False, variance_type='fixed_large', timestep_spacing='linspace')),
    ('DDPMScheduler', dict(clip_sample=False, timestep_spacing='linspace')),
    ('LCMScheduler', dict(clip_sample=True, original_inference_steps=100)),
    (MULTI, SIGMA_MIN),
    (MULTI, SIGMA_MIN | dict(timestep_spacing='leading', steps_offset=1)),
    (MULTI, SIGMA_MIN | dict(timestep_spacing='trailing', euler_at_final=True, lower_order_final=False)),
    (MULTI, SIGMA_MIN | dict(lower_order_final=False, solver_type='heun')),
    (MULTI, SIGMA_MIN | dict(solver_order=3, euler_at_final=True)),
    (MULTI, dict(solver_order=1)),
    (MULTI, SIGMA_MIN | dict(algorithm_type='dpmsolver')),
    (MULTI, SIGMA_MIN | dict(algorithm_type='dpmsolver', solver_type='heun', lower_order_final=False)),
    (MULTI, SIGMA_MIN | dict(algorithm_type='dpmsolver', solver_order=3)),
    (MULTI, SIGMA_MIN | dict(algorithm_type='sde-dpmsolver++')),
    (MULTI, SIGMA_MIN | dict(algorithm_type='sde-dpmsolver++', solver_type='heun', lower_order_final=False)),
    (MULTI, SIGMA_MIN | dict(algorithm_type='sde-dpmsolver++', euler_at_final=True, lower_order_final=False)),
    (MULTI, COSINE | dict(lambda_min_clipped=-5.1)),
    (MULTI, COSINE | dict(lambda_min_clipped=-5.1, timestep_spacing='leading', steps_offset=1)),
    (MULTI, COSINE | dict(lambda_min_clipped=-5.1, timestep_spacing='trailing')),
    (MULTI, dict(use_karras_sigmas=True)),
    (MULTI, dict(use_exponential_sigmas=True)),
    (MULTI, dict(use_beta_sigmas=True)),
    (MULTI, dict(use_lu_lambdas=True)),
    (UNIPC, SIGMA_MIN | dict(disable_corrector=[0, 1, 3])),
    (UNIPC, dict(disable_corrector=list(range(50)), solver_order=3)),
    (UNIPC, SIGMA_MIN | dict(predict_x0=False)),
    (UNIPC, SIGMA_MIN | dict(predict_x0=False, solver_type='bh1', solver_order=3, lower_order_final=False)),
    (UNIPC, SIGMA_MIN | dict(predict_x0=False, disable_corrector=[0, 2], timestep_spacing='trailing')),
    (EULER, dict(interpolation_type='log_linear')),
    (EULER, dict(interpolation_type='log_linear', timestep_spacing='leading', steps_offset=1)),
    (EULER, dict(timestep_spacing='leading', steps_offset=1, use_karras_sigmas=True)),
    (EULER, dict(timestep_spacing='trailing', use_exponential_sigmas=True)),
    (EULER, dict(use_beta_sigmas=True)),
    (EULER, dict(timestep_spacing='trailing', **SIGMA_MIN)),
    ('KDPM2DiscreteScheduler', dict(use_karras_sigmas=True)),
    ('DEISMultistepScheduler', dict(solver_order=3, lower_order_final=False)),
    ('SASolverScheduler', dict(predictor_order=3, corrector_order=4)),
    (SINGLE, dict(solver_order=3, lower_order_final=True)),
    (SINGLE, SIGMA_MIN | dict(algorithm_type='dpmsolver', lower_order_final=True)),
    (SINGLE, COSINE | dict(lambda_min_clipped=-5.1, lower_order_final=True)),
    ('EDMEulerScheduler', dict(sigma_schedule='exponential')),
    ('FlowMatchEulerDiscreteScheduler', dict(shift=3.0)),
    ('FlowMatchHeunDiscreteScheduler', dict(shift=3.0)),
]  # fmt: skip
# One step by noise is at no noise at all in diffusers, whatever the noise that x has.
LONE = {'sigma_schedule', 'use_karras_sigmas', 'use_exponential_sigmas', 'use_beta_sigmas', 'use_lu_lambdas'}


def ids(value):
    return ','.join(f'{key}={each}' for key, each in value.items())[:90] if isinstance(value, dict) else value


@pytest.mark.slow
@pytest.mark.filterwarnings('ignore')
@pytest.mark.parametrize(('name', 'settings'), CASES, ids=ids)
def test_what_is_read_does_what_the_class_does(name, settings):
    pytest.importorskip('torch')
    pytest.importorskip('diffusers')
    own_schedule = name.startswith(('EDM', 'FlowMatch'))
    config = settings if own_schedule else walks.BETAS | settings
    spec, grid = scheduler_config.read(dict(config, _class_name=name))
    steps = [steps for steps in STEPS if steps > 1 or not LONE & settings.keys()]
    found = walks.errors(name, config, spec, grid, steps)
    # Its whole times are cut off, so that rounding in the last digit of one makes it another.
    tolerance = 1e-3 if settings.get('use_exponential_sigmas') and name == MULTI else 1e-5
    assert max(found.values()) < tolerance, found


@pytest.mark.parametrize(('name', 'settings'), CASES, ids=ids)
def test_what_is_written_is_read_as_the_same(name, settings):
    read = scheduler_config.read(dict(settings, _class_name=name))
    written = json.loads(json.dumps(write(*read)))
    assert full(*scheduler_config.read(written)) == full(*read)


@pytest.mark.parametrize(
    ('name', 'settings', 'words'),
    [
        ('DDIMSchedular', dict(), ["'DDIMSchedular'", "'DDIMScheduler'"]),
        (MULTI, dict(algorithm_type='sde-dpmsolver'), ['algorithm_type', 'sde-dpmsolver++']),
        (MULTI, dict(thresholding=True), ['thresholding', 'True']),
        (
            'PNDMScheduler',
            dict(timestep_spacing='trailing'),
            ['PNDMScheduler', 'timestep_spacing', 'leading'],
        ),
        (EULER, dict(interpolation_type='cubic'), ['interpolation_type', 'cubic', 'log_linear']),
        ('DEISMultistepScheduler', dict(use_karras_sigmas=True), ['DEISMultistepScheduler', 'by noise']),
        ('FlowMatchEulerDiscreteScheduler', dict(use_dynamic_shifting=True), ['use_dynamic_shifting']),
    ],
)
def test_what_has_no_counterpart_is_one_line(name, settings, words):
    with pytest.raises(ValueError) as error:
        scheduler_config.read(dict(settings, _class_name=name))
    assert all(word in str(error.value) for word in words), error.value
    assert '\n' not in str(error.value)


def test_fields_of_other_classes_are_ignored_as_diffusers_does():
    mixed = dict(
        _class_name='PNDMScheduler', steps_offset=1, use_karras_sigmas=True, algorithm_type='sde-dpmsolver'
    )
    plain = dict(_class_name='PNDMScheduler', steps_offset=1)
    assert scheduler_config.read(mixed) == scheduler_config.read(plain)


def test_what_no_class_does_is_not_written():
    with pytest.raises(ValueError, match='No scheduler of diffusers does what'):
        write(dict(name='restart'), dict(name='karras'))


def test_a_config_stands_for_sampler_and_grid_in_settings():
    config = dict(_class_name=UNIPC, disable_corrector=[0, 1], use_karras_sigmas=True, solver_order=3)
    made, levels = Sampling(config, num_steps=5).plan(Schedule())
    spec, grid = scheduler_config.read(config)
    assert made == build.build('samplers', spec)
    np.testing.assert_array_equal(levels.sigma, grids.named(grid)(Schedule(), 5).sigma)
    _, levels = Sampling(config, 'trailing', num_steps=5).plan(Schedule())
    np.testing.assert_array_equal(levels.sigma, grids.named('trailing')(Schedule(), 5).sigma)
    with pytest.raises(ValueError, match=r'thresholding True has no counterpart'):
        Sampling(dict(_class_name=MULTI, thresholding=True))
