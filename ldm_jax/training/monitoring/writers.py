"""Where metrics and images go: files of the workdir always, TensorBoard and Weights & Biases when asked for.

A run that is resumed at step n writes its steps after n once more. The file of JSON lines drops them first, so no
line is doubled; TensorBoard hides them; Weights & Biases goes on in the run that the workdir names, where
the later value of a step is the one that counts.
"""

from __future__ import annotations

import json
import math
import pathlib
import uuid
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from ldm_jax import atomic
from ldm_jax.build import function
from ldm_jax.images import save_png, to_uint8

Scalars = Mapping[str, Any]  # name -> float, or a list of them; NaN where there is no value

Changes = Mapping[str, Any]  # dotted name of a setting -> (old, new)

METRICS, IMAGES = 'metrics.jsonl', 'images'
CHANGED = 'changed'


class Writer(Protocol):
    """Takes a run's metrics and images."""

    def scalars(self, step: int, values: Scalars) -> None: ...

    def image(self, step: int, name: str, sheet: np.ndarray) -> None: ...  # [H, W, 3], in [-1, 1]

    def changed(self, step: int, settings: Changes) -> None: ...  # the run goes on from here with others

    def close(self) -> None: ...


def build(
    specs: Sequence[str | Mapping[str, Any]], root: pathlib.Path, step: int, config: Mapping[str, Any]
) -> Writer:
    """All the writers of a run as one.

    Args:
        specs: 'tensorboard', 'wandb', a dotted name of a class, or dict(name='wandb', **settings).
        root: of the workdir.
        step: the one from which the run goes on; entries of later ones are void.
        config: of the run, as plain data, for back-ends that show it.

    Raises:
        ValueError: an unknown writer or setting.
        ModuleNotFoundError: its package is not installed; the message says how to install it.
    """
    return All([Files(root, step), *(named(spec)(root, step, config) for spec in specs)])


def named(spec: str | Mapping[str, Any]) -> Callable[[pathlib.Path, int, Mapping[str, Any]], Writer]:
    """What makes the writer of a spec, of (root, step, config). Raises ValueError for an unknown writer or setting."""
    return function('writer', KINDS, spec)


class All:
    """Several writers as one."""

    def __init__(self, writers: list[Writer]):
        self._writers = writers

    def scalars(self, step: int, values: Scalars) -> None:
        for writer in self._writers:
            writer.scalars(step, values)

    def image(self, step: int, name: str, sheet: np.ndarray) -> None:
        for writer in self._writers:
            writer.image(step, name, sheet)

    def changed(self, step: int, settings: Changes) -> None:
        for writer in self._writers:
            writer.changed(step, settings)

    def close(self) -> None:
        for writer in self._writers:
            writer.close()


class Nothing:
    """Writes nowhere: the writer of every host but the first."""

    def scalars(self, step: int, values: Scalars) -> None:
        pass

    def image(self, step: int, name: str, sheet: np.ndarray) -> None:
        pass

    def changed(self, step: int, settings: Changes) -> None:
        pass

    def close(self) -> None:
        pass


class Files:
    """metrics.jsonl, a JSON object a line, null where there is no number, and images/<step>_<name>.png.

    A line with 'changed' says which settings were changed at its step, each from what to what.
    """

    def __init__(self, root: pathlib.Path, step: int):
        self._root = root
        path = root / METRICS
        kept = [line for line in _read(root) if CHANGED in line or line['step'] <= step]
        atomic.write(path, ''.join(map(_line, kept)), alone=True)
        self._log = open(path, 'a')  # noqa: SIM115 (open for the whole run)

    def scalars(self, step: int, values: Scalars) -> None:
        self._log.write(_line({'step': step, **values}))
        self._log.flush()

    def image(self, step: int, name: str, sheet: np.ndarray) -> None:
        folder = self._root / IMAGES
        folder.mkdir(exist_ok=True)
        save_png(folder / f'{step:07}_{name}.png', sheet, scale=2)

    def changed(self, step: int, settings: Changes) -> None:
        self._log.write(_line({'step': step, CHANGED: settings}))
        self._log.flush()

    def close(self) -> None:
        self._log.close()


