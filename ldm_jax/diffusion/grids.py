"""The levels to sample at: schedule and number of steps -> NoiseLevel with leaves [S + 1], noisiest first."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np

from ldm_jax.build import unknown
from ldm_jax.diffusion import spacings
from ldm_jax.types import NoiseLevel, Schedule

# What a name means beside the spacing of its own name: how public tools' grids are made of these.
NAMED: dict[str, dict[str, Any]] = {
    'leading': dict(end='first'),
    'ddim': dict(end='first'),
    'normal': dict(spacing='linspace', rounded=False),
    'sgm_uniform': dict(spacing='linspace', rounded=False, discard_next_to_last=1),
    'exponential': dict(spacing='polyexponential', rho=1.0),
    'log_snr': dict(spacing='polyexponential', rho=1.0, discard_next_to_last=1, end='first'),
    'align_your_steps': dict(discard_next_to_last=1),
}


@dataclasses.dataclass(frozen=True)
class Grid:
    """A spacing and the end of its last step.

    spacing: of spacings.py; knobs: its keyword arguments.
    end: where the last step ends, at 'clean' data or at the 'first' training level, t = 0 (`set_alpha_to_one`
        False, `final_sigmas_type` 'sigma_min' in diffusers).
    discard_next_to_last: space so many steps more, and leave out the evaluations before the end. A1111 and
        ComfyUI do it for some solvers; diffusers' DPM-Solver, UniPC and DEIS do it to 'leading' and 'linspace'.
    """

    spacing: Callable[..., np.ndarray]
    knobs: tuple[tuple[str, Any], ...] = ()
    end: str = 'clean'
    discard_next_to_last: int = 0

    def __post_init__(self):
        if self.end not in ('clean', 'first'):
            raise unknown('end of a grid', self.end, ['clean', 'first'])
        if self.discard_next_to_last < 0:
            raise ValueError(f'discard_next_to_last must be at least 0; got {self.discard_next_to_last}.')

    def __call__(self, schedule: Schedule, num_steps: int) -> NoiseLevel:
        """The levels: leaves [S + 1], strictly falling; numpy arrays, for which no S compiles anything, even under jit.

        The spacings 'ddim', 'ddim_uniform' and 'beta' may give more or fewer than S steps, as their originals.

        Raises:
            ValueError: the spacing cannot take so many steps, or so few.
        """
        if num_steps < 1:
            raise ValueError(f'num_steps must be at least 1; got {num_steps}.')
        with jax.ensure_compile_time_eval():
            times = self.spacing(schedule, num_steps + self.discard_next_to_last, **dict(self.knobs))
            times = times[: len(times) - self.discard_next_to_last]
            last = schedule.num_train_steps - 1
            lowest = 0 if self.end == 'clean' else np.nextafter(0, 1)  # above the end
            if times.max() > last or times.min() < lowest or (np.diff(times) >= 0).any():
                raise ValueError(
                    f'{self.spacing.__name__} with {num_steps} steps samples at times {times[0]:g} .. '
                    f'{times[-1]:g}, which must fall at every step, from {last} at most to 0 at least '
                    f'(above 0 where the end is the first level). Take fewer steps.'
                )
            levels = spacings.levels(schedule, np.append(times, 0))
            if self.end == 'clean':
                levels.alpha[-1], levels.sigma[-1] = 1, 0
            return levels


def named(spec: str | Mapping[str, Any]) -> Grid:
    """The grid of a name, or of dict(name='karras', rho=5.0) with fields of Grid and knobs of its spacing.

    Raises:
        ValueError: no such grid or knob; the message lists what there is.
    """
    fields = {'name': spec} if isinstance(spec, str) else dict(spec.items())
    name = fields.pop('name')
    if name not in names():
        raise unknown('grid', name, names())
    fields = {'spacing': name} | NAMED.get(name, {}) | fields
    spacing = spacings.SPACINGS[fields.pop('spacing')]
    own = [field.name for field in dataclasses.fields(Grid) if field.name not in ('spacing', 'knobs')]
    settings = {key: fields.pop(key) for key in own if key in fields}
    knobs = [p.name for p in inspect.signature(spacing).parameters.values() if p.kind is p.KEYWORD_ONLY]
    for key in fields:
        if key not in knobs:
            raise unknown(f'knob of grid {name}', key, knobs + own)
    frozen = {key: tuple(value) if isinstance(value, list) else value for key, value in fields.items()}
    return Grid(spacing, tuple(sorted(frozen.items())), **settings)


def names() -> list[str]:
    """All grids there are."""
    return sorted(NAMED.keys() | spacings.SPACINGS.keys())
