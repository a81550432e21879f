"""settings.json of a model directory: which keys there are, and what each of them holds."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

from ldm_jax.build import unknown

RENAMED = {'latent_scale': 'scaling_factor'}  # settings of older model directories -> as they are called now


def _spec(value: Any) -> bool:
    return isinstance(value, Mapping) and isinstance(value.get('name'), str)


def _specs(value: Any) -> bool:
    return isinstance(value, Mapping) and all(map(_spec, value.values()))


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _size(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


# key -> (what it must be, in words; whether a value is that)
KEYS: dict[str, tuple[str, Callable[[Any], bool]]] = {
    'models': ('a spec with a name for each part', _specs),
    'schedule': ('a spec with a name', _spec),
    'tokenizer': ('a spec with a name', _spec),
    'tokenizer_2': ('a spec with a name', _spec),
    'parameterization': (
        'a name, or a spec with a name',
        lambda value: isinstance(value, str) or _spec(value),
    ),
    'conditioning': ('knobs for each kind of conditioning', lambda value: isinstance(value, Mapping)),
    'loss': ('a name', lambda value: isinstance(value, str)),
    'scaling_factor': ('a number above 0', lambda value: _number(value) and value > 0),
    'guidance_scale': ('a number', _number),
    'sampling': (
        'some of sampler, grid and num_steps',
        lambda value: isinstance(value, Mapping) and value.keys() <= {'sampler', 'grid', 'num_steps'},
    ),
    'latent_size': ('an integer above 0', _size),
    'image_size': ('an integer above 0', _size),
    'context_length': ('an integer above 0', _size),
}


def read(found: Any) -> dict[str, Any]:
    """The settings of a file, by today's names.

    Raises ValueError for an unknown key or a value that is not what its key holds.
    """
    if not isinstance(found, Mapping):
        raise ValueError(f'expected an object of settings; got {str(found)[:40]!r}.')
    for old, new in RENAMED.items():
        if old in found and new in found:
            raise ValueError(f'{old!r} and {new!r} are the same setting; leave {old!r} out.')
    settings = {RENAMED.get(key, key): value for key, value in found.items()}
    check(settings)
    return settings


def check(settings: Mapping[str, Any]) -> None:
    """Raises ValueError for an unknown key, or a value that is not what its key holds; None stands for no value."""
    for key, value in settings.items():
        if key not in KEYS:
            raise unknown('setting', key, sorted(KEYS))
        words, fits = KEYS[key]
        if value is not None and not fits(value):
            raise ValueError(f'{key} is {str(value)[:80]!r}; it must be {words}.')
