"""Levels to sample at: what every grid must do, and its numbers against public tools."""

import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ldm_jax.build import build
from ldm_jax.diffusion import grids
from ldm_jax.schedules.scaled_linear import Schedule
from tests import oracles

PUBLIC = json.loads((pathlib.Path(__file__).parent / 'fixtures' / 'grids.json').read_text())
LISTS = {'sigmas': (14.0, 3.0, 0.5), 'timesteps': (999, 500, 3)}
NAMES = [name for name in grids.names() if name not in LISTS]
OTHER_LENGTHS = {'ddim', 'ddim_uniform', 'beta'}  # as their originals


def ratio(levels):
    return np.asarray(levels.sigma, np.float64) / np.asarray(levels.alpha, np.float64)


def check(levels, name, schedule=Schedule()):  # noqa: B008
    """Strictly falling, at times that exist, to where it says."""
    levels = jax.tree.map(np.asarray, levels)
    assert (levels.t >= 0).all()
    assert (levels.t <= schedule.num_train_steps - 1).all()
    with np.errstate(divide='ignore'):
        assert (np.diff(ratio(levels)) < 0).all()
    few = np.linspace(0, len(levels.t) - 2, 8).astype(int)  # one shape is one compilation
    made = schedule.level(levels.t[few])
    np.testing.assert_allclose(levels.alpha[few], made.alpha, rtol=1e-6)
    np.testing.assert_allclose(levels.sigma[few], made.sigma, rtol=1e-6)
    end = jax.tree.map(lambda a: float(a[-1]), levels)
    if grids.named(name).end == 'clean':
        assert (end.t, end.alpha, end.sigma) == (0, 1, 0)
    else:
        first = schedule.level(jnp.array(0.0))
        assert (end.t, end.alpha, end.sigma) == (0, float(first.alpha), float(first.sigma))


@pytest.mark.parametrize('name', NAMES)
@pytest.mark.parametrize('steps', [1, 2, 7, 50, 999, 1000])
def test_levels_fall_from_valid_times_to_the_end(name, steps):
    refused = {('leading', 1000), ('lcm', 999), ('lcm', 1000), ('dpm_leading', 999)}
    refused |= {('dpm_leading', 1000), ('dpm_linspace', 1000)}  # which ask for one step more
    if (name, steps) in refused:
        with pytest.raises(ValueError, match=str(steps)):
            grids.named(name)(Schedule(), steps)
        return
    levels = grids.named(name)(Schedule(), steps)
    check(levels, name)
    assert levels.t.shape == levels.alpha.shape == levels.sigma.shape
    if name not in OTHER_LENGTHS:
        assert levels.t.shape == (steps + 1,)


@pytest.mark.parametrize(
    'name', sorted(set(NAMES) - {'log_snr', 'leading', 'ddim', 'ddim_uniform', 'dpm_leading'})
)
def test_the_first_level_is_the_noisiest(name):
    for steps in (1, 5):
        assert grids.named(name)(Schedule(), steps).t[0] == pytest.approx(999, abs=1e-3)


@pytest.mark.parametrize(
    'spec',
    [
        dict(name='linear'),
        dict(name='edm'),
        dict(name='flow', shift=3.0),
        dict(name='zero_terminal', last_alpha_cumprod=2.0**-24),
        dict(name='squared_cosine', num_train_steps=100),
    ],
    ids=str,
)
def test_grids_are_for_every_schedule(spec):
    schedule = build('schedules', spec)
    for name in set(NAMES) - {'align_your_steps'}:
        check(grids.named(name)(schedule, 6), name, schedule)


def test_noise_alone_at_the_start_has_no_sigma_but_times():
    schedule = build('schedules', dict(name='zero_terminal'))
    assert float(grids.named('trailing')(schedule, 4).alpha[0]) == 0
    with pytest.raises(ValueError, match='sigma_max'):
        grids.named('karras')(schedule, 4)
    check(grids.named(dict(name='karras', sigma_max=100.0))(schedule, 4), 'karras', schedule)


