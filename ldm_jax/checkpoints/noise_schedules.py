"""Noise schedules as files of other programs say them, and as we do: one table, both ways.

here              diffusers                        the original code (a YAML, key flags, tables in the file)
scaled_linear     beta_schedule scaled_linear      beta_schedule linear
linear            beta_schedule linear             beta_schedule sqrt_linear
squared_cosine    beta_schedule squaredcos_cap_v2  beta_schedule cosine
zero_terminal     rescale_betas_zero_snr           the key ztsnr
edm               EDMEulerScheduler                the keys edm_vpred.sigma_max and edm_vpred.sigma_min, or edm_mean
others of betas   trained_betas                    the tables betas and alphas_cumprod
flow              -                                -
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from ldm_jax import build
from ldm_jax.build import unknown

Spec = dict[str, Any]

# Stable Diffusion's, which programs take where a file is silent.
PUBLISHED = dict(name='scaled_linear', beta_start=0.00085, beta_end=0.012, num_train_steps=1000)
OFFSET, MAX_BETA = 0.008, 0.999  # of the squared cosine in both of the other programs


@dataclasses.dataclass(frozen=True)
class Shape:
    """A schedule's name here, and its beta_schedule in diffusers and in the original code."""

    ours: str
    diffusers: str
    original: str


SHAPES = (
    Shape('scaled_linear', 'scaled_linear', 'linear'),
    Shape('linear', 'linear', 'sqrt_linear'),
    Shape('squared_cosine', 'squaredcos_cap_v2', 'cosine'),
)


def by_word(program: str, word: Any, start: float, end: float, steps: int) -> Spec:
    """The schedule that a program ('diffusers' or 'original') names by its beta_schedule.

    Raises ValueError for a word that is not in the table.
    """
    for shape in SHAPES:
        if getattr(shape, program) == word:
            if shape.ours == 'squared_cosine':
                return dict(name='squared_cosine', num_train_steps=steps)
            return dict(name=shape.ours, beta_start=start, beta_end=end, num_train_steps=steps)
    raise unknown('beta_schedule', str(word), [getattr(shape, program) for shape in SHAPES])


def word_of(program: str, spec: Mapping[str, Any]) -> dict[str, Any] | None:
    """How a program names a schedule: beta_schedule, beta_start and beta_end. None where it has no name for it."""
    for shape in SHAPES:
        if shape.ours == spec['name']:
            built = build.build('schedules', spec)
            found = dict(beta_schedule=getattr(shape, program))
            if shape.ours == 'squared_cosine':
                return found if (built.offset, built.max_beta) == (OFFSET, MAX_BETA) else None
            return found | dict(beta_start=built.beta_start, beta_end=built.beta_end)
    return None


def steps_of(spec: Mapping[str, Any]) -> int:
    """The number of training steps of a schedule."""
    return build.build('schedules', spec).num_train_steps


def betas(spec: Mapping[str, Any]) -> np.ndarray:
    """The table [N] of a schedule, float64; the last beta is 1 where it ends at noise alone.

    Raises ValueError for a schedule that has no betas: its variance is not preserved.
    """
    schedule = build.build('schedules', spec)
    with jax.enable_x64(True):
        level = schedule.level(np.arange(schedule.num_train_steps, dtype=np.float64))
        alpha, sigma = np.asarray(level.alpha, np.float64), np.asarray(level.sigma, np.float64)
    if not np.allclose(alpha**2 + sigma**2, 1, atol=1e-6):
        raise ValueError(
            f'The schedule {spec["name"]!r} has no betas: alpha^2 + sigma^2 is not 1 but '
            f'{(alpha**2 + sigma**2).min():.3g} to {(alpha**2 + sigma**2).max():.3g}.'
        )
    return 1 - alpha**2 / np.concatenate([[1.0], alpha[:-1] ** 2])


def without_zero_terminal(spec: Mapping[str, Any]) -> tuple[Spec, bool]:
    """(the schedule below, True) of a zero_terminal one that ends at noise alone; (the schedule, False) of others."""
    spec = dict(spec)
    if spec['name'] == 'zero_terminal' and not spec.get('last_alpha_cumprod'):
        return dict(spec.get('base', {'name': 'scaled_linear'})), True
    return spec, False


def with_zero_terminal(spec: Mapping[str, Any]) -> Spec:
    """The schedule rescaled to end at noise alone; itself where it does."""
    return dict(spec) if spec['name'] == 'zero_terminal' else dict(name='zero_terminal', base=dict(spec))


def is_table_of(spec: Mapping[str, Any], table: np.ndarray, rtol: float = 1e-4, atol: float = 1e-7) -> bool:
    """Whether a table of betas is that of a schedule."""
    try:
        return steps_of(spec) == len(table) and np.allclose(betas(spec), table, rtol, atol)
    except (ValueError, TypeError, KeyError):
        return False
