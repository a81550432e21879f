"""Specs to objects: dict(name='ddim', eta=0.5) means Sampler(eta=0.5) of ldm_jax/samplers/ddim.py.

A component's name is its module, so there is no registry to keep and no import for its side effects.
A name with a dot is any importable module, so an experiment keeps its own part beside it.
"""

from __future__ import annotations

import dataclasses
import difflib
import functools
import importlib
import inspect
import pkgutil
from collections.abc import Callable, Mapping
from typing import Any

CLASSES = {
    'schedules': 'Schedule',
    'samplers': 'Sampler',
    'models': 'Model',
    'conditioning': 'Conditioning',
    'text': 'Tokenizer',
    'data': 'Source',
    'training.stages': 'Stage',
}

COMPONENTS = {
    'schedule': 'schedules',
    'tokenizer': 'text',
    'tokenizer_2': 'text',
}  # a config's, beside its networks


def names(family: str) -> list[str]:
    """The components of a family (a key of CLASSES): its modules with the family's class."""
    package = importlib.import_module(f'ldm_jax.{family}')
    found = (info.name for info in pkgutil.iter_modules(package.__path__))
    return sorted(name for name in found if hasattr(_module(family, name), CLASSES[family]))


def build(family: str, spec: Mapping[str, Any]) -> Any:
    """The object that a spec describes: its 'name' picks the module, the rest are the fields.

    Args:
        family: a key of CLASSES, such as 'samplers'.
        spec: a mapping with 'name'. Lists become tuples, and a 'dtype' string a dtype, so that
            the object stays hashable. A field that is a spec itself is built, of the same family.

    Raises:
        ValueError: no such family, module or field; the message lists what there is.
    """
    if family not in CLASSES:
        raise ValueError(f'No family {family!r}; have {sorted(CLASSES)}.')
    settings = {key: _setting(family, key, value) for key, value in spec.items()}
    name = settings.pop('name', None)
    if name is None:
        raise ValueError(f"A {family} spec needs a 'name'; got {dict(spec)}. Have {names(family)}.")
    try:
        module = _module(family, name)
    except ModuleNotFoundError as error:
        # An import that fails inside the module is that module's own error, not a wrong name.
        wanted = name if '.' in name else f'ldm_jax.{family}.{name}'
        if not f'{wanted}.'.startswith(f'{error.name}.'):
            raise
        raise unknown(f'{family} module', name, names(family)) from None
    if not hasattr(module, CLASSES[family]):
        raise unknown(f'{family} module', name, names(family))
    component = getattr(module, CLASSES[family])
    fields = [f.name for f in dataclasses.fields(component) if f.init and f.name not in ('parent', 'name')]
    for key in settings:
        if key not in fields:
            raise unknown(f'field of {family}/{name}', key, fields)
    return component(**settings)


def parts(config: Mapping[str, Any]) -> dict[str, Any]:
    """The networks that a config names: part -> model, of `config['models']`."""
    return {part: build('models', spec) for part, spec in config['models'].items()}


def components(config: Mapping[str, Any]) -> dict[str, Any]:
    """The schedule and the tokenizers that a config names: key -> object, for those of COMPONENTS that it has."""
    return {
        key: build(family, config[key]) for key, family in COMPONENTS.items() if config.get(key) is not None
    }


def function(kind: str, table: Mapping[str, Callable], spec: str | Mapping[str, Any]) -> Callable:
    """The function of a table that a spec names, 'name' or dict(name=..., **knobs), with its knobs bound.

    Knobs are its keyword-only arguments. Raises ValueError for a name or a knob that there is not.
    """
    fields = {'name': spec} if isinstance(spec, str) else dict(spec.items())
    if 'name' not in fields:
        raise ValueError(f"A {kind} spec needs a 'name'; got {fields}. Have {sorted(table)}.")
    name = fields.pop('name')
    if name not in table:
        raise unknown(kind, name, sorted(table))
    knobs = [p.name for p in inspect.signature(table[name]).parameters.values() if p.kind is p.KEYWORD_ONLY]
    for key, value in fields.items():
        if key not in knobs:
            raise unknown(f'knob of {kind} {name}', key, knobs)
        fields[key] = tuple(value) if isinstance(value, list) else value  # JSON has no tuples
    return functools.partial(table[name], **fields)


def unknown(kind: str, value: str, have: list[str]) -> ValueError:
    """The error for a name that is not among those there are, with the nearest one where it is near."""
    near = difflib.get_close_matches(value, have, n=1)
    hint = f' Did you mean {near[0]!r}?' if near else ''
    return ValueError(f'No {kind} {value!r}; have {have}.{hint}')


def _module(family: str, name: str) -> Any:
    return importlib.import_module(name if '.' in name else f'ldm_jax.{family}.{name}')


def _setting(family: str, key: str, value: Any) -> Any:
    if key == 'dtype' and isinstance(value, str):
        import jax.numpy as jnp

        return jnp.dtype(value)
    if isinstance(value, list | tuple):
        return tuple(_setting(family, '', item) for item in value)
    # By its methods: a ConfigDict is no Mapping.
    if hasattr(value, 'items') and isinstance(value.get('name'), str):
        return build(family, value)
    return value
