"""The fields that a config may have at each place, and the kind of value of each.

They are read off the components: fields of a dataclass, or keyword arguments of a function. A new component's need no
word here.
"""

from __future__ import annotations

import dataclasses
import inspect
import typing
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ldm_jax import build
from ldm_jax.diffusion import loss, parameterization, weighting
from ldm_jax.diffusion import timestep_sampling as times
from ldm_jax.training import ema, lr_schedules, optimizer
from ldm_jax.training.parallel.backend import Parallel
from ldm_jax.training.run import Evaluate, Loader, Run
from ldm_jax.training.stages.samples import Samples

Fields = Mapping[str, Any]  # name -> annotation of its values
ANY = Any

SPECS = {'schedule': 'schedules', 'tokenizer': 'text', 'tokenizer_2': 'text'}
SPECS |= {'data': 'data', 'stage': 'training.stages'}
GROUPS = (*SPECS, 'models', 'pretrained', 'optimizer', 'discriminator_optimizer', 'run', 'export')
TOP: Fields = {name: dict for name in GROUPS} | {
    'warm_start': str | None,
    'scaling_factor': float | None,
    'latent_size': int,
    'image_size': int,
    'context_length': int,
    'sampling': ANY,
    'parameterization': ANY,
    'loss': ANY,
}
# What from_config gives a stage; a config has it elsewhere.
GIVEN = {
    'unet',
    'first_stage',
    'text_encoder',
    'text_encoder_2',
    'class_embedder',
    'rescaler',
    'image_encoder',
}
GIVEN |= {'image_normalizer', 'perceptual', 'discriminator', 'schedule', 'tokenizer', 'tokenizer_2'}
GIVEN |= {'frozen', 'warm_start', 'pretrained', 'null'}
OBJECTIVE = {
    'parameterization': parameterization.PARAMETERIZATIONS,
    'loss': loss.DISTANCES,
    'weighting': weighting.WEIGHTINGS,
    'times': times.QUANTILES | {'importance': times.Importance},
}


def fields(config: Mapping[str, Any], path: Sequence[str]) -> Fields | None:
    """The fields that may stand at a path of a config, such as ('run', 'ema', 'main'); None where any may.

    Raises ValueError for a path to something that has no fields, and for an unknown component.
    """
    spec = _at(config, path)
    match tuple(path):
        case ():
            return TOP
        case ('models' | 'pretrained',) | ('run', 'ema') | ('stage', 'conditioning') | ('sampling', *_):
            return None
        case ('models', _):
            return component('models', spec)
        case ('pretrained', _):
            known = component('models', spec)
            return known and {'model': str} | known
        case ('stage',):
            known = component('training.stages', spec)
            return known and {name: hint for name, hint in known.items() if name not in GIVEN}
        case ('stage', 'objective'):
            return keywords(loss.objective)
        case ('stage', 'objective', name) if name in OBJECTIVE:
            return knobs(name, OBJECTIVE[name], spec)
        case ('stage', 'conditioning', name):
            return component('conditioning', {'name': name} | dict(spec))
        case ('stage', 'samples'):
            return fields_of(Samples)
        case ('optimizer' | 'discriminator_optimizer',):
            rule = {'name': 'adamw'} | dict(spec)
            if path[0] == 'discriminator_optimizer':
                rule = {'name': config.get('optimizer', {}).get('name', 'adamw')} | dict(spec)
            known = knobs('optimizer', optimizer.RULES, rule)
            return known and keywords(optimizer.optimizer) | known
        case ('optimizer' | 'discriminator_optimizer', 'curve'):
            return knobs('learning-rate curve', lr_schedules.CURVES, spec)
        case ('run',):
            return fields_of(Run)
        case ('run', 'ema', _):
            return knobs('moving average', ema.DECAYS, spec)
        case ('run', 'parallel'):
            return fields_of(Parallel)
        case ('run', 'loader'):
            return fields_of(Loader)
        case ('run', 'evaluate'):
            return fields_of(Evaluate)
        case ('export',):
            return {'dtype': str}
        case (first, *rest) if first in SPECS and (not rest or 'name' in spec):
            return component(SPECS[first], spec)
        case (first, *rest) if rest and first in SPECS:
            return None  # a mapping of a component's own, such as data.select
    raise ValueError(f'{".".join(path)} is a value; it has no fields')


def component(family: str, spec: Mapping[str, Any]) -> Fields | None:
    """The fields of a spec's component and its name; None without a name, which then comes from another model."""
    if not isinstance(spec.get('name'), str):
        return None
    return {'name': str} | fields_of(build.component(family, spec['name']))


def knobs(kind: str, table: Mapping[str, Callable[..., Any]], spec: Mapping[str, Any]) -> Fields | None:
    """The knobs of a spec's function and its name; None of a function elsewhere, by its dotted name."""
    name = spec.get('name')
    if name is None:
        raise ValueError(f"A {kind} needs a 'name'; have {sorted(table)}.")
    if '.' in name:
        return None
    if name not in table:
        raise build.unknown(kind, name, sorted(table))
    return {'name': str} | keywords(table[name])


def keywords(function: Callable[..., Any]) -> Fields:
    """The keyword-only arguments of a function."""
    parameters = inspect.signature(function).parameters.values()
    hints = _hints(function)
    return {p.name: hints.get(p.name, ANY) for p in parameters if p.kind is p.KEYWORD_ONLY}


def fields_of(cls: type) -> Fields:
    """The fields of a dataclass that are set when it is made."""
    hints = _hints(cls)
    return {
        field.name: hints.get(field.name, ANY)
        for field in dataclasses.fields(cls)
        if field.init and field.name not in ('parent', 'name')
    }


def _hints(thing: Any) -> Mapping[str, Any]:
    try:
        return typing.get_type_hints(thing)
    except (NameError, TypeError):  # names that are imported for type checkers alone
        return {}


def _at(config: Mapping[str, Any], path: Sequence[str]) -> Mapping[str, Any]:
    found: Any = config
    for name in path:
        found = found.get(name, {}) if isinstance(found, Mapping) else {}
    return found if isinstance(found, Mapping) else {}
