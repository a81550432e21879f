"""Names of public tools: what they stand for, and that they stand for something."""

import json
import pathlib

import numpy as np
import pytest

from ldm_jax import build
from ldm_jax.diffusion import aliases, grids
from ldm_jax.diffusion.aliases import GRIDS, SAMPLERS, resolve
from ldm_jax.schedules.scaled_linear import Schedule

PUBLIC = json.loads((pathlib.Path(__file__).parent / 'fixtures' / 'grids.json').read_text())


@pytest.mark.parametrize(
    ('asked', 'sampler', 'grid'),
    [
        (('DPM++ 2M Karras',), dict(name='dpmpp_2m'), dict(name='karras')),
        (('DPM++ 2M', 'Automatic'), dict(name='dpmpp_2m'), dict(name='karras')),
        (('DPM++ 2M SDE Heun',), dict(name='dpmpp_2m_sde', variant='heun'), dict(name='exponential')),
        (('DPM++ 2M SDE Heun Karras',), dict(name='dpmpp_2m_sde', variant='heun'), dict(name='karras')),
        (('DPM++ 2M SDE', 'SGM Uniform'), dict(name='dpmpp_2m_sde', variant='midpoint'), dict(name='sgm_uniform')),
        (('Euler a',), dict(name='euler_ancestral'), None),
        (('euler A',), dict(name='euler_ancestral'), None),
        (('k_euler_a',), dict(name='euler_ancestral'), None),
        (('EulerAncestralDiscreteScheduler',), dict(name='euler_ancestral'), dict(
            name='linspace', rounded=False, one_at_last=True, interpolation='linear', end='clean')),
        (('TCDScheduler',), dict(name='tcd'), dict(name='lcm', original_steps=50, end='first')),
        (('EulerDiscreteScheduler', 'use_karras_sigmas'), dict(name='euler'), dict(name='karras')),
        (('k_dpmpp_2m_ka',), dict(name='dpmpp_2m'), dict(name='karras')),
        (('my_project.mine',), dict(name='my_project.mine'), None),
        (('Euler a', 'my_project.grids.mine'), dict(name='euler_ancestral'), dict(name='my_project.grids.mine')),
        (('DDIM',), dict(name='ddim'), dict(name='ddim')),
        (('ddim',), dict(name='ddim'), None),
        (('ddim', 'ddim_uniform'), dict(name='ddim'), dict(name='ddim_uniform')),
        (('uni_pc_bh2', 'simple'), SAMPLERS['uni_pc_bh2'][0], dict(name='simple', discard_next_to_last=1)),
        (('dpm_2',), dict(name='dpm2'), dict(name='normal', discard_next_to_last=1)),
        (('Euler', 'Align Your Steps'), dict(name='euler'), dict(name='align_your_steps', discard_next_to_last=0)),
        (('Euler', 'align_your_steps'), dict(name='euler'), dict(name='align_your_steps')),
        (('Euler Beta',), dict(name='euler'), dict(name='beta', of='noise')),
        (('Euler', 'beta'), dict(name='euler'), dict(name='beta')),
    ],
)  # fmt: skip
def test_names_stand_for_what_the_tools_do(asked, sampler, grid):
    assert resolve(*asked) == (sampler, grid)


def test_specs_are_fresh():
    resolve('DPM++ 2M Karras')[0]['eta'] = 1.0
    assert resolve('DPM++ 2M Karras')[0] == dict(name='dpmpp_2m')


@pytest.mark.parametrize('name', SAMPLERS)
def test_every_sampler_resolves_with_and_without_a_grid(name):
    sampler, grid = resolve(name)
    assert sampler == SAMPLERS[name][0]
    if grid is not None:
        assert len(grids.named(grid)(Schedule(), 10).t) == 11
    assert resolve(f'{name} Karras') == resolve(name, 'karras')
    assert resolve(name, 'Automatic') == resolve(name)


@pytest.mark.parametrize('name', GRIDS)
def test_every_grid_is_one(name):
    _, spec = resolve('Euler', name)
    assert spec == GRIDS[name]
    assert len(grids.named(spec)(Schedule(), 10).t) == 11


def test_our_own_names_are_themselves():
    for name in aliases.names():
        assert resolve(name)[0]['name'] == name
    for name in grids.names():
        assert resolve('Euler', name)[1]['name'] == name


def test_names_that_differ_only_in_case_do_not_disagree():
    for table in (SAMPLERS, GRIDS):
        seen = {}
        for name, spec in table.items():
            assert seen.setdefault(aliases._plain(name), spec) == spec, name


@pytest.mark.parametrize(
    ('sampler', 'grid', 'public'),
    [
        ('dpm_2', 'sgm_uniform', 'comfyui sgm_uniform'),
        ('dpm_2', 'normal', 'comfyui normal'),
        ('DPM2', 'SGM Uniform', 'a1111 sgm_uniform'),
        ('DPM2', 'KL Optimal', 'a1111 kl_optimal'),
        ('DPM2 a', 'Karras', 'k-diffusion karras'),
        ('DPM++ 3M SDE', 'Exponential', 'k-diffusion exponential'),
    ],
)
def test_samplers_that_discard_the_next_to_last_sigma_do_so_on_top_of_the_grid(sampler, grid, public):
    spec = resolve(sampler, grid)[1]
    for steps in (6, 9, 19):
        sigmas = PUBLIC[public][str(steps + 1)]  # the tools ask for one step more and drop the last but one
        levels = grids.named(spec)(Schedule(), steps)
        ours = np.asarray(levels.sigma) / np.asarray(levels.alpha)
        np.testing.assert_allclose(ours, sigmas[:-2] + sigmas[-1:], rtol=1e-5, atol=1e-9)


@pytest.mark.parametrize(
    ('asked', 'words'),
    [
        (('DPM++ 2N',), ["'DPM++ 2N'", "'DPM++ 2M'"]),
        (('Eular a',), ["'Eular a'", "'Euler a'"]),
        (('Euler', 'Karas'), ["'Karas'", "'Karras'"]),
        (('ddim_inverse',), ["'ddim_inverse'", "'DDIM'"]),  # goes from images up to their noise
    ],
)
def test_an_unknown_name_is_refused_with_the_nearest(asked, words):
    with pytest.raises(ValueError) as error:
        resolve(*asked)
    assert all(word in str(error.value) for word in words), error.value


@pytest.mark.parametrize('name', SAMPLERS)
def test_every_alias_is_a_sampler_that_builds(name):
    build.build('samplers', resolve(name)[0])
