"""Metrics by text, as flags and configs write them: 'fid:clean', 'kid:clip:subsets=20', 'psnr'."""

from __future__ import annotations

import ast
import dataclasses
from typing import Any

from ldm_jax import build
from ldm_jax.types import Metric


def metric(text: str) -> Metric:
    """The metric of 'NAME', 'NAME:VALUE' with the value of its first field, and ':FIELD=VALUE' for others.

    Raises ValueError for an unknown metric, protocol or field, listing the known ones.
    """
    name, *rest = text.strip().split(':')
    made = build.component('evaluation', name)
    fields = [field.name for field in dataclasses.fields(made)]
    settings: dict[str, Any] = {}
    for i, part in enumerate(rest):
        key, equals, value = part.partition('=')
        if not equals:
            if i or not fields:
                raise ValueError(f'{text!r}: {part!r} should be FIELD=VALUE; {name} has the fields {fields}.')
            settings[fields[0]] = part
        else:
            settings[key] = _value(value)
    return build.build('evaluation', dict(name=name, **settings))


def metrics(text: str) -> dict[str, Metric]:
    """Text -> metric of a list with commas. Raises ValueError as `metric`, and for one that comes twice."""
    names = [name.strip() for name in text.split(',') if name.strip()]
    if not names:
        raise ValueError(f'No metric is named in {text!r}; there are {build.names("evaluation")}.')
    for name in names:
        if names.count(name) > 1:
            raise ValueError(f'The metric {name!r} is named twice.')
    return {name: metric(name) for name in names}


def _value(text: str) -> Any:
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text
