"""The levels to sample at: schedule and number of steps -> NoiseLevel with leaves [S + 1], noisiest first."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np

from ldm_jax.build import chosen, unknown
from ldm_jax.diffusion import host_levels, spacings
from ldm_jax.types import NoiseLevel, Schedule

# What a name means beside the spacing of its own name: how public tools' grids are made of these.
NAMED: dict[str, dict[str, Any]] = {
    'leading': dict(end='first'),
    'ddim': dict(end='first'),
    'normal': dict(spacing='linspace', rounded=False),
    'sgm_uniform': dict(spacing='linspace', rounded=False, discard_next_to_last=1),
    'time_uniform': dict(spacing='linspace', rounded=False, discard_next_to_last=1, end='first'),
    'exponential': dict(spacing='polyexponential', rho=1.0),
    'dpm_leading': dict(spacing='leading', discard_next_to_last=1),
    'dpm_linspace': dict(spacing='linspace', discard_next_to_last=1),
    'log_snr': dict(spacing='polyexponential', rho=1.0, discard_next_to_last=1, end='first'),
    'align_your_steps': dict(discard_next_to_last=1),
}


ROUNDINGS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    'exact': lambda t: t,
    'rounded': np.round,
    'floor': np.floor,
}
CHOICES = {
    'end': ('clean', 'first'),
    'interpolation': ('log_snr', 'linear', 'log_linear'),
    'network_time': tuple(ROUNDINGS),
}


@dataclasses.dataclass(frozen=True)
class Grid:
    """A spacing, what noise it stands for, and the end of its last step.

    spacing: of spacings.py; knobs: its keyword arguments.
    end: where the last step ends, at 'clean' data or at the 'first' training level, t = 0 (`set_alpha_to_one`
        False, `final_sigmas_type` 'sigma_min' in diffusers).
    discard_next_to_last: space so many steps more, and leave out the evaluations before the end. A1111 and
        ComfyUI do it for some solvers; diffusers' DPM-Solver, UniPC and DEIS do it to 'leading' and 'linspace'.
    interpolation: sigma / alpha between whole times. 'log_snr' is the schedule's own; 'linear' is diffusers', where
        both are on tables of betas. 'log_linear' is the option of its EulerDiscreteScheduler: evenly in its log from
        the schedule's last level to its first, whatever the network's times, and so to end 'first'.
    network_time: the network's time input is the 'exact' one, or a whole one: 'rounded', or the 'floor'.
    """

    spacing: Callable[..., np.ndarray]
    knobs: tuple[tuple[str, Any], ...] = ()
    end: str = 'clean'
    discard_next_to_last: int = 0
    interpolation: str = 'log_snr'
    network_time: str = 'exact'

    def __post_init__(self):
        for field, have in CHOICES.items():
            if getattr(self, field) not in have:
                raise unknown(f'{field} of a grid', getattr(self, field), list(have))
        if self.interpolation == 'log_linear' and self.end != 'first':
            raise ValueError("interpolation 'log_linear' ends at the first level: give end='first' too.")
        if self.discard_next_to_last < 0:
            raise ValueError(f'discard_next_to_last must be at least 0; got {self.discard_next_to_last}.')

    def __call__(self, schedule: Schedule, num_steps: int) -> NoiseLevel:
        """The levels: leaves [S + 1], strictly falling; numpy arrays, for which no S compiles anything, even under jit.

        The spacings 'ddim', 'ddim_uniform' and 'beta' may give more or fewer than S steps, as their originals.

        Raises:
            ValueError: the spacing cannot take so many steps, or so few.
        """
        with jax.ensure_compile_time_eval():
            times = self.times(schedule, num_steps)
            last = schedule.num_train_steps - 1
            ends_at_first = self.end == 'first' and self.interpolation != 'log_linear'
            lowest = np.nextafter(0, 1) if ends_at_first else 0  # above the end
            if times.max() > last or times.min() < lowest or (np.diff(times) >= 0).any():
                raise ValueError(
                    f'{self.spacing.__name__} with {num_steps} steps samples at times {times[0]:g} .. '
                    f'{times[-1]:g}, which must fall at every step, from {last} at most to 0 at least '
                    f'(above 0 where the end is the first level). Take fewer steps.'
                )
            levels = host_levels.levels(schedule, np.append(times, 0))
            if self.interpolation != 'log_snr':
                levels = self._interpolated(schedule, levels)
            if self.end == 'clean':
                levels.alpha[-1], levels.sigma[-1] = 1, 0
            return dataclasses.replace(levels, t=ROUNDINGS[self.network_time](levels.t))

    def times(self, schedule: Schedule, num_steps: int) -> np.ndarray:
        """The times [S] at which the network is evaluated, float64. Raises ValueError for less than one step."""
        if num_steps < 1:
            raise ValueError(f'num_steps must be at least 1; got {num_steps}.')
        times = self.spacing(schedule, num_steps + self.discard_next_to_last, **dict(self.knobs))
        return times[: len(times) - self.discard_next_to_last]

    def _interpolated(self, schedule: Schedule, levels: NoiseLevel) -> NoiseLevel:
        """Levels [S + 1] at the same times, with the noise that `interpolation` says: diffusers' ways with tables."""
        table = host_levels.levels(schedule, np.arange(schedule.num_train_steps))
        alpha, sigma = np.asarray(table.alpha, np.float64), np.asarray(table.sigma, np.float64)
        if not np.allclose(np.hypot(alpha, sigma), 1, atol=1e-5) or alpha[-1] == 0:
            raise ValueError(
                f'interpolation {self.interpolation!r} is for variance-preserving schedules with some signal '
                f"at every level; got {schedule}. Take 'log_snr'."
            )
        ratio = sigma / alpha
        if self.interpolation == 'linear':
            ratio = np.interp(levels.t, np.arange(len(ratio)), ratio)
        else:
            ratio = np.geomspace(ratio[-1], ratio[0], len(levels.t))
        alpha = (1 / np.hypot(1, ratio)).astype(levels.alpha.dtype)
        return dataclasses.replace(levels, alpha=alpha, sigma=(ratio * alpha).astype(levels.sigma.dtype))


