"""Specs to objects: dict(name='ddim', eta=0.5) means Sampler(eta=0.5) of ldm_jax/samplers/ddim.py.

A component's name is its module, so there is no registry to keep and no import for its side effects. Where a
family is functions of one module (weightings, grids, ...) a name is one of its table. A name with a dot is any
importable module, or a function of one, so an experiment keeps its own part beside it.
"""

from __future__ import annotations

import dataclasses
import difflib
import functools
import importlib
import inspect
import pkgutil
import re
from collections.abc import Callable, Mapping, Sequence
from types import ModuleType
from typing import Any

LISTED = 400  # characters of known names that an error lists
CLASSES = {
    'schedules': 'Schedule',
    'samplers': 'Sampler',
    'models': 'Model',
    'conditioning': 'Conditioning',
    'text': 'Tokenizer',
    'data': 'Source',
    'training.stages': 'Stage',
    'evaluation': 'Metric',
    'evaluation.protocols': 'Protocol',
    'sweeps.kinds': 'Kind',
}

COMPONENTS = {
    'schedule': 'schedules',
    'tokenizer': 'text',
    'tokenizer_2': 'text',
}  # a config's, beside its networks


def names(family: str) -> list[str]:
    """The components of a family (a key of CLASSES): its modules with the family's class. None of them is imported."""
    return list(_names(family))


@functools.cache
def _names(family: str) -> tuple[str, ...]:
    package = importlib.import_module(f'ldm_jax.{family}')
    defined = re.compile(rf'^class {CLASSES[family]}\b', re.MULTILINE)
    found = []
    for info in pkgutil.iter_modules(package.__path__):
        finder: Any = info.module_finder
        loader = finder.find_spec(info.name).loader
        if not info.ispkg and defined.search(loader.get_source(info.name)):
            found.append(info.name)
    return tuple(sorted(found))


def build(family: str, spec: Mapping[str, Any]) -> Any:
    """The object that a spec describes: its 'name' picks the module, the rest are the fields.

    Args:
        family: a key of CLASSES, such as 'samplers'.
        spec: a mapping with 'name'. Lists become tuples, and a 'dtype' string a dtype, so that
            the object stays hashable. A field that is a spec itself is built, of the same family.

    Raises:
        ValueError: no such family, module or field; the message lists what there is.

    >>> build('schedules', dict(name='cosine', shift=2.0))
    Schedule(shift=2.0, num_train_steps=1000)
    >>> build('schedules', dict(name='cosinus'))
    Traceback (most recent call last):
    ValueError: No schedules module 'cosinus'; have ['cosine', ...]. Did you mean 'cosine'?
    """
    settings = {key: _setting(family, key, value) for key, value in spec.items()}
    name = settings.pop('name', None)
    if name is None:
        raise ValueError(f"A {family} spec needs a 'name'; got {dict(spec)}. Have {names(family)}.")
    made = component(family, name)
    declared = [
        field for field in dataclasses.fields(made) if field.init and field.name not in ('parent', 'name')
    ]
    fields = [field.name for field in declared]
    for key in settings:
        if key not in fields:
            raise unknown(f'field of {family}/{name}', key, fields)
    missing = [
        field.name
        for field in declared
        if field.default is field.default_factory is dataclasses.MISSING and field.name not in settings
    ]
    if missing:
        raise ValueError(f'{family}/{name} needs {missing}; got {sorted(settings)}.')
    return made(**settings)


def component(family: str, name: str) -> Any:
    """The class of a component. Raises ValueError for an unknown family or name; the message lists what there is."""
    if family not in CLASSES:
        raise ValueError(f'No family {family!r}; have {sorted(CLASSES)}.')
    module = _imported(name if '.' in str(name) else f'ldm_jax.{family}.{name}')
    if not hasattr(module, CLASSES[family]):
        raise unknown(f'{family} module', name, names(family))
    return getattr(module, CLASSES[family])


def parts(config: Mapping[str, Any]) -> dict[str, Any]:
    """The networks that a config names: part -> model, of `config['models']`."""
    return {part: build('models', spec) for part, spec in config['models'].items()}


def components(config: Mapping[str, Any]) -> dict[str, Any]:
    """The schedule and the tokenizers that a config names: key -> object, for those of COMPONENTS that it has."""
    return {
        key: build(family, config[key]) for key, family in COMPONENTS.items() if config.get(key) is not None
    }


def function(kind: str, table: Mapping[str, Callable], spec: str | Mapping[str, Any]) -> Callable:
    """The function, or class, that a spec names: 'name' or dict(name=..., **knobs), with its knobs bound.

    Args:
        kind: what it is, for messages.
        table: those of ldm_jax, by name. A name with a dot is one of any importable module: 'my_project.losses.welsch'.
        spec: knobs are keyword-only arguments; lists become tuples.

    Raises ValueError for an unknown name or knob, with the nearest, and for a knob that is missing.
    """
    fields = {'name': spec} if isinstance(spec, str) else dict(spec.items())
    if 'name' not in fields:
        raise ValueError(f"A {kind} spec needs a 'name'; got {fields}. Have {sorted(table)}.")
    name = fields.pop('name')
    found = chosen(kind, table, name)
    parameters = inspect.signature(found).parameters.values()
    knobs = [p.name for p in parameters if p.kind is p.KEYWORD_ONLY]
    for key, value in fields.items():
        if key not in knobs and all(p.kind is not p.VAR_KEYWORD for p in parameters):
            raise unknown(f'knob of {kind} {name}', key, knobs)
        fields[key] = tuple(value) if isinstance(value, list) else value  # JSON has no tuples
    for p in parameters:
        if p.kind is p.KEYWORD_ONLY and p.default is p.empty and p.name not in fields:
            raise ValueError(
                f'{kind.capitalize()} {name!r} needs {p.name}: dict(name={name!r}, {p.name}=...).'
            )
    return functools.partial(found, **fields) if fields else found


def chosen(kind: str, table: Mapping[str, Callable], name: str) -> Callable:
    """A function or class, by its name in a table or a dotted one in any module. Raises ValueError for neither."""
    found = _attribute(kind, name) if '.' in str(name) else table.get(name)
    if found is None:
        raise unknown(kind, name, sorted(table))
    return found


def unknown(kind: str, value: Any, have: Sequence[str]) -> ValueError:
    """The error for an unknown name, with the nearest known one, and all of them while a line holds them."""
    near = difflib.get_close_matches(str(value), have, n=1)
    hint = f' Did you mean {near[0]!r}?' if near else ''
    listed = str(list(have)) if have else 'none'
    if len(listed) > LISTED:
        nearest = difflib.get_close_matches(str(value), have, n=8, cutoff=0.0)
        listed = f'{len(have)} of them, among which {sorted(nearest)}'
    return ValueError(f'No {kind} {value!r}; have {listed}.{hint}')


def _attribute(kind: str, dotted: str) -> Callable | None:
    """The function of a dotted name, or None where there is no such module."""
    path, _, attribute = dotted.rpartition('.')
    module = _imported(path)
    if module is None or hasattr(module, attribute):
        return getattr(module, attribute, None)
    have = [name for name, value in vars(module).items() if callable(value) and not name.startswith('_')]
    raise unknown(f'{kind} in module {path}', attribute, have)


def _imported(path: str) -> ModuleType | None:
    """The module of a dotted path, or None where there is none; an import that fails inside it is its own error."""
    try:
        return importlib.import_module(path)
    except ModuleNotFoundError as error:
        if not f'{path}.'.startswith(f'{error.name}.'):
            raise
        return None


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
