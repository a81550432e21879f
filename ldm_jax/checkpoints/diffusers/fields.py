"""Reading a config.json strictly: what cannot be expressed is an error, what is not read must be inert."""

from __future__ import annotations

import dataclasses
import importlib
from collections.abc import Collection, Mapping
from typing import Any

VERSION = '0.42.1'  # of diffusers, whose format is written

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
        """The value of a key, or its default; KeyError for one that has none."""
        self.used.add(key)
        return self.config.get(key, self.defaults[key])

    def only(self, key: str, *supported: Any) -> Any:
        """The value of a key that must be one of these; the first is the class's default.

        Raises ValueError for another.
        """
        self.used.add(key)
        value = self.config.get(key, supported[0])
        if value not in supported:
            shown = ' or '.join(map(repr, supported))
            raise self.error(key, value, f'only {shown} is supported')
        return value

    def levels(self, key: str, count: int) -> list:
        """The value of a key for each of `count` levels; a single one holds for all.

        Raises ValueError for a list of another length.
        """
        value = self(key)
        values = list(value) if isinstance(value, list | tuple) else [value] * count
        if len(values) != count:
            raise self.error(key, value, f'there must be one entry for each of the {count} levels')
        return values

    def error(self, key: str, value: Any, expected: str) -> ValueError:
        """The error of a value that cannot be expressed."""
        return ValueError(f'{self.where}: {key} is {value!r}; {expected}.')

    def finish(self, inert: Collection[str] = ()) -> None:
        """Checks that all else is inert: keys in `inert`, notes ('_name_or_path'), null and false.

        Raises ValueError, naming the key.
        """
        for key, value in self.config.items():
            if key in self.used or key in inert or key.startswith('_') or value is None or value is False:
                continue
            raise self.error(key, value, 'this key is not known, so what it asks for cannot be kept')


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