def named(spec: str | Mapping[str, Any]) -> Grid:
    """The grid of a name, or of dict(name='karras', rho=5.0) with fields of Grid and knobs of its spacing.

    A dotted name is that of a spacing.

    Raises ValueError for an unknown grid or knob, with the known ones, and for a knob that is missing.
    """
    fields = {'name': spec} if isinstance(spec, str) else dict(spec.items())
    if 'name' not in fields:
        raise ValueError(f"A grid spec needs a 'name'; got {fields}. Have {names()}.")
    name = fields.pop('name')
    if name not in names() and '.' not in str(name):
        raise unknown('grid', name, names())
    fields = {'spacing': name} | NAMED.get(name, {}) | fields
    spacing = chosen('spacing', spacings.SPACINGS, fields.pop('spacing'))
    own = [field.name for field in dataclasses.fields(Grid) if field.name not in ('spacing', 'knobs')]
    settings = {key: fields.pop(key) for key in own if key in fields}
    knobs = [p for p in inspect.signature(spacing).parameters.values() if p.kind is p.KEYWORD_ONLY]
    for key in fields:
        if key not in [p.name for p in knobs]:
            raise unknown(f'knob of grid {name}', key, [p.name for p in knobs] + own)
    for knob in knobs:
        if knob.default is knob.empty and knob.name not in fields:
            raise ValueError(f'Grid {name!r} needs {knob.name}: dict(name={name!r}, {knob.name}=...).')
    frozen = {key: tuple(value) if isinstance(value, list) else value for key, value in fields.items()}
    return Grid(spacing, tuple(sorted(frozen.items())), **settings)


def names() -> list[str]:
    """All grids there are."""
    return sorted(NAMED.keys() | spacings.SPACINGS.keys())
