"""Fields of a config set from the command line: --config.optimizer.weight_decay=0.1.

Any field that the named components have can be set, whether the config's file writes it or not. Setting a `name`
chooses another component: fields that the new one lacks are dropped, those that both have stay.
"""

from __future__ import annotations

import ast
import copy
import dataclasses
import sys
import types
import typing
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ldm_jax.build import unknown
from ldm_jax.training.config_fields import ANY, fields

PREFIX = '--config.'


def apply(config: Mapping[str, Any], overrides: Iterable[tuple[str, str]]) -> dict[str, Any]:
    """The config with each (dotted name, text) set.

    Raises ValueError for an unknown field, with the nearest ones, and for a value of another kind.
    """
    config = copy.deepcopy(dict(config))
    given = [(tuple(name.split('.')), text) for name, text in overrides]
    # Names first: they decide which fields there are.
    for path, text in sorted(given, key=lambda pair: (pair[0][-1] != 'name', len(pair[0]))):
        _set(config, path, text)
    check(config)
    return config


def check(config: Mapping[str, Any]) -> None:
    """Raises ValueError when a config has a field that its place does not know, naming it and the nearest."""
    _check(config, config, ())


def parsed(name: str, text: str, hint: Any) -> Any:
    """A value of the kind that an annotation says, from text.

    Raises ValueError for text that is none.
    """
    kinds = _kinds(hint)
    if ANY in kinds:
        return _literal(text)
    if type(None) in kinds and text.lower() in ('none', 'null'):
        return None
    if bool in kinds and text.lower() in ('true', 'false'):
        return text.lower() == 'true'
    value = _literal(text)
    if isinstance(value, bool) and bool not in kinds:
        value = text
    if int in kinds and isinstance(value, float) and value.is_integer():
        value = int(value)  # 1e6
    if any(_is(value, kind) for kind in kinds):
        return float(value) if float in kinds and isinstance(value, int) and int not in kinds else value
    if str in kinds:
        return text
    if any(kind in (tuple, list) for kind in kinds) and not isinstance(value, dict):
        return [_literal(item) for item in text.split(',') if item]
    raise ValueError(f'{PREFIX}{name} takes {_names(kinds)}; got {text!r}.')


def _set(config: dict[str, Any], path: Sequence[str], text: str) -> None:
    """Sets one field, whose parents are made where they are not there."""
    node: Any = config
    for depth, name in enumerate(path[:-1]):
        _known(config, path[:depth], name)
        child = node.get(name)
        if isinstance(child, str):  # a name, or a model, alone
            child = {'model' if path[0] == 'pretrained' else 'name': child}
        if child is not None and not isinstance(child, dict):
            raise ValueError(f'{PREFIX}{".".join(path[: depth + 1])} is a value; give it whole.')
        node[name] = child = {} if child is None else child
        node = child
    here, field = path[:-1], path[-1]
    if field == 'name':
        _rename(config, here, node, text)
        return
    hint = _known(config, here, field)
    if hint is dict and not isinstance(_literal(text), dict):  # a component by its name alone
        _set(config, (*path, 'name'), text)
        return
    value = parsed('.'.join(path), text, hint)
    if isinstance(value, str) and isinstance(node.get(field), dict) and 'name' in node[field]:
        _rename(config, path, node[field], value)
    else:
        node[field] = value


def _rename(config: dict[str, Any], path: Sequence[str], node: dict[str, Any], name: str) -> None:
    """Another component in the place of one: what the new one lacks is dropped."""
    old = node.get('name')
    node['name'] = name
    have = fields(config, path)
    if have is not None and 'name' not in have:
        raise unknown(f'field of {".".join(path)}', 'name', sorted(have))
    if old == name or len(node) == 1:
        return
    dropped = [key for key in node if have is not None and key not in have]
    for key in dropped:
        del node[key]
    kept = [f'{key}={value!r}' for key, value in node.items() if key != 'name']
    print(
        f'{".".join(path)}: {name} instead of {old or "the default"}'
        + (f'; dropped {", ".join(dropped)}' if dropped else '')
        + (f'; kept {", ".join(kept)}' if kept else ''),
        file=sys.stderr,
    )


def _known(config: Mapping[str, Any], path: Sequence[str], name: str) -> Any:
    """The annotation of a field. Raises ValueError when there is none of that name at the path."""
    have = fields(config, path)
    if have is None:
        return ANY
    if name not in have:
        raise unknown(f'field of {".".join(path) or "the config"}', name, sorted(have))
    return have[name]


def _check(config: Mapping[str, Any], node: Mapping[str, Any], path: tuple[str, ...]) -> None:
    for name, value in node.items():
        _known(config, path, name)
        if isinstance(value, Mapping) and value:
            _check(config, value, (*path, name))


def _literal(text: str) -> Any:
    if text.lower() in ('true', 'false', 'none', 'null'):
        return {'true': True, 'false': False}.get(text.lower())
    try:
        value = ast.literal_eval(text)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return text
    return list(value) if isinstance(value, tuple) else value  # as JSON has it


def _kinds(hint: Any) -> set[Any]:
    """The plain types that an annotation allows; ANY for other annotations."""
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        return set().union(*map(_kinds, typing.get_args(hint)))
    plain = typing.get_origin(hint) or hint
    if plain in (bool, int, float, str, type(None)):
        return {plain}
    if dataclasses.is_dataclass(plain) or (isinstance(plain, type) and issubclass(plain, Mapping)):
        return {dict}
    if isinstance(plain, type) and issubclass(plain, Sequence):
        return {tuple}
    return {ANY}


def _is(value: Any, kind: Any) -> bool:
    if kind is tuple:
        return isinstance(value, list)
    if kind is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    return type(value) is kind


def _names(kinds: set[Any]) -> str:
    words = {bool: 'true or false', int: 'a whole number', float: 'a number', str: 'text', tuple: 'a list'}
    words |= {dict: 'fields', type(None): 'none'}
    return ' or '.join(sorted(words[kind] for kind in kinds))
