"""Choices among the things that a checkpoint offers, or leaves open."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from ldm_jax.build import unknown
from ldm_jax.checkpoints import store

ALIASES = {'vae': 'first_stage', 'te': 'text_encoder'}


@dataclasses.dataclass(frozen=True)
class Choice:
    """What a file leaves open, or offers more than one of.

    prediction: 'eps' or 'v', where keys do not tell.
    weights: 'main', or 'ema' for the moving averages that a training checkpoint may hold.
    variant: of a diffusers folder's files, such as 'fp16'.
    parts: which ones; all by default. 'vae' is first_stage.
    model: settings of a named config, instead of what would be recognized.
    ignore: patterns of keys ('name.*') that are left out of a public checkpoint.
    """

    prediction: str | None = None
    weights: str = 'main'
    variant: str | None = None
    parts: tuple[str, ...] | None = None
    model: Mapping[str, Any] | None = None
    ignore: tuple[str, ...] = ()

    def __post_init__(self):
        if self.prediction not in (None, 'eps', 'v'):
            raise ValueError(f"prediction must be 'eps' or 'v'; got {self.prediction!r}.")
        if self.weights not in ('main', 'ema'):
            raise ValueError(f"weights must be 'main' or 'ema'; got {self.weights!r}.")
        if self.parts is not None and not all(self.parts):
            raise ValueError(f"parts must be names, such as 'unet' or 'vae'; got {list(self.parts)}.")


def chosen(parts: Sequence[str] | None, have: Sequence[str], where: str) -> tuple[str, ...]:
    """The parts that are asked for, in the order of the model. Raises ValueError for an unknown one."""
    if parts is None:
        return tuple(have)
    wanted = [ALIASES.get(part, part) for part in parts]
    for part in wanted:
        if part not in have:
            raise unknown(f'part of {where}', part, list(have))
    return tuple(part for part in have if part in wanted)


def check_choice(path: str, choice: Choice) -> None:
    """Raises ValueError where a choice contradicts the model directory at a path, which leaves nothing open."""
    if choice == Choice(parts=choice.parts):
        return
    found = store.open_model(path).settings.get('parameterization')
    wrong = {
        'prediction': choice.prediction not in (None, found),
        'weights': choice.weights != 'main',
        'variant': choice.variant is not None,
        'model': choice.model is not None,
        'ignore': bool(choice.ignore),
    }
    if any(wrong.values()):
        names = [name for name, is_wrong in wrong.items() if is_wrong]
        raise ValueError(
            f'{path} is a model directory, of one set of weights and of parameterization {found!r}: leave out {names}, '
            'or give the public checkpoint that it was converted from.'
        )
