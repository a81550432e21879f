"""Every noise schedule goes out to each kind of file and comes back with the same levels, or one clear error."""

import json

import jax
import numpy as np
import pytest

from ldm_jax import build
from ldm_jax.checkpoints import noise_schedules
from ldm_jax.checkpoints.detection import file_schedules, metadata
from ldm_jax.checkpoints.diffusers import schedulers
from ldm_jax.checkpoints.layouts import marks
from tests.checkpoints import folders
from tests.tiers import fast

# Beside each schedule's defaults: other knobs, other bases, another number of steps.
MORE = {
    'cosine': [dict(shift=2.0), dict(num_train_steps=100)],
    'edm': [dict(sigma_min=0.01, sigma_max=120.0)],
    'flow': [dict(shift=3.0)],
    'linear': [dict(beta_start=0.0002, beta_end=0.03, num_train_steps=500)],
    'scaled_linear': [dict(beta_start=0.0015, beta_end=0.0195), dict(num_train_steps=400)],
    'squared_cosine': [dict(offset=0.01), dict(max_beta=0.99)],
    'trained_betas': [dict(betas=np.linspace(1e-4, 0.03, 200).tolist())],
    'zero_terminal': [dict(base=dict(name=name)) for name in ('linear', 'squared_cosine')]
    + [dict(last_alpha_cumprod=2.0**-24), dict(base=dict(name='scaled_linear', beta_start=0.0015))],
}
NEEDS = {'trained_betas'}  # which has no defaults
SPECS = [
    dict(name=name, **knobs)
    for name in build.names('schedules')
    for knobs in ([] if name in NEEDS else [{}]) + MORE.get(name, [])
]
KINDS = ['StableDiffusionPipeline', 'StableDiffusionXLPipeline', 'LDMPipeline']
NO_WORDS = {'flow'}  # which neither kind of file has


def parameterizations(spec):
    return ['edm', 'edm_v', dict(name='edm', sigma_data=1.0)] if spec['name'] == 'edm' else ['eps', 'v', 'x0']


def ids(spec):
    return ','.join(str(value) for value in spec.values())[:60] if isinstance(spec, dict) else str(spec)


def same_levels(one, other, atol=2e-6):
    """Whether two schedules agree at all their whole times."""
    a, b = (build.build('schedules', spec) for spec in (one, other))
    assert a.num_train_steps == b.num_train_steps
    with jax.enable_x64(True):
        times = np.arange(a.num_train_steps, dtype=np.float64)
        for name in ('alpha', 'sigma'):
            found, wanted = (np.asarray(getattr(schedule.level(times), name)) for schedule in (b, a))
            np.testing.assert_allclose(found**2, wanted**2, atol=atol * max(1, wanted.max() ** 2), rtol=1e-4)


@pytest.mark.parametrize('pipeline', fast(1, KINDS))
@pytest.mark.parametrize('spec', SPECS, ids=ids)
def test_through_a_diffusers_scheduler(spec, pipeline):
    diffusers = pytest.importorskip('diffusers')
    from ldm_jax.checkpoints.diffusers import pipelines

    settings = folders.TINY[pipeline] | dict(schedule=spec)
    kind = pipelines.kind_of(settings)
    for parameterization in parameterizations(spec):
        settings = settings | dict(parameterization=parameterization)
        if spec['name'] in NO_WORDS:
            with pytest.raises(ValueError, match=f'schedule.*{spec["name"]}.*diffusers'):
                schedulers.write(settings, kind)
            continue
        config = json.loads(json.dumps(schedulers.write(settings, kind)['scheduler']))
        found, said = schedulers.read(config)
        same_levels(spec, found)
        assert build.build('schedules', found) == build.build('schedules', spec)
        assert said == parameterization
        theirs = getattr(diffusers, config['_class_name']).from_config(config)
        schedule = build.build('schedules', spec)
        if spec['name'] == 'edm':
            assert theirs.config.sigma_min == schedule.sigma_min
            assert theirs.config.sigma_max == schedule.sigma_max
            continue
        alpha = np.asarray(schedule.level(np.arange(schedule.num_train_steps)).alpha)
        np.testing.assert_allclose(theirs.alphas_cumprod.numpy(), alpha**2, atol=3e-6)


@pytest.mark.parametrize('name', [name for name in build.names('schedules') if name == 'edm'])
@pytest.mark.parametrize('parameterization', ['edm', 'edm_v', dict(name='edm_v', sigma_data=0.7)])
def test_edm_is_preconditioned_as_in_diffusers(name, parameterization):
    torch, diffusers = pytest.importorskip('torch'), pytest.importorskip('diffusers')
    from ldm_jax.checkpoints.diffusers import pipelines
    from ldm_jax.diffusion import parameterization as ours

    settings = folders.TINY['StableDiffusionXLPipeline'] | dict(
        schedule=dict(name=name), parameterization=parameterization
    )
    config = schedulers.write(settings, pipelines.kind_of(settings))['scheduler']
    theirs = diffusers.EDMEulerScheduler.from_config(config)
    level = build.build('schedules', settings['schedule']).level(np.array([0.0, 300.0, 999.0]))
    s = ours.named(parameterization)(level)
    for i, sigma in enumerate(np.asarray(level.sigma)):
        x, f = torch.tensor([0.7]), torch.tensor([-0.3])
        clean = theirs.precondition_outputs(x, f, torch.tensor(float(sigma)))
        assert float(s.c_skip[i] * 0.7 + s.c_out[i] * -0.3) == pytest.approx(float(clean), rel=1e-5)
        assert float(s.c_in[i]) == pytest.approx(
            float(theirs.precondition_inputs(torch.tensor(1.0), sigma)), rel=1e-5
        )
        assert float(s.c_noise[i]) == pytest.approx(float(theirs.precondition_noise(float(sigma))), rel=1e-5)


@pytest.mark.parametrize('spec', SPECS, ids=ids)
def test_through_the_tables_and_flags_of_a_single_file(spec):
    settings = folders.TINY['StableDiffusionXLPipeline'] | dict(schedule=spec)
    for parameterization in parameterizations(spec):
        settings = settings | dict(parameterization=parameterization)
        sayable = ('eps', 'v') if spec['name'] != 'edm' else ('edm_v',)
        if spec['name'] in NO_WORDS or parameterization not in sayable:
            with pytest.raises(ValueError, match=r'cannot be written as a single file'):
                marks.tensors(settings)
            continue
        held = marks.tensors(settings)
        found = file_schedules.schedule(held, held.__getitem__, None, (0.00085, 0.012))
        same_levels(spec, found, atol=2e-5 if spec.get('last_alpha_cumprod') is None else 1e-4)
        if parameterization != 'eps':
            assert metadata.prediction(held, {}, None) == 'v'


@pytest.mark.parametrize('spec', SPECS, ids=ids)
def test_its_betas_are_those_of_its_levels(spec):
    schedule = build.build('schedules', spec)
    if spec['name'] in ('edm', 'flow'):
        with pytest.raises(ValueError, match=f"'{spec['name']}' has no betas"):
            noise_schedules.betas(spec)
        return
    alpha = np.asarray(schedule.level(np.arange(schedule.num_train_steps)).alpha)
    np.testing.assert_allclose(np.cumprod(1 - noise_schedules.betas(spec)), alpha**2, atol=1e-6)
