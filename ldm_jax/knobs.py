"""Settings that describe themselves: each is one field of a frozen dataclass, with help, range and names beside it.

    @dataclasses.dataclass(frozen=True)
    class Guidance:
        scale: float = knob(7.5, float, 'how strongly the prompt counts', name='guidance_scale', png='CFG scale')

Flags, JSON and the text in PNG files are made from such fields: a new setting is a field here and its use there. A
dataclass may hold others (`group`); outside, all fields stand side by side under flat names.
"""

from __future__ import annotations

import dataclasses
import functools
import importlib
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ldm_jax.build import unknown

KNOB, GROUP = 'knob', 'group'  # keys of a field's metadata
INTERVAL = re.compile(r'([\[(])(\S+), (\S+)([\])])')
KINDS = {int: 'a whole number', float: 'a number', str: 'a text', bool: 'true or false'}


@dataclasses.dataclass(frozen=True)
class Knob:
    """The description of a setting.

    Attributes:
        kind: type of a value: int, float, str, or bool, which is a flag without a value.
        help: one line for people.
        name: the name outside; the field's own by default.
        many: how many values: a number, or '+' for one or more; None is one value that is no sequence.
        mark: what stands between the values in a text.
        form: of the values as one text, 'WIDTHxHEIGHT'; flags take that text instead of `many` words.
        png: the name in the text of PNG files; None is not written there.
        png_words: value -> its text there, where that is another one.
        least: the least number that is allowed; or
        within: the numbers that are allowed, as an interval: '(0, 1]'.
        among: the words that are allowed: a sequence, or the dotted name of one in a module that is slow to import.
        image: the value is an image: the path of a file, its bytes, or an array.
        shared: one value for all images of a call; other numbers may be a sequence with one for each image.
    """

    kind: type = str
    help: str = ''
    name: str | None = None
    many: int | str | None = None
    mark: str = ', '
    form: str | None = None
    png: str | None = None
    png_words: Mapping[Any, str] = dataclasses.field(default_factory=dict)
    least: float | None = None
    within: str | None = None
    among: Sequence[str] | str = ()
    image: bool = False
    shared: bool = False

    def words(self) -> list[str]:
        """The words that are allowed; none where any are."""
        if not isinstance(self.among, str):
            return list(self.among)
        module, _, attribute = self.among.rpartition('.')
        return list(getattr(importlib.import_module(module), attribute))


@dataclasses.dataclass(frozen=True)
class Setting:
    """A field by its flat name: where it lies below the outermost dataclass, and its description."""

    name: str
    path: tuple[str, ...]
    default: Any
    knob: Knob


def knob(default: Any, kind: type, help: str, **more: Any) -> Any:
    """A field of a dataclass with its description; `more` are fields of Knob."""
    return dataclasses.field(default=default, metadata={KNOB: Knob(kind, help, **more)})


def group(kind: type) -> Any:
    """A field of a dataclass that holds another one, with its defaults."""
    return dataclasses.field(default_factory=kind, metadata={GROUP: kind})


@functools.cache
def settings(kind: type) -> dict[str, Setting]:
    """Flat name -> setting of all fields of a dataclass and of those in it."""
    found = {}
    for field in dataclasses.fields(kind):
        if described := field.metadata.get(KNOB):
            name = described.name or field.name
            found[name] = Setting(name, (field.name,), field.default, described)
        elif inner := field.metadata.get(GROUP):
            for name, each in settings(inner).items():
                found[name] = dataclasses.replace(each, path=(field.name, *each.path))
    return found


def make(kind: type, values: Mapping[str, Any]) -> Any:
    """The dataclass with values by flat name, the others at their defaults. Raises ValueError for an unknown name."""
    known = settings(kind)
    for name in values:
        if name not in known:
            raise unknown('setting', name, sorted(known))
    return _make(kind, {known[name].path: value for name, value in values.items()})


