"""Command-line flags from the fields of dataclasses that describe them; see `knobs`."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from typing import Any

from ldm_jax import knobs


def add(parser: argparse.ArgumentParser, kind: type) -> None:
    """Adds a flag for each setting of a dataclass; those that are not given are absent from what is parsed."""
    for name, each in knobs.settings(kind).items():
        described = each.knob
        options: dict[str, Any] = dict(help=described.help.replace('%', '%%'), default=argparse.SUPPRESS)
        if described.kind is bool:
            options['action'] = 'store_true'
        elif described.form:
            options['metavar'] = described.form
        else:
            options |= dict(type=described.kind, nargs=described.many)
        parser.add_argument(f'--{name}', **options)


def given(args: argparse.Namespace, kind: type) -> dict[str, Any]:
    """Flat name -> value of a dataclass's settings, where a flag was given. Raises ValueError for another form."""
    found = {name: each for name, each in knobs.settings(kind).items() if name in args}
    return {name: _value(each, getattr(args, name)) for name, each in found.items()}


def _value(setting: knobs.Setting, value: Any) -> Any:
    if setting.knob.form:
        return knobs.read(setting, value)
    return tuple(value) if isinstance(value, list) else value


def made(args: argparse.Namespace, kind: type, defaults: Mapping[str, Any] | None = None) -> Any:
    """The dataclass of the flags that were given, then of other defaults. Raises ValueError for a wrong value."""
    found = knobs.make(kind, {**(defaults or {}), **given(args, kind)})
    knobs.check(found)
    return found