# Parity


FIXTURES = {
    'comfyui simple': 'simple',
    'comfyui normal': 'normal',
    'comfyui sgm_uniform': 'sgm_uniform',
    'comfyui ddim_uniform': 'ddim_uniform',
    'comfyui beta': 'beta',
    'comfyui linear_quadratic': 'linear_quadratic',
    'comfyui kl_optimal': 'kl_optimal',
    'a1111 uniform': 'normal',
    'a1111 sgm_uniform': 'sgm_uniform',
    'a1111 kl_optimal': dict(name='kl_optimal', discard_next_to_last=1, end='first'),
    'a1111 beta': dict(name='beta', of='noise'),
    'k-diffusion karras': 'karras',
    'k-diffusion karras rho 5': dict(name='karras', rho=5, sigma_min=0.1, sigma_max=10),
    'k-diffusion exponential': 'exponential',
    'k-diffusion polyexponential rho 3': dict(name='polyexponential', rho=3.0),
    # Published to three digits; ComfyUI has the sigmas of the whole times nearest to them, and the last one,
    # which A1111 evaluates, is just below the schedule's.
    'a1111 align_your_steps': dict(name='align_your_steps', discard_next_to_last=0),
    'comfyui align_your_steps SD1': 'align_your_steps',
    'comfyui align_your_steps SDXL': dict(name='align_your_steps', model='sdxl'),
}


@pytest.mark.parametrize('public', FIXTURES)
def test_sigmas_are_those_of_public_tools(public):
    tolerance = 2e-2 if 'align' in public else 3e-6
    for steps, expected in PUBLIC[public].items():
        levels = grids.named(FIXTURES[public])(Schedule(), int(steps))
        np.testing.assert_allclose(ratio(levels), expected, rtol=tolerance, atol=1e-9)
    assert len(PUBLIC[public]) >= 4


def test_published_sigmas_are_kept_to_their_digits():
    sigma = ratio(grids.named('align_your_steps')(Schedule(), 10))
    published = (14.615, 6.475, 3.861, 2.697, 1.886, 1.396, 0.963, 0.652, 0.399, 0.152, 0)
    np.testing.assert_allclose(sigma, published, rtol=1e-4)


def test_the_time_of_a_sigma_is_that_of_k_diffusion():
    expected = PUBLIC['k-diffusion sigma_to_t']
    listed = dict(name='sigmas', values=expected['sigma'][::-1])
    levels = grids.named(listed)(Schedule(), len(expected['sigma']))
    np.testing.assert_allclose(levels.t[:-1], expected['t'][::-1], rtol=2e-5, atol=1e-4)


def diffusers_scheduler(kind, **settings):
    diffusers = pytest.importorskip('diffusers')
    settings = dict(beta_start=0.00085, beta_end=0.012, beta_schedule='scaled_linear') | settings
    return getattr(diffusers, kind)(**settings)


DISCARD = dict(discard_next_to_last=1, end='clean')


@pytest.mark.parametrize(
    ('kind', 'settings', 'spec'),
    [
        ('DDIMScheduler', dict(timestep_spacing='leading', steps_offset=1), 'leading'),
        (
            'DDIMScheduler',
            dict(timestep_spacing='leading'),
            dict(name='leading', steps_offset=0, end='clean'),
        ),
        ('DDIMScheduler', dict(timestep_spacing='trailing'), 'trailing'),
        ('DDIMScheduler', dict(timestep_spacing='linspace'), 'linspace'),
        ('EulerDiscreteScheduler', dict(timestep_spacing='linspace'), 'normal'),
        ('DPMSolverMultistepScheduler', dict(timestep_spacing='linspace'), dict(name='linspace', **DISCARD)),
        (
            'DPMSolverMultistepScheduler',
            dict(timestep_spacing='leading', steps_offset=1),
            dict(name='leading', **DISCARD),
        ),
        ('UniPCMultistepScheduler', dict(timestep_spacing='trailing'), 'trailing'),
        ('LCMScheduler', dict(original_inference_steps=50), 'lcm'),
        ('TCDScheduler', dict(original_inference_steps=50), 'lcm'),
    ],
)
def test_times_are_those_of_diffusers(kind, settings, spec):
    theirs = diffusers_scheduler(kind, **settings)
    for steps in (2, 7, 20, 33, 50) if spec == 'lcm' else (2, 7, 20, 50, 99, 333, 500):
        theirs.set_timesteps(steps)
        levels = grids.named(spec)(Schedule(), steps)
        # theirs are cast to float32 or to whole numbers
        np.testing.assert_allclose(levels.t[:-1], theirs.timesteps.numpy(), rtol=1e-6)


