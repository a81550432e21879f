"""The power-function averages in a run's checkpoints, of which any other is made after the run.

Each kept checkpoint holds the run's averages as of its step. The wanted one is a sum of them (training/ema.py), as good
as the snapshots are many: `run.keep_every` says which steps are kept. Ref: Karras et al. 2024, arXiv:2312.02696, 3.2.
"""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from flax import traverse_util

from ldm_jax.training import ema
from ldm_jax.training.saving import resume_check, stored_steps
from ldm_jax.types import PyTree


@dataclasses.dataclass(frozen=True)
class Snapshot:
    """One average in one checkpoint."""

    folder: pathlib.Path  # of the checkpoint
    name: str  # of the average, in the config's run.ema
    profile: ema.Profile

    def read(self) -> PyTree:
        """The averaged parameters of what the run trains. Raises checksums.Damaged."""
        prefix = f'ema/{self.name}/'
        leaves = stored_steps.read_some(self.folder, lambda name: name.startswith(prefix))
        return traverse_util.unflatten_dict(
            {name.removeprefix(prefix): leaf for name, leaf in leaves.items()}, sep='/'
        )


def of_run(workdir: pathlib.Path) -> list[Snapshot]:
    """The snapshots of a workdir, by step.

    Raises:
        FileNotFoundError: it is no workdir of a run, or holds no checkpoint.
        ValueError: the run keeps no average of a power function.
    """
    averages = resume_check.read(workdir)['run'].get('ema', {})
    widths = {name: _width(spec) for name, spec in averages.items() if _name(spec) == 'power'}
    if not widths:
        raise ValueError(
            f'{workdir} keeps no average of a power function; its run.ema is {averages}. Train with two, such as '
            "ema=dict(power_05=dict(name='power', sigma_rel=0.05), power_10=dict(name='power', sigma_rel=0.1))."
        )
    folders = [workdir / 'checkpoints' / str(step) for step in stored_steps.listed(workdir / 'checkpoints')]
    updates = {folder: _updates(folder) for folder in folders}
    if not any(updates.values()):
        raise FileNotFoundError(f'{workdir / "checkpoints"} holds no checkpoint of a trained step.')
    return [
        Snapshot(folder, name, ema.Profile(updates[folder], width))
        for folder in folders
        for name, width in widths.items()
        if updates[folder]
    ]


def average(snapshots: Sequence[Snapshot], wanted: ema.Profile) -> tuple[PyTree, float]:
    """The average of another width, and as of any step up to the last: (parameters, misfit of its profile).

    Snapshots are read one after the other. Raises ValueError as ema.coefficients does.
    """
    profiles = [snapshot.profile for snapshot in snapshots]
    weights = ema.coefficients(profiles, wanted)
    params = ema.reconstruct(weights, (snapshot.read() for snapshot in snapshots))
    return params, ema.misfit(profiles, weights, wanted)


def _name(spec: str | Mapping[str, Any]) -> str:
    return spec if isinstance(spec, str) else spec['name']


def _width(spec: str | Mapping[str, Any]) -> float:
    return ema.POWER_WIDTH if isinstance(spec, str) else spec.get('sigma_rel', ema.POWER_WIDTH)


def _updates(folder: pathlib.Path) -> int:
    """How many updates a checkpoint's averages have seen: its steps less those that were skipped."""
    counts = stored_steps.read_some(folder, lambda name: name in ('step', 'skipped'))
    return int(counts['step'] - counts['skipped'])
