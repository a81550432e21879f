"""A cell is a training run: of a config with some fields changed, and what was measured in it and of its model.

Each run has a workdir of its own below the sweep's folder and resumes there, so that a kill loses what came after the
run's last checkpoint and nothing else.
"""

from __future__ import annotations

import copy
import dataclasses
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar

import numpy as np

from ldm_jax import build
from ldm_jax.build import unknown
from ldm_jax.evaluation.in_training import evaluator
from ldm_jax.sweeps.definition import SEED, Cell
from ldm_jax.sweeps.identity import checksum
from ldm_jax.sweeps.results import Result, Results
from ldm_jax.training import overrides, start
from ldm_jax.training.monitoring import writers
from ldm_jax.training.preemption import Preemption

WORKDIRS = 'training'


@dataclasses.dataclass(frozen=True, eq=False)
class Kind:
    """How the cells of a training sweep are computed. Settings: fields of the config by their dotted names, and

        seed                 of the run, run.seed

    Attributes:
        config: of the run, as plain data: configs.load(...).to_dict() in a sweep's file.
        metrics: numbers of the run's last line of metrics that the table shows.
        measure: the dotted name of a function (path of the exported model, settings) -> {name: number, or scores of
            images [N]}, which is called when the run has ended; None for none.
    """

    config: Mapping[str, Any]
    metrics: tuple[str, ...] = ('loss',)
    measure: Any = None
    cost: ClassVar[tuple[str, ...]] = ()

    def check(self, settings: Sequence[Mapping[str, Any]]) -> None:
        """Raises ValueError for fields that the config does not know, and values that a run refuses."""
        if self.measure is not None:
            build.function('measure', {}, self.measure)
        for each in settings:
            start.check(self._config(each))

    def identity(self, settings: Mapping[str, Any]) -> dict[str, str]:
        """The checksums of the models that runs begin with."""
        config = self._config(settings)
        named = dict(config.get('pretrained', {})) | {'warm_start': config.get('warm_start')}
        models = {part: m if isinstance(m, str) or m is None else m['model'] for part, m in named.items()}
        return {part: checksum(model) for part, model in models.items() if model}

    def groups(self, cells: Sequence[Cell]) -> list[list[Cell]]:
        """Each cell alone."""
        return [[cell] for cell in cells]

    def compute(self, cells: Sequence[Cell], results: Results) -> Iterator[Result]:
        """Trains, or goes on with, the run of each cell, and measures its model.

        Raises Preempted on SIGTERM or Ctrl-C when the run's state has been saved.
        """
        for cell in cells:
            workdir = results.folder / WORKDIRS / cell.key
            with Preemption() as signals:
                start.train(self._config(cell.settings), workdir, signals, evaluator=evaluator)
            yield self._result(cell, workdir)

    def set_metrics(self) -> list[Any]:
        """None: a run's metrics of sets are numbers of its own."""
        return []

    def _result(self, cell: Cell, workdir: pathlib.Path) -> Result:
        lines = writers.read_metrics(workdir)
        last: dict[str, Any] = {}
        for line in lines:
            last |= {name: value for name, value in line.items() if not isinstance(value, list)}
        missing = [name for name in self.metrics if name not in last]
        if missing:
            raise unknown('metric of the run', missing[0], sorted(last))
        numbers = {name: float(last[name]) for name in self.metrics}
        arrays: dict[str, np.ndarray] = {}
        if self.measure is not None:
            found = build.function('measure', {}, self.measure)(str(workdir / 'model'), cell.settings)
            for name, value in found.items():
                if np.ndim(value):
                    arrays[f'scores/{name}'] = np.asarray(value)
                else:
                    numbers[name] = float(value)
        return Result(numbers, arrays)

    def _config(self, settings: Mapping[str, Any]) -> dict[str, Any]:
        """The config with a cell's settings. Raises ValueError for fields that it does not know."""
        named = {'run.seed' if name == SEED else name: value for name, value in settings.items()}
        config = copy.deepcopy(dict(self.config))
        whole = {name: value for name, value in named.items() if isinstance(value, Mapping)}
        for name, value in whole.items():  # a component whole, in place of the config's
            *path, last = name.split('.')
            node = config
            for part in path:
                node = node.setdefault(part, {})
            node[last] = copy.deepcopy(dict(value))
        return overrides.apply(config, [(n, _text(v)) for n, v in named.items() if n not in whole])


def _text(value: Any) -> str:
    return value if isinstance(value, str) else repr(value)