@pytest.mark.parametrize(
    ('kind', 'settings', 'spec'),
    [
        ('EulerDiscreteScheduler', dict(use_karras_sigmas=True), 'karras'),
        ('EulerDiscreteScheduler', dict(use_exponential_sigmas=True), 'exponential'),
        ('EulerDiscreteScheduler', dict(use_beta_sigmas=True), dict(name='beta', of='noise')),
        ('DPMSolverMultistepScheduler', dict(use_lu_lambdas=True), 'exponential'),
        (
            'DPMSolverMultistepScheduler',
            dict(use_karras_sigmas=True, final_sigmas_type='sigma_min'),
            dict(name='karras', discard_next_to_last=0, end='first'),
        ),
    ],
)
def test_sigmas_are_those_of_diffusers(kind, settings, spec):
    theirs = diffusers_scheduler(kind, **settings)
    for steps in (2, 7, 30, 100):
        theirs.set_timesteps(steps)
        if 'final_sigmas_type' in settings:
            # theirs walks from sigma_min to sigma_min in the end, ours refuses that
            with pytest.raises(ValueError, match='fall'):
                grids.named(spec)(Schedule(), steps)
            continue
        levels = grids.named(spec)(Schedule(), steps)
        np.testing.assert_allclose(ratio(levels), theirs.sigmas.numpy(), rtol=3e-5, atol=1e-9)
        if kind.startswith('Euler'):
            np.testing.assert_allclose(levels.t[:-1], theirs.timesteps.numpy(), rtol=1e-4, atol=2e-3)


