"""diffusers' scheduler_config.json as a sampler and a grid of ours; scheduler_config_inverse.py is the way back.

The noise schedule and what the network predicts are in the same file and are not read here. What has no counterpart
is an error that names the class and the field; fields of other classes are ignored, as diffusers does.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import Any

from ldm_jax.build import unknown

Spec = dict[str, Any]
Fields = Mapping[str, Any]

# Where a file is silent, for classes that do not say otherwise below.
DEFAULTS: Spec = dict(
    steps_offset=0, timestep_spacing='linspace', final_sigmas_type='zero', interpolation_type='linear',
    use_karras_sigmas=False, use_exponential_sigmas=False, use_beta_sigmas=False, use_lu_lambdas=False,
    sigma_min=None, sigma_max=None, lambda_min_clipped=-math.inf, clip_sample=False, clip_sample_range=1.0,
    set_alpha_to_one=True, skip_prk_steps=False, solver_order=2, solver_type='midpoint', algorithm_type='dpmsolver++',
    lower_order_final=True, euler_at_final=False, predict_x0=True, disable_corrector=(), variance_type=None,
    original_inference_steps=50, predictor_order=2, corrector_order=2, beta_schedule='linear', rho=7.0,
    sigma_schedule='karras', shift=1.0, num_train_timesteps=1000,
)  # fmt: skip
# The only values that have a counterpart.
ONLY: Spec = dict(
    thresholding=False, use_flow_sigmas=False, use_dynamic_shifting=False, timestep_type='discrete',
    invert_sigmas=False, shift_terminal=None, stochastic_sampling=False, solver_p=None,
)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Scheduler:
    """A class of diffusers: functions of its config's fields."""

    sampler: Callable[[Fields], Spec]
    grid: Callable[[Fields], Spec]
    defaults: Spec = dataclasses.field(default_factory=dict)  # where they are not those of all


def read(config: Fields) -> tuple[Spec, Spec]:
    """The specs of sampler and grid of a scheduler config, which names its class in `_class_name`.

    Raises ValueError for a class or a setting without a counterpart here.
    """
    name = config.get('_class_name')
    if name not in SCHEDULERS:
        raise unknown('scheduler of diffusers', str(name), sorted(SCHEDULERS))
    scheduler = SCHEDULERS[name]
    given = {key: value for key, value in config.items() if value is not None}
    fields = DEFAULTS | scheduler.defaults | given
    for field, only in ONLY.items():
        if fields.get(field, only) != only:
            raise _unsupported(field, fields[field], [only])
    try:
        return scheduler.sampler(fields), scheduler.grid(fields)
    except ValueError as error:
        raise ValueError(f'{name}: {error}') from None


# Samplers


def _fixed(name: str, **settings: Any) -> Callable[[Fields], Spec]:
    return lambda fields: dict(name=name, **settings)


def _clipped(name: str) -> Callable[[Fields], Spec]:
    def sampler(fields: Fields) -> Spec:
        spec: Spec = dict(name=name)
        if fields['clip_sample']:
            spec['clip_sample'] = float(fields['clip_sample_range'])
        if name == 'ddpm' and fields['variance_type'] != 'fixed_small':
            spec['variance'] = _one_of(fields, 'variance_type', ['fixed_large'])
        if name == 'ddim' and fields['timestep_spacing'] != 'leading':
            spec['even_stride'] = True
        return spec

    return sampler


def _pndm(fields: Fields) -> Spec:
    _one_of(fields, 'timestep_spacing', ['leading'])  # its strides are whole, other spacings' are not
    return dict(name='pndm', skip_prk_steps=fields['skip_prk_steps'])


def _multistep(fields: Fields) -> Spec:
    algorithm = _one_of(fields, 'algorithm_type', ['dpmsolver', 'dpmsolver++', 'sde-dpmsolver++', 'deis'])
    final = dict(lower_order_final=fields['lower_order_final'], euler_at_final=fields['euler_at_final'])
    if algorithm.startswith('sde'):
        _one_of(fields, 'solver_order', [2])
        return dict(name='dpmpp_2m_sde', variant=_solver_type(fields), **final)
    variant = algorithm.replace('deis', 'dpmsolver++')  # what the class makes of it
    order = fields['solver_order']
    return dict(
        name='dpm_solver_multistep',
        max_order=order,
        variant=variant,
        solver_type=_solver_type(fields),
        **final,
    )


