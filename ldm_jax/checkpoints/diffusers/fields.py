"""Reading a config.json strictly: a field that cannot be expressed is an error, one that is not read must be inert."""

from __future__ import annotations

import dataclasses
import importlib
import json
import math
import pathlib
from collections.abc import Collection, Mapping
from typing import Any

from ldm_jax import build

VERSION = '0.42.1'  # of diffusers, whose format is written

MAX_SIZE, MAX_DEPTH = 2**24, 256  # of widths and the like, and of layers: beyond those of any network

# What keys hold, by an example, whose default is null.
WHERE_NULL = {
    'attn_norm_num_groups': 1,
    'num_class_embeds': 1,
    'projection_class_embeddings_input_dim': 1,
    'reverse_transformer_layers_per_block': [1],
    'time_cond_proj_dim': 1,
    'latents_mean': [1.0],
    'latents_std': [1.0],
}

Spec = dict[str, Any]


class Fields:
    """The entries of one config.json, with the defaults of its class, and the record of which were read.

    Args:
        config: the JSON object.
        where: what errors call it, such as 'unet/config.json'.
        defaults: key -> what the class takes where the key is missing.
    """

    def __init__(self, config: Mapping[str, Any], where: str, defaults: Mapping[str, Any]):
        self.config, self.where, self.defaults = config, where, defaults
        self.used: set[str] = set()

    def __call__(self, key: str) -> Any:
        """The value of a key, or its default. Raises ValueError for a value of another kind than the default's."""
        return self._checked(key, self.config.get(key, self.defaults[key]), self.defaults[key])

    def only(self, key: str, *supported: Any) -> Any:
        """The value of a key that must be one of these; the first is the class's default.

        Raises ValueError for another.
        """
        self.used.add(key)
        value = self.config.get(key, supported[0])
        if not any(_same(value, one) for one in supported):
            shown = ' or '.join(map(repr, supported))
            raise self.error(key, value, f'only {shown} is supported')
        return value

    def levels(self, key: str, count: int) -> list:
        """The value of a key for each of `count` levels; a single one holds for all.

        Raises ValueError for a list of another length.
        """
        default = self.defaults[key]
        one = default[0] if isinstance(default, list) else default
        value = self.config.get(key, default)
        if not isinstance(value, list | tuple):
            return [self._checked(key, value, one)] * count
        if len(value) != count:
            raise self.error(key, value, f'there must be one entry for each of the {count} levels')
        return list(self._checked(key, value, [one]))

    def built(self, family: str, spec: Spec, keys: str) -> Spec:
        """The spec, once it can be built. Raises ValueError naming the keys that it was made of."""
        try:
            build.build(family, spec)
        except (ValueError, TypeError, ArithmeticError) as error:
            raise ValueError(f'{self.where}: {keys} make no {family}/{spec["name"]}: {error}') from error
        return spec

    def error(self, key: str, value: Any, expected: str) -> ValueError:
        """The error of a value that cannot be expressed."""
        shown = repr(value)
        shown = shown if len(shown) <= 120 else shown[:120] + '...'
        return ValueError(f'{self.where}: {key} is {shown}; {expected}.')

    def _checked(self, key: str, value: Any, default: Any) -> Any:
        self.used.add(key)
        most = MAX_DEPTH if 'layers' in key or 'blocks' in key else MAX_SIZE
        if default is None and value is None:
            return None
        example = WHERE_NULL[key] if default is None else default
        if not _fits(value, example, most):
            or_null = 'null or ' if default is None else ''
            raise self.error(key, value, f'it must be {or_null}{_words(example, most)}')
        return value

    def finish(self, inert: Collection[str] = ()) -> None:
        """Checks that all else is inert: keys in `inert`, notes ('_name_or_path'), null and false.

        Raises ValueError, naming the key.
        """
        for key, value in self.config.items():
            if key in self.used or key in inert or key.startswith('_') or value is None or value is False:
                continue
            raise self.error(key, value, 'this key is not known, so what it asks for cannot be kept')


def _fits(value: Any, example: Any, most: int) -> bool:
    """Whether a value is of the kind of an example: a boolean, a count, a number, a text, or a list of one of these."""
    if isinstance(example, bool):
        return isinstance(value, bool)
    if isinstance(example, list):
        return (
            isinstance(value, list | tuple) and bool(value) and all(_fits(v, example[0], most) for v in value)
        )
    if isinstance(example, int):
        return type(value) is int and 0 < value <= most
    if isinstance(example, float):
        return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    return isinstance(value, str)


def _words(example: Any, most: int) -> str:
    if isinstance(example, list):
        return f'a list, each entry {_words(example[0], most)}'
    kinds = {bool: 'true or false', int: f'an integer from 1 to {most}', float: 'a number', str: 'a text'}
    return kinds[type(example)]


def _same(value: Any, supported: Any) -> bool:
    """Equal, where true is not 1."""
    return isinstance(value, bool) == isinstance(supported, bool) and value == supported


def load_json(path: pathlib.Path) -> dict[str, Any]:
    """The object in a JSON file. Raises ValueError, naming the file, for anything else."""
    try:
        found = json.loads(path.read_text('utf-8'))
    except (ValueError, RecursionError) as error:
        raise ValueError(f'{path} is no JSON file: {error}.') from error
    if not isinstance(found, dict):
        raise ValueError(f'{path} holds {str(found)[:40]!r}; it must be an object.')
    return found


def spec(name: str, **values: Any) -> Spec:
    """A spec of ldm_jax/models in plain JSON data: only the fields that differ from the model's defaults."""
    model = importlib.import_module(f'ldm_jax.models.{name}').Model
    defaults = {field.name: field.default for field in dataclasses.fields(model)}
    given = {key: tuple(value) if isinstance(value, list) else value for key, value in values.items()}
    kept = {key: value for key, value in given.items() if value != defaults[key]}
    return dict(name=name) | {
        key: list(value) if isinstance(value, tuple) else value for key, value in kept.items()
    }


def multipliers(fields: Fields, key: str = 'block_out_channels') -> tuple[int, list[int]]:
    """Channels per level as those of the first one and the factors of all.

    Raises ValueError where a level is no multiple of the first.
    """
    channels = list(fields(key))
    if any(c % channels[0] for c in channels):
        raise fields.error(key, channels, 'each level must have a multiple of the first one')
    return channels[0], [c // channels[0] for c in channels]


def mirrored(fields: Fields, kinds: Mapping[str, str]) -> list[str]:
    """down_block_types, which must be keys of `kinds`; up_block_types must be their values in reverse.

    Raises ValueError otherwise.
    """
    down, up = list(fields('down_block_types')), list(fields('up_block_types'))
    for kind in down:
        if kind not in kinds:
            raise fields.error('down_block_types', down, f'supported are {sorted(kinds)}')
    if up != [kinds[kind] for kind in reversed(down)]:
        raise fields.error('up_block_types', up, f'they must mirror down_block_types {down}')
    return down


def header(class_name: str) -> dict[str, Any]:
    """What every config that diffusers writes begins with."""
    return {'_class_name': class_name, '_diffusers_version': VERSION}


def unsupported(field: str, value: Any, reason: str) -> ValueError:
    """The error of a setting that a folder of diffusers cannot hold."""
    return ValueError(f'{field}={value!r} cannot be written as a diffusers folder: {reason}.')
