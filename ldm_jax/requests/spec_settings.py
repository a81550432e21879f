"""Samplers and grids with knobs, dict(name='euler', s_churn=0.5), as settings in the text of PNG files, and back.

A knob that the web UI has too is a setting of its own under that name; all others are one setting in JSON.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

from ldm_jax.diffusion import aliases
from ldm_jax.inference.settings import SAMPLER, Sampling

NAMES = {'sampler': 'Sampler', 'grid': 'Schedule type'}  # field of Sampling -> its setting
KNOBS = {  # setting -> field of Sampling, and the knob of its spec
    'Sigma churn': ('sampler', 's_churn'),
    'Sigma tmin': ('sampler', 's_tmin'),
    'Sigma tmax': ('sampler', 's_tmax'),
    'Sigma noise': ('sampler', 's_noise'),
    'UniPC order': ('sampler', 'max_order'),
    'UniPC variant': ('sampler', 'variant'),
    'UniPC lower order final': ('sampler', 'lower_order_final'),
    'Schedule rho': ('grid', 'rho'),
    'Schedule min sigma': ('grid', 'sigma_min'),
    'Schedule max sigma': ('grid', 'sigma_max'),
    'Beta schedule alpha': ('grid', 'alpha'),
    'Beta schedule beta': ('grid', 'beta'),
}
CLASS = '_class_name'  # of a scheduler's config of diffusers, which is a spec too
REST = {'Sampler settings': 'sampler', 'Schedule settings': 'grid'}


def write(field: str, spec: Mapping[str, Any]) -> dict[str, str]:
    """Settings of a spec of a sampler or a grid."""
    rest = {knob: value for knob, value in spec.items() if knob != 'name'}
    found = {NAMES[field]: str(spec.get('name', spec.get(CLASS)))}
    for name, (of, knob) in KNOBS.items():
        if of == field and isinstance(rest.get(knob), int | float | str):
            found[name] = str(rest.pop(knob))
    if rest:
        found |= {name: json.dumps(rest) for name, of in REST.items() if of == field}
    return found


def read(settings: dict[str, str], fields: dict[str, Any]) -> None:
    """Takes knobs out of the settings and puts specs in place of names into the fields of a Sampling.

    Knobs that the sampler or the grid does not have stay among the settings.
    """
    given: dict[str, dict[str, dict[str, Any]]] = {'sampler': {}, 'grid': {}}  # field -> setting -> knobs
    for name, (field, knob) in KNOBS.items():
        if name in settings:
            given[field][name] = {knob: _value(settings[name])}
    for name, field in REST.items():
        if name in settings and isinstance(rest := _value(settings[name]), dict):
            given[field][name] = rest
    if settings.get('Discard penultimate sigma') == 'True':
        given['grid']['Discard penultimate sigma'] = dict(discard_next_to_last=1)
    for field, named in given.items():
        if not named:
            continue
        knobs = _joined(named.values())
        changed = fields | {field: knobs if CLASS in knobs else _name(field, fields) | knobs}
        try:
            Sampling(changed.get('sampler'), changed.get('grid'))
        except ValueError:
            continue
        fields[field] = changed[field]
        for name in named:
            del settings[name]


def _name(field: str, fields: Mapping[str, Any]) -> dict[str, Any]:
    """The spec so far: a grid's own, whatever tool it is named after."""
    sampler = fields.get('sampler', SAMPLER)
    if field == 'sampler':
        return dict(name=sampler)
    name = sampler if isinstance(sampler, str) else sampler['name']
    return dict(aliases.resolve(name, fields.get('grid'))[1] or dict(name='trailing'))


def _joined(knobs: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    return {name: value for each in knobs for name, value in each.items()}


def _value(text: str) -> Any:
    """A value from its text: a number, true or false, JSON, or the text itself."""
    try:
        return json.loads({'True': 'true', 'False': 'false', 'inf': 'Infinity'}.get(text, text))
    except (json.JSONDecodeError, RecursionError):
        return text