def _singlestep(fields: Fields) -> Spec:
    return dict(
        name='dpm_solver_singlestep',
        max_order=fields['solver_order'],
        variant=_one_of(fields, 'algorithm_type', ['dpmsolver', 'dpmsolver++']),
        solver_type=_solver_type(fields),
        lower_order_final=fields['lower_order_final'],
    )


def _deis(fields: Fields) -> Spec:
    return dict(name='deis', max_order=fields['solver_order'], lower_order_final=fields['lower_order_final'])


def _unipc(fields: Fields) -> Spec:
    variant = fields['solver_type']
    return dict(
        name='unipc',
        max_order=fields['solver_order'],
        variant=variant if variant in ('bh1', 'bh2') else 'bh2',  # as the class does
        lower_order_final=fields['lower_order_final'],
        predict_x0=fields['predict_x0'],
        disable_corrector=tuple(fields['disable_corrector']),
    )


def _sa_solver(fields: Fields) -> Spec:
    _one_of(fields, 'algorithm_type', ['data_prediction'])
    return dict(
        name='sa_solver',
        predictor=fields['predictor_order'],
        corrector=fields['corrector_order'],
        lower_order_final=fields['lower_order_final'],
    )


def _solver_type(fields: Fields) -> str:
    return 'heun' if fields['solver_type'] == 'heun' else 'midpoint'  # what the classes make of each other's


# Grids


def _whole(fields: Fields) -> Spec:
    """Whole times, to clean data or to the first level."""
    return _spaced(fields) | dict(end='clean' if fields['set_alpha_to_one'] else 'first')


def _to_clean(fields: Fields) -> Spec:
    return _whole(dict(fields, set_alpha_to_one=True))


def _exploding(karras: str) -> Callable[[Fields], Spec]:
    """The grids of samplers that hold x over alpha; karras: how they round the times of Karras' sigmas."""

    def grid(fields: Fields) -> Spec:
        end = _end(fields)
        if by_noise := _by_noise(fields, karras, 'exact'):
            if (spacing := fields['timestep_spacing']) != 'linspace':
                if spacing == 'leading':
                    _one_of(fields, 'steps_offset', [1])
                by_noise |= dict(within=spacing)
            return by_noise | dict(end=end)
        spec = _spaced(fields)
        if fields['timestep_spacing'] == 'linspace':
            spec |= dict(rounded=False, interpolation='linear')
        if _one_of(fields, 'interpolation_type', ['linear', 'log_linear']) == 'log_linear':
            return spec | dict(interpolation='log_linear', end='first')
        return spec | dict(end=end)

    return grid


def _inner(always: str | None = None) -> Callable[[Fields], Spec]:
    """Whole times without the one next to the end; always: where the last step ends whatever the config says."""

    def grid(fields: Fields) -> Spec:
        rounding = 'floor' if fields['beta_schedule'] == 'squaredcos_cap_v2' else 'rounded'
        if by_noise := _by_noise(fields, rounding, 'floor'):
            if always:
                raise ValueError('steps by noise end where the last one starts; take steps by time.')
            return by_noise | dict(end=_end(fields))
        spec = _spaced(fields)
        spec.pop('one_at_last', None)
        if spec['name'] != 'trailing':
            spec['name'] = f'dpm_{spec["name"]}'
        if math.isfinite(low := fields['lambda_min_clipped']):
            spec['lambda_min'] = low
        return spec | dict(end=always or _end(fields))

    return grid


def _distilled(end: str) -> Callable[[Fields], Spec]:
    return lambda fields: dict(name='lcm', original_steps=fields['original_inference_steps'], end=end)


def _edm(fields: Fields) -> Spec:
    _one_of(fields, 'final_sigmas_type', ['zero'])
    name = _one_of(fields, 'sigma_schedule', ['karras', 'exponential'])
    return dict(name=name, rho=fields['rho']) if name == 'karras' else dict(name=name)


def _flow(fields: Fields) -> Spec:
    for flag in ('use_karras_sigmas', 'use_exponential_sigmas', 'use_beta_sigmas'):
        _one_of(fields, flag, [False])
    share, shift = 1 / fields['num_train_timesteps'], fields['shift']
    # The shift is applied to a range whose lower end is shifted already.
    lowest = shift * share / (1 + (shift - 1) * share) / share - 1
    return dict(name='linspace', rounded=False, last=lowest)