@pytest.mark.parametrize('steps', [1, 7, 20, 30, 50, 300, 333, 600, 999, 1000])
def test_ddim_takes_the_times_of_compvis_as_far_as_they_exist(steps):
    asked = np.arange(0, 1000, 1000 // steps) + 1
    levels = grids.named('ddim')(Schedule(), steps)
    np.testing.assert_array_equal(levels.t[:-1][::-1], sorted({min(int(t), 999) for t in asked}))
    first = Schedule().level(jnp.array(0.0))
    assert (float(levels.alpha[-1]), float(levels.sigma[-1])) == (float(first.alpha), float(first.sigma))


@pytest.mark.parametrize('steps', [5, 10, 50])
def test_ddims_squares_are_those_of_compvis_each_once(steps):
    asked = (np.linspace(0, np.sqrt(1000 * 0.8), steps) ** 2).astype(int) + 1
    levels = grids.named(dict(name='ddim', quadratic=True))(Schedule(), steps)
    np.testing.assert_array_equal(levels.t[:-1][::-1], np.unique(asked))


def test_evenly_spaced_log_snr_keeps_its_step_to_the_end():
    log_sigma = np.log(ratio(grids.named('log_snr')(Schedule(), 9)))
    np.testing.assert_allclose(np.diff(log_sigma), np.diff(log_sigma)[0], rtol=1e-4)
    np.testing.assert_allclose(np.exp(log_sigma[[0, -1]]), [14.6146, 0.0292], rtol=2e-3)


def test_sigmas_of_flow_matching_are_its_own():
    # linspace 1 .. 1 / N, shifted: diffusers' and ComfyUI's 'simple' for Stable Diffusion 3
    levels = grids.named('linspace')(build('schedules', dict(name='flow', shift=3.0)), 28)
    u = np.round(np.linspace(1000, 1, 28)) / 1000
    np.testing.assert_allclose(levels.sigma[:-1], 3 * u / (1 + 2 * u), rtol=1e-5)
    levels = grids.named('linear_quadratic')(build('schedules', dict(name='flow')), 8)
    linear = np.arange(5) * 0.025 / 4
    np.testing.assert_allclose(levels.sigma[:5], 1 - linear, rtol=1e-5)


def test_a_grid_of_edm_is_karras_at_its_own_rho():
    edm = build('schedules', dict(name='edm'))
    first, second = (grids.named(name)(edm, 18) for name in ('normal', 'karras'))
    np.testing.assert_allclose(first.sigma, second.sigma, rtol=2e-5)


# Names


def test_lists_are_taken_as_they_are_and_may_end_in_zero():
    levels = grids.named(dict(name='sigmas', values=[14.0, 3.0, 0.5, 0.0]))(Schedule(), 3)
    np.testing.assert_allclose(ratio(levels), [14, 3, 0.5, 0], rtol=1e-5)
    levels = grids.named(dict(name='timesteps', values=[999, 500, 3]))(Schedule(), 3)
    np.testing.assert_array_equal(levels.t, [999, 500, 3, 0])


@pytest.mark.parametrize(
    ('spec', 'words'),
    [
        ('training', ["'training'", "'trailing'"]),
        (dict(name='karras', roh=5), ["'roh'", "'rho'"]),
        (dict(name='karras', end='data'), ["'data'", "'clean'"]),
        (dict(name='align_your_steps', model='sd3'), ["'sd3'", "'sd1'"]),
        (dict(name='beta', of='sigma'), ["'sigma'", "'noise'"]),
        (dict(name='sigmas', values=(14.0, 3.0)), ['2 steps', '3']),
        (dict(name='sigmas', values=(20.0, 3.0, 1.0)), ['20', '14.6']),
        (dict(name='timesteps', values=(500, 999, 3)), ['fall']),
        (dict(name='timesteps', values=(1000, 500, 3)), ['999']),
        (dict(name='karras', sigma_min=20.0), ['20']),
        (dict(name='linear_quadratic', linear_steps=3), ['linear_steps', '3']),
        (dict(name='leading', steps_offset=400), ['1066']),
    ],
    ids=str,
)
def test_what_cannot_be_is_refused_with_a_way_out(spec, words):
    with pytest.raises(ValueError) as error:
        grids.named(spec)(Schedule(), 3)
    assert all(word in str(error.value) for word in words), error.value


@pytest.mark.parametrize('steps', [0, -1, 1001])
def test_impossible_numbers_of_steps_are_refused(steps):
    with pytest.raises(ValueError, match=f'1000.*{steps}' if steps > 0 else f'at least 1; got {steps}'):
        grids.named('trailing')(Schedule(), steps)


def test_a_grid_is_hashable_and_equal_to_its_like():
    first, second = (grids.named(dict(name='sigmas', values=[14.0, 1.0])) for _ in range(2))
    assert hash(first) == hash(second)
    assert first == second
    assert grids.named(dict(name='exponential')) == grids.named('exponential')


def test_levels_are_numbers_even_under_jit_and_follow_the_precision():
    seen = []

    @jax.jit
    def traced(x):
        levels = grids.named('beta')(Schedule(), 5)
        seen.append(np.asarray(levels.sigma))
        return x * levels.sigma[0]

    traced(1.0)
    np.testing.assert_array_equal(seen[0], grids.named('beta')(Schedule(), 5).sigma)
    assert seen[0].dtype == np.float32
    with oracles.float64():
        assert grids.named('karras')(Schedule(), 5).sigma.dtype == np.float64
