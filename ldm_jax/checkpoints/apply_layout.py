"""Parameters through a layout: a torch file's tensors as leaves, and leaves as a torch file's tensors.

Everything that keys, shapes and dtypes tell is checked before the first number is read.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from ldm_jax import trees
from ldm_jax.checkpoints.files.tensor_file import TensorSpec
from ldm_jax.checkpoints.layouts.rules import Layout, Rule, listed, unflatten
from ldm_jax.checkpoints.lazy_arrays import Arrays, Leaves, all_finite, contiguous, is_float, windows
from ldm_jax.types import PyTree


def import_params(layout: Layout, tensors: Mapping[str, np.ndarray], shapes: PyTree) -> PyTree:
    """Torch tensors to a parameter tree: views of them where the layout allows.

    Args:
        layout: of the file, for the model.
        tensors: key -> array.
        shapes: the model's parameter shapes (`trees.shapes`), which every leaf is checked against.

    Raises ValueError as `Imported` does.
    """
    arrays = {key: np.asarray(array) for key, array in tensors.items()}
    specs = {key: TensorSpec(array.shape, array.dtype) for key, array in arrays.items()}
    imported = Imported(layout, arrays.__getitem__, specs, trees.named(shapes))
    return unflatten(imported.read(list(imported.specs)))


def export_params(layout: Layout, params: PyTree) -> dict[str, np.ndarray]:
    """A parameter tree to torch tensors by key, contiguous: the inverse of `import_params`.

    Raises ValueError for a parameter that the layout does not name, or names but is not there.
    """
    return dict(export(layout, Arrays(trees.named(params))))


@dataclasses.dataclass(frozen=True)
class Imported:
    """The leaves that a torch file's tensors are, by a layout.

    Args:
        layout: of the file, for the model.
        get: the array of a key; it may be a mapped file's.
        tensors: key -> shape and dtype of all that the file holds.
        expected: path -> what the model needs there; anything with a shape.
        finite: refuse tensors with NaN or infinity when they are read.

    Raises:
        ValueError: a key that is missing, unknown, or of the wrong shape, naming the key, both shapes and
            the path; when read, a tensor that is not finite.
    """

    layout: Layout
    get: Callable[[str], np.ndarray]
    tensors: Mapping[str, TensorSpec]
    expected: Mapping[str, Any]
    finite: bool = False

    def __post_init__(self):
        used = {key for rule in self.layout.rules for key in rule.torch}
        missing = sorted(used - self.tensors.keys())
        extra = sorted(key for key in self.tensors.keys() - used if self.layout.ignored(key) is None)
        if missing or extra:
            raise ValueError(
                f'The file does not fit the layout: {listed(missing)} missing, {listed(extra)} unknown. '
                'Is it another model, or another layout of it? --ignore PATTERN leaves unknown keys out.'
            )
        found = self.specs
        unset = sorted(self.expected.keys() - found.keys())
        if unset:
            raise ValueError(f'The layout leaves parameters unset: {listed(unset)}.')

    @functools.cached_property
    def specs(self) -> dict[str, TensorSpec]:
        """path -> shape and dtype, checked against those expected."""
        found = {}
        for rule in self.layout.rules:
            blanks = tuple(_blank(self.tensors[key].shape) for key in rule.torch)
            dtype = self.tensors[rule.torch[0]].dtype
            for path, blank in zip(rule.flax, _to_flax(rule, blanks), strict=True):
                if path not in self.expected:
                    raise ValueError(
                        f'The layout maps {rule.torch} to {path}, which the model does not have.'
                    )
                if blank.shape != tuple(self.expected[path].shape):
                    raise ValueError(
                        f'{_shown(rule, blanks)} gives {path} shape {blank.shape}; '
                        f'the model needs {tuple(self.expected[path].shape)}.'
                    )
                wanted = getattr(self.expected[path], 'dtype', None)
                if wanted is not None and is_float(wanted) and not is_float(dtype):
                    raise ValueError(
                        f'{_shown(rule, blanks)} is {dtype}, and {path} is of floating-point numbers. The file is '
                        'damaged, or quantized; take one in float32, bfloat16 or float16.'
                    )
                found[path] = TensorSpec(blank.shape, dtype)
        return found

    @property
    def ignored(self) -> dict[str, str]:
        """The keys that are left unused, with the reasons."""
        reasons = {key: self.layout.ignored(key) for key in self.tensors}
        used = {key for rule in self.layout.rules for key in rule.torch}
        return {key: reason for key, reason in reasons.items() if key not in used and reason is not None}

    def read(self, paths: Sequence[str]) -> dict[str, np.ndarray]:
        wanted, arrays = set(paths), {}
        for rule in dict.fromkeys(self._rules[path] for path in paths):
            inputs = tuple(self.get(key) for key in rule.torch)
            if self.finite:
                _check_finite(rule.torch, inputs)
            outputs = zip(rule.flax, _to_flax(rule, inputs), strict=True)
            arrays |= {path: array for path, array in outputs if path in wanted}
        return arrays

    @functools.cached_property
    def _rules(self) -> dict[str, Rule]:
        return {path: rule for rule in self.layout.rules for path in rule.flax}


def export_specs(layout: Layout, leaves: Leaves) -> dict[str, TensorSpec]:
    """key -> shape and dtype of what `export` will give.

    Raises ValueError for leaves that the layout does not name, or names but are not there.
    """
    named = {path for rule in layout.rules for path in rule.flax}
    if named != leaves.specs.keys():
        raise ValueError(
            f'The layout does not fit the parameters: {listed(sorted(named - leaves.specs.keys()))} missing, '
            f'{listed(sorted(leaves.specs.keys() - named))} not in the layout.'
        )
    found = {}
    for rule in layout.rules:
        arrays = rule.to_torch(tuple(_blank(leaves.specs[path].shape) for path in rule.flax))
        dtype = np.result_type(*(leaves.specs[path].dtype for path in rule.flax))
        found |= {key: TensorSpec(a.shape, dtype) for key, a in zip(rule.torch, arrays, strict=True)}
    return found


def export(layout: Layout, leaves: Leaves) -> Iterator[tuple[str, np.ndarray]]:
    """(key, contiguous array) of a torch file, rule by rule, a window of leaves in memory at a time.

    Raises ValueError as `export_specs` does.
    """
    export_specs(layout, leaves)
    first = {rule.flax[0]: rule for rule in layout.rules}
    together = {
        path: TensorSpec((sum(leaves.specs[name].nbytes for name in rule.flax),), np.dtype(np.uint8))
        for path, rule in first.items()
    }
    for paths in windows(together):
        rules = [first[path] for path in paths]
        arrays = leaves.read([path for rule in rules for path in rule.flax])
        for rule in rules:
            outputs = rule.to_torch(tuple(arrays.pop(path) for path in rule.flax))
            yield from zip(rule.torch, map(contiguous, outputs), strict=True)


def _blank(shape: tuple[int, ...]) -> np.ndarray:
    """An array of a shape that takes no memory: what a rule does to shapes, it shows."""
    return np.broadcast_to(np.int8(0), shape)


def _to_flax(rule: Rule, inputs: tuple[np.ndarray, ...]) -> tuple[np.ndarray, ...]:
    try:
        return rule.to_flax(inputs)
    except (ValueError, IndexError) as error:
        raise ValueError(f'{_shown(rule, inputs)} cannot become {rule.flax}: {error}.') from error


def _shown(rule: Rule, inputs: tuple[np.ndarray, ...]) -> str:
    return ', '.join(f'{key} {array.shape}' for key, array in zip(rule.torch, inputs, strict=True))


def _check_finite(keys: Sequence[str], inputs: Sequence[np.ndarray]) -> None:
    for key, array in zip(keys, inputs, strict=True):
        if not all_finite(array):
            raise ValueError(
                f'{key} has values that are NaN or infinite. The file is damaged, or was saved after training '
                'went wrong; take another one.'
            )
