"""Samplers and grids by the names of A1111, ComfyUI and diffusers.

A name means what it does there, down to the grid where the tool has one of its own for a sampler: 'DPM2' is
spaced as Karras has it and leaves out the last evaluation but one. diffusers' classes are what they are when they take
over the config of Stable Diffusion's repositories.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from typing import Any

from ldm_jax import build
from ldm_jax.diffusion import grids, scheduler_config

Spec = dict[str, Any]

_KARRAS: Spec = dict(name='karras')
_EXPONENTIAL: Spec = dict(name='exponential')
_DISCARD: Spec = dict(discard_next_to_last=1)
_STABLE_DIFFUSION: Spec = dict(set_alpha_to_one=False, skip_prk_steps=True, clip_sample=False, steps_offset=1)

# Name -> sampler, and what it says of its grid: all of it (A1111's 'Automatic'), or a field whatever its name.
SAMPLERS: dict[str, tuple[Spec, Spec]] = {
    # A1111, by label
    'DPM++ 2M': (dict(name='dpmpp_2m'), _KARRAS),
    'DPM++ SDE': (dict(name='dpmpp_sde'), _KARRAS),
    'DPM++ 2M SDE': (dict(name='dpmpp_2m_sde', variant='midpoint'), _EXPONENTIAL),
    'DPM++ 2M SDE Heun': (dict(name='dpmpp_2m_sde', variant='heun'), _EXPONENTIAL),
    'DPM++ 2S a': (dict(name='dpmpp_2s_ancestral'), _KARRAS),
    'DPM++ 3M SDE': (dict(name='dpmpp_3m_sde'), _EXPONENTIAL | _DISCARD),
    'Euler a': (dict(name='euler_ancestral'), {}),
    'Euler': (dict(name='euler'), {}),
    'LMS': (dict(name='lms'), {}),
    'Heun': (dict(name='heun'), {}),
    'DPM2': (dict(name='dpm2'), _KARRAS | _DISCARD),
    'DPM2 a': (dict(name='dpm2_ancestral'), _KARRAS | _DISCARD),
    'DPM fast': (dict(name='dpm_fast'), {}),
    'DPM adaptive': (dict(name='dpm_adaptive'), {}),
    'Restart': (dict(name='restart'), _KARRAS),
    'LCM': (dict(name='lcm'), {}),
    'DDIM': (dict(name='ddim'), dict(name='ddim')),
    'DDIM CFG++': (dict(name='euler_cfg_pp'), dict(name='ddim')),
    'PLMS': (dict(name='plms'), dict(name='ddim')),
    'UniPC': (dict(name='unipc', variant='bh1', max_order=3), {}),
    # A1111, by the names of its interface
    'k_euler_a': (dict(name='euler_ancestral'), {}),
    'k_euler_ancestral': (dict(name='euler_ancestral'), {}),
    'k_euler': (dict(name='euler'), {}),
    'k_lms': (dict(name='lms'), {}),
    'k_heun': (dict(name='heun'), {}),
    'k_dpm_2': (dict(name='dpm2'), _KARRAS | _DISCARD),
    'k_dpm_2_a': (dict(name='dpm2_ancestral'), _KARRAS | _DISCARD),
    'k_dpm_fast': (dict(name='dpm_fast'), {}),
    'k_dpm_ad': (dict(name='dpm_adaptive'), {}),
    'k_dpmpp_2m': (dict(name='dpmpp_2m'), _KARRAS),
    'k_dpmpp_sde': (dict(name='dpmpp_sde'), _KARRAS),
    'k_dpmpp_2m_sde': (dict(name='dpmpp_2m_sde', variant='midpoint'), _EXPONENTIAL),
    'k_dpmpp_2m_sde_heun': (dict(name='dpmpp_2m_sde', variant='heun'), _EXPONENTIAL),
    'k_dpmpp_2s_a': (dict(name='dpmpp_2s_ancestral'), _KARRAS),
    'k_dpmpp_3m_sde': (dict(name='dpmpp_3m_sde'), _EXPONENTIAL | _DISCARD),
    # CompVis' --dpm_solver
    'dpm_solver': (dict(name='dpm_solver_multistep'), dict(name='time_uniform')),
    # ComfyUI, where ours is called otherwise
    'dpm_2': (dict(name='dpm2'), _DISCARD),
    'dpm_2_ancestral': (dict(name='dpm2_ancestral'), _DISCARD),
    'dpmpp_sde_gpu': (dict(name='dpmpp_sde'), {}),
    'dpmpp_2m_sde': (dict(name='dpmpp_2m_sde', variant='midpoint'), {}),
    'dpmpp_2m_sde_gpu': (dict(name='dpmpp_2m_sde', variant='midpoint'), {}),
    'dpmpp_2m_sde_heun': (dict(name='dpmpp_2m_sde', variant='heun'), {}),
    'dpmpp_2m_sde_heun_gpu': (dict(name='dpmpp_2m_sde', variant='heun'), {}),
    'dpmpp_3m_sde_gpu': (dict(name='dpmpp_3m_sde'), {}),
    'uni_pc': (dict(name='unipc', variant='bh1', max_order=3), _DISCARD),
    'uni_pc_bh2': (dict(name='unipc', variant='bh2', max_order=3), _DISCARD),
    # diffusers, each class as it is when it takes the place of the scheduler in Stable Diffusion's repositories
    **{
        name: scheduler_config.read(_STABLE_DIFFUSION | dict(_class_name=name))
        for name in scheduler_config.SCHEDULERS
    },
    'IPNDMScheduler': (dict(name='ipndm'), {}),  # its levels are its own
}

GRIDS: dict[str, Spec] = {
    # A1111, by label; 'Automatic' is the sampler's own
    'Uniform': dict(name='normal'),
    'Karras': dict(name='karras'),
    'Exponential': dict(name='exponential'),
    'Polyexponential': dict(name='polyexponential'),
    'SGM Uniform': dict(name='sgm_uniform'),
    'SGMUniform': dict(name='sgm_uniform'),
    'KL Optimal': dict(name='kl_optimal', discard_next_to_last=1, end='first'),
    'Align Your Steps': dict(name='align_your_steps', discard_next_to_last=0),
    'Simple': dict(name='simple'),
    'Normal': dict(name='normal'),
    'DDIM': dict(name='ddim_uniform'),
    'Beta': dict(name='beta', of='noise'),
    'ka': dict(name='karras'),  # k_dpmpp_2m_ka
    'exp': dict(name='exponential'),
    # diffusers
    'use_karras_sigmas': dict(name='karras'),
    'use_exponential_sigmas': dict(name='exponential'),
    'use_beta_sigmas': dict(name='beta', of='noise'),
    'use_lu_lambdas': dict(name='exponential'),
}


def names() -> list[str]:
    """Our samplers that make images of noise; pipelines.invert has ddim_inverse, the other way, to itself."""
    return [name for name in build.names('samplers') if name != 'ddim_inverse']


def resolve(name: str, grid: str | None = None) -> tuple[Spec, Spec | None]:
    """The specs of a sampler and its grid, by the names of a public tool or of ours.

    Args:
        name: of a sampler, a grid's behind it or not: 'DPM++ 2M Karras', 'Euler a', 'euler_ancestral',
            'EulerAncestralDiscreteScheduler'. As it is written; failing that, in any case.
        grid: of a grid apart (A1111's schedule type, ComfyUI's scheduler); 'Automatic' is the sampler's own.

    Returns:
        Sampler spec and grid spec; the latter is None where the tool leaves it open.

    Raises:
        ValueError: no such sampler or grid; the message has the nearest names.
    """
    found = _find(SAMPLERS, names(), name)
    if found is None:
        name, grid = _split(name, grid)
        found = _find(SAMPLERS, names(), name)
    sampler, known = found if isinstance(found, tuple) else (found, {})
    if grid is not None and _plain(grid) != 'automatic':
        chosen = _find(GRIDS, grids.names(), grid)
        if chosen is None:
            raise _unknown('grid', grid, [*GRIDS, *grids.names()])
        if discard := known.get('discard_next_to_last', 0):  # beside what the grid itself is made by
            own = (grids.NAMED.get(chosen['name'], {}) | chosen).get('discard_next_to_last', 0)
            chosen = chosen | dict(discard_next_to_last=own + discard)
        known = chosen
    if not known:
        return dict(sampler), None
    return dict(sampler), dict(name='normal') | known


def _find(table: Mapping[str, Any], ours: list[str], name: str) -> Any:
    """What a table has for a name: as it is written, else our own or a dotted one, else in any case; or None."""
    if name in table:
        return table[name]
    if name in ours or re.fullmatch(r'\w+(\.\w+)+', name):
        return dict(name=name)
    plain = {_plain(key): value for key, value in reversed(list(table.items()))}  # the first of two stays
    return plain.get(_plain(name))


def _split(name: str, grid: str | None) -> tuple[str, str | None]:
    """A sampler's name without that of a grid behind it, and the grid's unless another is asked for."""
    for suffix in sorted([*GRIDS, *grids.names(), 'Automatic'], key=len, reverse=True):
        rest = _plain(name).removesuffix(f' {_plain(suffix)}')
        if rest != _plain(name) and _find(SAMPLERS, names(), rest) is not None:
            # As it is written where it is: A1111's 'Beta' is not ComfyUI's 'beta'.
            kept = next(name[:i] for i in range(len(name)) if _plain(name[:i]) == rest)
            return kept.strip(), grid or (suffix if name.endswith(suffix) else _plain(suffix))
    raise _unknown('sampler', name, [*SAMPLERS, *names()])


def _plain(name: str) -> str:
    return re.sub('[ _-]+', ' ', name.strip().casefold())


def _unknown(kind: str, name: str, have: list[str]) -> ValueError:
    plain = {_plain(key): key for key in reversed(have)}  # the first of two stays
    near = difflib.get_close_matches(_plain(name), plain, n=5, cutoff=0.5)
    found = (
        f'the nearest are {[plain[key] for key in near]}, and tools/sample.py --list_samplers lists all'
        if near
        else 'tools/sample.py --list_samplers lists them'
    )
    return ValueError(f'No {kind} {name!r}; {found}.')