def _make(kind: type, values: Mapping[tuple[str, ...], Any]) -> Any:
    own = {path[0]: value for path, value in values.items() if len(path) == 1}
    for field in dataclasses.fields(kind):
        inner = {path[1:]: value for path, value in values.items() if path[0] == field.name and len(path) > 1}
        if inner:
            own[field.name] = _make(field.metadata[GROUP], inner)
    return kind(**own)


def flat(thing: Any) -> dict[str, Any]:
    """Flat name -> value of a dataclass of settings."""
    return {name: functools.reduce(getattr, each.path, thing) for name, each in settings(type(thing)).items()}


def changed(thing: Any) -> dict[str, Any]:
    """Those of `flat` that are not at their defaults."""
    known = settings(type(thing))
    return {name: value for name, value in flat(thing).items() if not _same(value, known[name].default)}


def replace(thing: Any, **values: Any) -> Any:
    """A dataclass of settings with other values, by flat name."""
    return make(type(thing), flat(thing) | values)


def check(thing: Any) -> None:
    """Raises ValueError for a value of the wrong type, or outside its range or its words."""
    for name, value in changed(thing).items():
        _check(name, settings(type(thing))[name].knob, value)


def read(setting: Setting, text: str) -> Any:
    """A value from its text. Raises ValueError, with the form that was expected."""
    described = setting.knob
    try:
        if described.many is None:
            return described.kind(text)
        words = text.lower().split(described.mark.strip() or None) if described.kind is not str else [text]
        values = tuple(described.kind(word) for word in words)
    except ValueError:
        values = ()
    if not values or described.many not in ('+', len(values)):
        raise ValueError(f'{setting.name} must be {_expected(described)}; got {text!r}.')
    return values


def write(setting: Setting, value: Any) -> str:
    """The text of a value, which `read` reads."""
    return setting.knob.mark.join(map(str, value)) if isinstance(value, list | tuple) else str(value)


def _expected(described: Knob) -> str:
    kind = KINDS[described.kind]
    if described.many is None:
        return kind
    if described.form:
        return f'{described.many} numbers, {described.form}'
    return f'{described.many} values, each {kind}' if described.many != '+' else f'values, each {kind}'


def _same(value: Any, default: Any) -> bool:
    """Whether a value is the default; arrays are none."""
    return value is default or (not hasattr(value, 'shape') and value == default)


def _check(name: str, described: Knob, value: Any) -> None:
    if value is None or described.image or isinstance(value, Mapping):
        return
    if isinstance(described.many, int) and (isinstance(value, str) or len(value) != described.many):
        raise ValueError(f'{name} must be {_expected(described)}; got {value}.')
    for each in _values(value):
        if not _is(each, described.kind):
            raise ValueError(f'{name} must be {KINDS[described.kind]}; got {each!r:.80}.')
        if isinstance(each, str):
            if described.among and each not in (words := described.words()):
                raise unknown(name.replace('_', ' '), each, words)
            continue
        if described.within and not _inside(each, described.within):
            raise ValueError(f'{name} must be in {described.within}; got {each}.')
        if described.least is not None and not each >= described.least:
            raise ValueError(f'{name} must be at least {described.least}; got {each}.')
        if not described.within and not math.isfinite(each):
            raise ValueError(f'{name} must be a finite number; got {each}.')


def _values(value: Any) -> Iterator[Any]:
    """A value, or those of a sequence or an array."""
    value = value.tolist() if hasattr(value, 'tolist') else value
    if isinstance(value, list | tuple):
        for each in value:
            yield from _values(each)
    else:
        yield value


def _is(value: Any, kind: type) -> bool:
    if isinstance(value, bool):
        return kind is bool
    return isinstance(value, int | float if kind is float else kind)


def _inside(value: float, interval: str) -> bool:
    left, low, high, right = INTERVAL.fullmatch(interval).groups()
    above = value >= float(low) if left == '[' else value > float(low)
    return above and (value <= float(high) if right == ']' else value < float(high))
