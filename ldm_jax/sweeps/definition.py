"""A sweep as data, and the cells that it stands for.

    dict(
        cells=dict(name='sampling', prompts=('a fox',), num_images=64),  # a module of sweeps/kinds and its fields
        settings=dict(model='emoji32'),                                  # what all cells share
        vary=dict(sampler=('euler', 'heun'), num_steps=(5, 10)),         # every combination
        listed=(dict(guidance_scale=1.0), dict(guidance_scale=3.0)),     # each of these, with every combination
        draws=dict(count=20, seed=0),                                    # or so many of all of them, by chance
    )

With draws a varied value may be a range, dict(low=1.0, high=8.0), log=True for even draws of its logarithm.
"""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from ldm_jax import build
from ldm_jax.build import unknown

FIELDS = ('title', 'cells', 'settings', 'vary', 'listed', 'draws', 'report')
RANGE = {'low', 'high', 'log'}
SEED = 'seed'  # the setting that rows of a table are averaged over


@dataclasses.dataclass(frozen=True)
class Cell:
    """One setting of everything.

    settings: by name. key: the hash of all that its result depends on, by which the result is kept.
    """

    settings: Mapping[str, Any]
    key: str

    def named(self, names: Sequence[str]) -> str:
        """Its settings of these names as one line."""
        return ', '.join(f'{name}={short(self.settings[name])}' for name in names if name in self.settings)


@dataclasses.dataclass(frozen=True)
class Sweep:
    """The cells of a question.

    kind: computes cells, a `Kind` of sweeps/kinds. varied: names of settings in which cells differ.
    """

    title: str
    kind: Any
    cells: tuple[Cell, ...]
    varied: tuple[str, ...]
    config: Mapping[str, Any]


def sweep(config: Mapping[str, Any]) -> Sweep:
    """The sweep of a config, as plain data.

    Raises ValueError for unknown fields and for settings that the kind of cell refuses, before anything is computed.
    """
    for name in config:
        if name not in FIELDS:
            raise unknown('field of a sweep', name, FIELDS)
    if 'cells' not in config:
        raise ValueError("A sweep needs 'cells', such as dict(name='sampling', num_images=64).")
    kind = build.build('sweeps.kinds', config['cells'])
    chosen = distinct(settings(config))
    if not chosen:
        raise ValueError('The sweep has no cells: a setting in vary has no values.')
    kind.check(chosen)
    cells = tuple(Cell(each, key(config['cells'], each, kind.identity(each))) for each in chosen)
    names = list(dict.fromkeys(name for each in chosen for name in each))
    varied = tuple(name for name in names if len({text(each.get(name)) for each in chosen}) > 1)
    return Sweep(config.get('title', 'sweep'), kind, cells, varied, config)


def settings(config: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The settings of every cell, in order."""
    vary, draws = dict(config.get('vary', {})), config.get('draws')
    for name, values in vary.items():
        if is_range(values) and draws is None:
            raise ValueError(f'vary.{name} is a range, for draws: give draws=dict(count=...), or a list.')
        if not is_range(values) and not isinstance(values, list | tuple):
            raise ValueError(f'vary.{name} must be a list of values; got {values!r}.')
    shared = dict(config.get('settings', {}))
    listed = [dict(each) for each in config.get('listed', ()) or ({},)]
    if draws is None:
        return [shared | each | dict(zip(vary, values, strict=True)) for each, values in _grid(listed, vary)]
    return [shared | each for each in _drawn(listed, vary, **draws)]


def _grid(listed, vary) -> Iterator[tuple[dict[str, Any], tuple]]:
    yield from itertools.product(listed, itertools.product(*vary.values()))


def _drawn(listed, vary, count: int, seed: int = 0) -> Iterator[dict[str, Any]]:
    """Draws with all seeds of each, so that they can be compared."""
    random = np.random.default_rng(seed)
    seeds = vary.pop(SEED, (None,))
    found: dict[str, dict[str, Any]] = {}
    for _ in range(100 * count):
        if len(found) == count:
            break
        each = dict(listed[random.integers(len(listed))])
        for name, values in vary.items():
            each[name] = _draw(random, values) if is_range(values) else values[random.integers(len(values))]
        found[text(each)] = each
    for each in found.values():
        for number in seeds:
            yield each if number is None else each | {SEED: number}


def _draw(random, values: Mapping[str, Any]) -> float:
    if set(values) - RANGE or not values['low'] < values['high']:
        raise ValueError(f'A range is dict(low=..., high=..., log=False) with low < high; got {values}.')
    if values.get('log'):
        return float(np.exp(random.uniform(np.log(values['low']), np.log(values['high']))))
    return float(random.uniform(values['low'], values['high']))


def is_range(values: Any) -> bool:
    return isinstance(values, Mapping) and {'low', 'high'} <= set(values)


def distinct(chosen: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Without repetitions, in order."""
    return list({text(each): each for each in chosen}.values())


def key(spec: Mapping[str, Any], settings: Mapping[str, Any], identity: Mapping[str, Any]) -> str:
    """The hash of all that a cell's result depends on: the kind's spec, its settings, and what stands behind names."""
    return hashlib.sha256(text([spec, settings, identity]).encode()).hexdigest()[:20]


def text(value: Any) -> str:
    """A value as the text that tells it from others: JSON with sorted keys."""
    return json.dumps(value, sort_keys=True, default=str)


def short(value: Any) -> str:
    """A setting for people: 'karras', 'ddim(eta=1)', '2.5'."""
    if isinstance(value, Mapping) and 'name' in value:
        rest = ', '.join(f'{name}={short(v)}' for name, v in value.items() if name != 'name')
        return f'{value["name"]}({rest})' if rest else str(value['name'])
    if isinstance(value, list | tuple):
        return ' '.join(map(short, value))
    return f'{value:g}' if isinstance(value, float) else str(value)