def _spaced(fields: Fields) -> Spec:
    name = _one_of(fields, 'timestep_spacing', ['leading', 'linspace', 'trailing'])
    own = {'leading': dict(steps_offset=fields['steps_offset']), 'linspace': dict(one_at_last=True)}
    return dict(name=name) | own.get(name, {})


def _by_noise(fields: Fields, karras: str, others: str) -> Spec:
    """The grid of the flag that is set, nothing where none is; karras, others: how the network's times are rounded."""
    if fields['use_karras_sigmas']:
        spec = dict(name='karras', network_time=karras)
    elif fields['use_lu_lambdas']:
        spec = dict(name='exponential', network_time=karras)
    elif fields['use_exponential_sigmas']:
        spec = dict(name='exponential', network_time=others)
    elif fields['use_beta_sigmas']:
        return dict(name='beta', of='noise', network_time=others)
    else:
        return {}
    return spec | {end: fields[end] for end in ('sigma_min', 'sigma_max') if fields[end] is not None}


def _end(fields: Fields) -> str:
    return {'zero': 'clean', 'sigma_min': 'first'}[
        _one_of(fields, 'final_sigmas_type', ['zero', 'sigma_min'])
    ]


def _one_of(fields: Fields, field: str, have: list[Any]) -> Any:
    if fields[field] not in have:
        raise _unsupported(field, fields[field], have)
    return fields[field]


def _unsupported(field: str, value: Any, have: list[Any]) -> ValueError:
    return ValueError(f'{field} {value!r} has no counterpart here; have {have}.')


_LEADING: Spec = dict(timestep_spacing='leading')
SCHEDULERS: dict[str, Scheduler] = {
    'DDIMScheduler': Scheduler(_clipped('ddim'), _whole, _LEADING | dict(clip_sample=True)),
    'DDPMScheduler': Scheduler(
        _clipped('ddpm'), _to_clean, _LEADING | dict(clip_sample=True, variance_type='fixed_small')
    ),
    'PNDMScheduler': Scheduler(_pndm, _whole, _LEADING | dict(set_alpha_to_one=False)),
    'EulerDiscreteScheduler': Scheduler(_fixed('euler'), _exploding('exact')),
    'EulerAncestralDiscreteScheduler': Scheduler(_fixed('euler_ancestral'), _exploding('exact')),
    'HeunDiscreteScheduler': Scheduler(_fixed('heun'), _exploding('exact')),
    'LMSDiscreteScheduler': Scheduler(_fixed('lms'), _exploding('exact')),
    'KDPM2DiscreteScheduler': Scheduler(_fixed('dpm2'), _exploding('rounded')),
    'KDPM2AncestralDiscreteScheduler': Scheduler(_fixed('dpm2_ancestral'), _exploding('rounded')),
    'DPMSolverSDEScheduler': Scheduler(_fixed('dpmpp_sde'), _exploding('exact')),
    'DPMSolverMultistepScheduler': Scheduler(_multistep, _inner()),
    'DPMSolverSinglestepScheduler': Scheduler(
        _singlestep, lambda fields: _inner()(dict(fields, timestep_spacing='linspace')), dict(lower_order_final=False)
    ),
    'DEISMultistepScheduler': Scheduler(_deis, _inner('first')),
    'UniPCMultistepScheduler': Scheduler(_unipc, _inner(), dict(solver_type='bh2')),
    'SASolverScheduler': Scheduler(_sa_solver, _inner('first'), dict(algorithm_type='data_prediction')),
    'LCMScheduler': Scheduler(_clipped('lcm'), _distilled('clean')),
    'TCDScheduler': Scheduler(_fixed('tcd'), _distilled('first')),
    'EDMEulerScheduler': Scheduler(_fixed('euler'), _edm),
    'EDMDPMSolverMultistepScheduler': Scheduler(_multistep, _edm),
    'FlowMatchEulerDiscreteScheduler': Scheduler(_fixed('euler'), _flow),
    'FlowMatchHeunDiscreteScheduler': Scheduler(_fixed('heun', flow=True), _flow),
}  # fmt: skip