class TensorBoard:
    """Event files in workdir/tensorboard, through tensorboardX, which needs no TensorFlow."""

    def __init__(self, root: pathlib.Path, step: int, config: Mapping[str, Any]):
        try:
            from tensorboardX import SummaryWriter
        except ModuleNotFoundError as error:
            raise _missing('tensorboard', 'tensorboardX', error) from None
        # What lies after the step that the run goes on from is hidden by TensorBoard. The suffix keeps a restart
        # within the same second from overwriting the file.
        self._writer = SummaryWriter(
            str(root / 'tensorboard'), purge_step=step + 1 if step else None, filename_suffix=f'.{step}'
        )
        if not step:
            self._writer.add_text('config', f'<pre>{json.dumps(config, indent=2)}</pre>', 0)

    def scalars(self, step: int, values: Scalars) -> None:
        for name, value in _flat(values).items():
            self._writer.add_scalar(name, value, step)

    def image(self, step: int, name: str, sheet: np.ndarray) -> None:
        self._writer.add_image(name, to_uint8(sheet), step, dataformats='HWC')

    def changed(self, step: int, settings: Changes) -> None:
        self._writer.add_text(CHANGED, f'<pre>{json.dumps(settings, indent=2)}</pre>', step)

    def close(self) -> None:
        self._writer.close()


class WeightsAndBiases:
    """A run of wandb, whose id is kept in workdir/wandb_id so that resuming goes on in it.

    settings: those of wandb.init, such as project, entity, name, tags, mode='offline'.
    """

    def __init__(self, root: pathlib.Path, step: int, config: Mapping[str, Any], **settings: Any):
        try:
            import wandb
        except ModuleNotFoundError as error:
            raise _missing('wandb', 'wandb', error) from None
        path = root / 'wandb_id'
        if not path.exists():
            path.write_text(uuid.uuid4().hex)
        self._wandb = wandb
        # A resumed run may have other settings, see resume_check.
        settings = {'resume': 'allow', 'dir': str(root), 'allow_val_change': True} | settings
        self._run = wandb.init(id=path.read_text(), config=dict(config), **settings)
        # wandb's own step counter refuses to go back to a step; against a metric it may.
        self._run.define_metric('step')
        self._run.define_metric('*', step_metric='step')

    def scalars(self, step: int, values: Scalars) -> None:
        self._run.log({'step': step, **_flat(values)})

    def image(self, step: int, name: str, sheet: np.ndarray) -> None:
        self._run.log({'step': step, name: self._wandb.Image(to_uint8(sheet))})

    def changed(self, step: int, settings: Changes) -> None:
        self._run.summary[f'{CHANGED}/{step}'] = json.dumps(settings)

    def close(self) -> None:
        self._run.finish()


KINDS = {'tensorboard': TensorBoard, 'wandb': WeightsAndBiases}


def read_metrics(root: pathlib.Path) -> list[dict[str, Any]]:
    """The lines of metrics.jsonl with numbers as dicts, null as NaN; a last line that a kill cut short is left out."""
    return [line for line in _read(root) if CHANGED not in line]


def read_changes(root: pathlib.Path) -> list[tuple[int, dict[str, Any]]]:
    """(step, dotted name -> [old, new]) of each time that a run went on with other settings."""
    return [(line['step'], line[CHANGED]) for line in _read(root) if CHANGED in line]


def _read(root: pathlib.Path) -> list[dict[str, Any]]:
    path = root / METRICS
    if not path.exists():
        return []
    lines = []
    for text in path.read_text().splitlines():
        try:
            line = json.loads(text)
            lines.append(line if CHANGED in line else {name: _number(value) for name, value in line.items()})
        except ValueError:
            break
    return lines


def _number(value: Any) -> Any:
    if isinstance(value, list):
        return [_number(item) for item in value]
    return math.nan if value is None else value


def _line(values: Scalars) -> str:
    def plain(value):
        if isinstance(value, list):
            return [plain(item) for item in value]
        # JSON has no NaN and no infinity.
        return None if isinstance(value, float) and not math.isfinite(value) else value

    return json.dumps({name: plain(value) for name, value in values.items()}, allow_nan=False) + '\n'


def _flat(values: Scalars) -> dict[str, float]:
    """Entries of lists as scalars 'name/0', 'name/1', ...; values that are not finite are left out."""
    flat = {}
    for name, value in values.items():
        items = (
            {f'{name}/{i}': item for i, item in enumerate(value)}
            if isinstance(value, list)
            else {name: value}
        )
        flat |= {key: item for key, item in items.items() if math.isfinite(item)}
    return flat


def _missing(writer: str, package: str, error: ModuleNotFoundError) -> ModuleNotFoundError:
    return ModuleNotFoundError(
        f'run.writers.{writer} needs {package} ({error}): pip install "{package}", or leave the writer out.',
        name=error.name,
    )
