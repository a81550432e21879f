"""The noise schedule of a single file: its tables, key flags and metadata, and the YAML beside it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from ldm_jax.checkpoints import noise_schedules
from ldm_jax.checkpoints.detection import sidecar as yaml
from ldm_jax.checkpoints.layouts import marks
from ldm_jax.checkpoints.noise_schedules import Spec

Read = Callable[[str], np.ndarray]

# Every noise schedule that a public model was trained with, linear in the square root of beta.
BETAS = ((0.00085, 0.012), (0.0001, 0.02), *((0.0015, end) for end in (0.015, 0.0155, 0.0195, 0.0205)))
STEPS = 1000


def schedule(
    specs: Mapping[str, Any],
    read: Read | None,
    sidecar: yaml.Sidecar | None,
    default: tuple[float, float],
    metadata: Mapping[str, str] | None = None,
) -> Spec:
    """The spec of the noise schedule: that of the file's tables, else the YAML's, else the default.

    Args:
        specs, read: of the file; its 'betas' or 'alphas_cumprod' are compared with the published schedules.
        sidecar: the YAML, checked.
        default: first and last beta of the model's family.
        metadata: what the file says of itself.

    Raises ValueError for tables that are of no schedule, or of another than the YAML says.
    """
    said = yaml.schedule(sidecar)
    table = next((key for key in ('betas', 'alphas_cumprod') if key in specs), None)
    if table is None or read is None:
        found = said or _scaled_linear(*default, STEPS)
    else:
        values = np.asarray(read(table)).reshape(-1)
        found = _fitted(table, values, said, default)
        if said is not None and found != said:
            raise ValueError(f"The file's {table} are those of {found}; the YAML beside it says {said}.")
    return flagged(found, specs, read, metadata or {})


def flagged(spec: Spec, specs: Mapping[str, Any], read: Read | None, metadata: Mapping[str, str]) -> Spec:
    """A schedule as the flags of a file change it: rescaled to end at noise alone, or EDM's."""
    if marks.MEAN in specs and spec['name'] != 'edm':
        return dict(marks.EDM)
    if marks.EDM_MAX in specs and spec['name'] != 'edm':
        ends = {'sigma_max': marks.EDM_MAX, 'sigma_min': marks.EDM_MIN}
        held = {name: float(np.asarray(read(key))) for name, key in ends.items() if key in specs and read}
        return dict(name='edm', **held)
    if marks.ZERO_TERMINAL in specs or metadata.get('ss_zero_terminal_snr') == 'True':
        return noise_schedules.with_zero_terminal(spec)
    return spec


def _scaled_linear(start: float, end: float, steps: int) -> Spec:
    return dict(
        name='scaled_linear', beta_start=float(start), beta_end=float(end), num_train_steps=int(steps)
    )


def _fitted(table: str, values: np.ndarray, said: Spec | None, default: tuple[float, float]) -> Spec:
    """The schedule of a table: of the likely ones where they fit, else one of these betas."""
    # Files in half precision have rounded tables too: bfloat16 keeps 8 bits.
    exact = values.dtype.itemsize >= 4
    tolerance = 1e-5 if exact else 2.0**-8
    values, steps = values.astype(np.float64), len(values)
    betas = values if table == 'betas' else _betas(values)
    likely = [_scaled_linear(*ends, steps) for ends in (default, *BETAS)]
    likely = (
        ([said] if said else []) + likely + [noise_schedules.with_zero_terminal(spec) for spec in likely[:1]]
    )
    for spec in likely + _of_ends(betas, exact):
        if _fits(spec, table, values, tolerance):
            return spec
    if exact and steps > 1 and (betas > 0).all() and (betas[:-1] < 1).all() and betas[-1] <= 1:
        return dict(name='trained_betas', betas=betas.tolist())
    raise ValueError(
        f"The file's {table} are {steps} numbers from {values[0]:.6g} to {values[-1]:.6g}, of no noise schedule that "
        'is known. Naming a config with --model takes its schedule instead.'
    )


def _of_ends(betas: np.ndarray, exact: bool) -> Sequence[Spec]:
    """Schedules that begin and end with these betas; float32 has 7 digits."""
    if not exact or len(betas) < 2:
        return []
    ends = dict(
        beta_start=float(f'{betas[0]:.6g}'), beta_end=float(f'{betas[-1]:.6g}'), num_train_steps=len(betas)
    )
    others = [dict(name=name, num_train_steps=len(betas)) for name in ('squared_cosine', 'cosine')]
    return [dict(name=name, **ends) for name in ('scaled_linear', 'linear')] + others


def _fits(spec: Spec, table: str, values: np.ndarray, tolerance: float) -> bool:
    try:
        betas = noise_schedules.betas(spec)
    except ValueError:  # of betas that no schedule has
        return False
    expected = betas if table == 'betas' else np.cumprod(1 - betas)
    return len(expected) == len(values) and np.allclose(expected, values, tolerance, tolerance * 1e-3)


def _betas(alphas_cumprod: np.ndarray) -> np.ndarray:
    before = np.concatenate([[1.0], alphas_cumprod[:-1]])
    return 1 - np.divide(alphas_cumprod, before, out=np.zeros_like(before), where=before > 0)
