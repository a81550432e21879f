"""Results of cells in a folder, each kept under its key: what is there is never computed again.

cells/KEY.json     numbers, seconds, settings; written last, so that it is there if and only if the cell is whole
cells/KEY.npz      scores of each image, rows of features, some images
failed/KEY.txt     the error of a cell that failed; it goes when the cell succeeds
"""

from __future__ import annotations

import contextlib
import dataclasses
import io
import json
import pathlib
import traceback
from collections.abc import Iterator, Mapping, Sequence

import filelock
import numpy as np

from ldm_jax import atomic
from ldm_jax.sweeps.definition import Cell


@dataclasses.dataclass(frozen=True, eq=False)
class Result:
    """What a cell gave.

    Attributes:
        numbers: by name, of the whole cell.
        arrays: by name; 'scores/NAME' [N] are of each image, 'rows/NAME' [N, D] features, 'images' uint8 [n, H, W, 3].
    """

    numbers: Mapping[str, float]
    arrays: Mapping[str, np.ndarray] = dataclasses.field(default_factory=dict)

    def scores(self) -> dict[str, np.ndarray]:
        return {k.partition('/')[2]: a for k, a in self.arrays.items() if k.startswith('scores/')}


@dataclasses.dataclass(frozen=True)
class Results:
    """The folder of a sweep's results, which several processes and machines may share."""

    folder: pathlib.Path

    def has(self, key: str) -> bool:
        return self._path(key, 'json').is_file()

    def write(self, cell: Cell, result: Result) -> None:
        """Keeps a cell's result, whole or not at all. Raises ValueError for a number that is not finite."""
        bad = [name for name, value in result.numbers.items() if not np.isfinite(value)]
        bad += [name for name, a in result.arrays.items() if a.dtype.kind == 'f' and not np.isfinite(a).all()]
        if bad:
            raise ValueError(f'{bad[0]} is not finite')
        self._path(cell.key, 'json').parent.mkdir(parents=True, exist_ok=True)
        packed = io.BytesIO()
        np.savez_compressed(packed, **result.arrays)
        atomic.write(self._path(cell.key, 'npz'), packed.getvalue())
        record = {'settings': dict(cell.settings), 'numbers': dict(result.numbers)}
        atomic.write(self._path(cell.key, 'json'), json.dumps(record, indent=1, default=str) + '\n')
        self._failure(cell.key).unlink(missing_ok=True)

    def read(self, key: str) -> Result:
        with np.load(self._path(key, 'npz')) as arrays:
            return Result(self.numbers(key), dict(arrays))

    def numbers(self, key: str) -> dict[str, float]:
        return json.loads(self._path(key, 'json').read_text())['numbers']

    def fail(self, cell: Cell, error: Exception) -> None:
        """Notes that a cell failed, with the traceback."""
        self._failure(cell.key).parent.mkdir(parents=True, exist_ok=True)
        atomic.write(self._failure(cell.key), ''.join(traceback.format_exception(error)))

    def forget_failures(self, cells: Sequence[Cell]) -> None:
        """Before they are computed again."""
        for cell in cells:
            self._failure(cell.key).unlink(missing_ok=True)

    def failures(self, cells: Sequence[Cell]) -> dict[str, str]:
        """Key -> the last line of the error, of the cells that failed."""
        found = {}
        for cell in cells:
            with contextlib.suppress(FileNotFoundError):
                found[cell.key] = self._failure(cell.key).read_text().strip().rpartition('\n')[2]
        return {key: line for key, line in found.items() if not self.has(key)}

    @contextlib.contextmanager
    def claimed(self, name: str) -> Iterator[None]:
        """Holds a name while the block runs; others that want it wait."""
        place = self.folder / 'claims' / f'{name}.lock'
        place.parent.mkdir(parents=True, exist_ok=True)
        with filelock.FileLock(place):
            yield

    def _path(self, key: str, ending: str) -> pathlib.Path:
        return self.folder / 'cells' / f'{key}.{ending}'

    def _failure(self, key: str) -> pathlib.Path:
        return self.folder / 'failed' / f'{key}.txt'
