"""Schedulers: the schedule and the parameterization, and what a missing key means."""

import inspect

import pytest

from ldm_jax.checkpoints.diffusers import schedulers
from tests.checkpoints.published_files import SCHEDULER


def test_schedulers_of_diffusers_are_read_with_their_own_defaults():
    pytest.importorskip('torch')
    diffusers = pytest.importorskip('diffusers')
    found = 0
    for name in dir(diffusers.schedulers):
        cls = getattr(diffusers.schedulers, name)
        parameters = inspect.signature(cls.__init__).parameters if inspect.isclass(cls) else {}
        if not {'beta_start', 'beta_end', 'beta_schedule'} <= parameters.keys():
            continue
        start, end, shape = (parameters[f'beta_{key}'].default for key in ('start', 'end', 'schedule'))
        if name in ('CogVideoXDDIMScheduler', 'CogVideoXDPMScheduler', 'DDIMInverseScheduler'):
            continue  # of other models, or of the way back
        assert schedulers.DEFAULTS.get(name, schedulers.COMMON) == (start, end, shape), name
        found += 1
    assert found > 15


def test_schedules_are_read_or_refused():
    schedule, prediction = schedulers.read(SCHEDULER)
    assert schedule == dict(name='scaled_linear', beta_start=0.00085, beta_end=0.012, num_train_steps=1000)
    assert prediction == 'eps'  # silence means epsilon
    for changes, message in (
        (dict(beta_schedule='sigmoid'), "beta_schedule is 'sigmoid'.*'squaredcos_cap_v2'"),
        (dict(prediction_type='flow_prediction'), "'flow_prediction'; have"),
        (dict(trained_betas=[0.1, 2.0]), 'trained_betas make no.*number 1 is 2.0'),
        (dict(use_flow_sigmas=True), 'use_flow_sigmas is True'),
        (dict(_class_name='FlowMatchEulerDiscreteScheduler'), '_class_name is .*flow matching'),
        (dict(beta_start=0.5, beta_end=0.1), 'beta_start, beta_end.*0.5 and 0.1'),
        (dict(num_train_timesteps=1), 'num_train_timesteps.*1'),
    ):
        with pytest.raises(ValueError, match=message):
            schedulers.read(SCHEDULER | changes)
    silent = {key: value for key, value in SCHEDULER.items() if key != 'beta_schedule'}
    assert schedulers.read(silent)[0]['name'] == 'linear'
    rescaled, _ = schedulers.read(
        SCHEDULER | dict(rescale_betas_zero_snr=True, prediction_type='v_prediction')
    )
    assert rescaled == dict(name='zero_terminal', base=schedule)
