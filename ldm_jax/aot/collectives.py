"""What devices say to each other: each collective's kind, size and the axis of the mesh that it runs along.

A collective's size is that of the whole array: an all-gather's result, what an all-reduce or a reduce-scatter adds up,
what an all-to-all or a permutation sends. On a ring of n, of that each device sends (n - 1) / n, twice for an
all-reduce. Ref: Thakur et al. 2005, "Optimization of collective communication operations in MPICH".
"""

from __future__ import annotations

import collections
import dataclasses
import math
import re
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from ldm_jax.aot.flow import origins
from ldm_jax.aot.hlo import Computation, Instruction, Module

KINDS = (
    'all-reduce', 'all-gather', 'reduce-scatter', 'all-to-all', 'ragged-all-to-all', 'collective-permute',
    'collective-broadcast',
)  # fmt: skip
WEIGHTS, ACTIVATIONS = 'weights', 'activations or gradients'
STATE = 'state'
MOVES = ('all-gather', 'all-to-all', 'ragged-all-to-all', 'collective-permute', 'collective-broadcast')


@dataclasses.dataclass(frozen=True)
class Collective:
    """One line of the program.

    nbytes: its size, see above; times: how often it runs in one execution; axes: of the mesh, those along which its
    groups lie; group: devices in each; moves: 'weights' or 'activations or gradients' where it brings arrays
    elsewhere, '' where it adds them up.
    """

    kind: str
    nbytes: int
    times: float
    axes: tuple[str, ...]
    group: int
    moves: str
    op_name: str

    @property
    def sent(self) -> float:
        """Bytes that each device sends, over all executions of the line in one run of the program."""
        share = 1.0 if self.kind in ('collective-permute', 'collective-broadcast') else 1 - 1 / self.group
        return self.times * self.nbytes * share * (2 if self.kind == 'all-reduce' else 1)


@dataclasses.dataclass(frozen=True)
class Row:
    """Collectives of one kind along the same axes."""

    kind: str
    axes: tuple[str, ...]
    moves: str
    lines: int  # in the program
    times: float  # that one runs
    nbytes: float  # of all together
    largest: int
    sent: float


def collectives(module: Module, mesh: Mapping[str, int], arguments: Sequence[str]) -> list[Collective]:
    """Every collective among devices that differ.

    Args:
        mesh: sizes of the axes by name; devices are numbered along them, the last one fastest.
        arguments: the name of each of the program's arguments, in order; those named STATE hold weights.
    """
    sources = origins(module, arguments)
    found = []
    for outer, instruction, times in module.runs():
        for computation, inner, kind in _inside(module, outer, instruction):
            groups = (
                pairs(inner)
                if kind == 'collective-permute'
                else replica_groups(inner, math.prod(mesh.values()))
            )
            if groups.shape[1] < 2:
                continue
            read = sum(_nbytes(computation, inner))
            size = read * (groups.shape[1] if kind == 'all-gather' else 1)
            moves = ''
            if kind in MOVES:
                made_of = sources.get((computation.name, inner.name), frozenset())
                moves = WEIGHTS if made_of <= {STATE} else ACTIVATIONS
            name = inner.op_name or instruction.op_name
            found.append(Collective(kind, size, times, axes(groups, mesh), groups.shape[1], moves, name))
    return found


def rows(found: list[Collective]) -> list[Row]:
    """Collectives added up by kind, axes and what they move, the most bytes first."""
    groups = collections.defaultdict(list)
    for one in found:
        groups[one.kind, one.axes, one.moves].append(one)
    added = [
        Row(
            kind, axes, moves, len(group), sum(c.times for c in group), sum(c.times * c.nbytes for c in group),
            max(c.nbytes for c in group), sum(c.sent for c in group),
        )
        for (kind, axes, moves), group in groups.items()
    ]  # fmt: skip
    return sorted(added, key=lambda row: -row.sent)


def replica_groups(instruction: Instruction, devices: int) -> np.ndarray:
    """Which devices talk: [groups, devices of each].

    XLA writes lists {{0,1},{2,3}}, iotas [2,4]<=[4,2]T(1,0), or axes of a mesh of its own.

    Raises ValueError for a form that is none of these.
    """
    text = instruction.text
    if match := re.search(r'replica_groups=\{(\{[0-9,{}\s]*\})?\}', text):
        if not match[1]:
            return np.arange(devices)[None]
        return np.array(
            [list(map(int, group.split(','))) for group in re.findall(r'\{([0-9,]+)\}', match[1])]
        )
    if match := re.search(r'replica_groups=\[([0-9,]+)\](<=\[[0-9,]+\](?:T\([0-9,]+\))?)', text):
        return _iota(match[2]).reshape(_ints(match[1]))
    if match := re.search(
        r'replica_groups=@?mesh\w*\[([^\]]*)\](?:,\s*device_ids=\(([^{]*)\))?\s*\{([^}]*)\}', text
    ):
        sizes = {name: int(size) for name, size in re.findall(r"'([^']+)'=(\d+)", match[1])}
        ids = np.arange(math.prod(sizes.values()))
        if match[2]:
            ids = _permuted(match[2]).reshape(-1)
        return _along(ids.reshape(tuple(sizes.values())), list(sizes), match[3])
    raise ValueError(f'Replica groups in a form that is not known here: {text[:200]!r}.')


def pairs(instruction: Instruction) -> np.ndarray:
    """[pairs, 2] sources and targets of a permutation, those of a device with itself left out."""
    listed = re.search(r'source_target_pairs=\{(.*?\})\}', instruction.text)
    found = [tuple(map(int, pair.split(','))) for pair in re.findall(r'\{([0-9,]+)\}', listed[1])]
    return np.array([pair for pair in found if pair[0] != pair[1]] or [(0,)])


def axes(groups: np.ndarray, mesh: Mapping[str, int]) -> tuple[str, ...]:
    """The axes of a mesh along which members of a group differ."""
    places = np.stack(np.unravel_index(groups, tuple(mesh.values())), -1)  # [groups, members, axes]
    differ = (places != places[:, :1]).any((0, 1))
    return tuple(axis for axis, differs in zip(mesh, differ, strict=True) if differs)


def _inside(
    module: Module, computation: Computation, instruction: Instruction
) -> Iterator[tuple[Computation, Instruction, str]]:
    """The collectives that an instruction is or that are fused into it, with their kinds."""
    opcode = instruction.opcode
    if opcode.removesuffix('-start') in KINDS:
        yield computation, instruction, opcode.removesuffix('-start')
    elif opcode in ('fusion', 'async-start'):
        for name in instruction.calls:
            inner = module.computations[name]
            for part in inner.instructions.values():
                for found in _inside(module, inner, part):
                    scattered = found[2] == 'all-reduce' and inner.root.opcode == 'dynamic-slice'
                    yield (*found[:2], 'reduce-scatter') if scattered else found


def _nbytes(computation: Computation, instruction: Instruction) -> list[int]:
    return [
        shape.nbytes
        for name in instruction.operands
        if name in computation.instructions
        for shape in computation.instructions[name].shapes
    ]


def _ints(text: str) -> tuple[int, ...]:
    return tuple(map(int, text.split(',')))


def _iota(text: str) -> np.ndarray:
    dims, order = re.fullmatch(r'<=\[([0-9,]+)\](?:T\(([0-9,]+)\))?', text).groups()
    ids = np.arange(math.prod(_ints(dims))).reshape(_ints(dims))
    return (ids.transpose(_ints(order)) if order else ids).reshape(-1)


def _permuted(text: str) -> np.ndarray:
    """Device numbers of '[2,8]T(1,0)' or '[4]<=[4]': an iota of these sizes, transposed."""
    match = re.match(r'\[([0-9,]+)\](?:<=\[([0-9,]+)\])?(?:T\(([0-9,]+)\))?', text)
    dims = match[2] or match[1]
    return _iota(f'<=[{dims}]' + (f'T({match[3]})' if match[3] else ''))


def _along(ids: np.ndarray, names: list[str], chosen: str) -> np.ndarray:
    """Groups along some axes of a mesh of devices, or parts of axes: 'x', or 'x':(2)4, the 4 inside of each half."""
    shape, picked = [], []
    wanted = {name: (pre, size) for name, pre, size in re.findall(r"'([^']+)'(?::\((\d+)\)(\d+))?", chosen)}
    for name, size in zip(names, ids.shape, strict=True):
        if name not in wanted:
            shape.append(size)
        elif not wanted[name][1]:
            picked.append(len(shape))
            shape.append(size)
        else:
            pre, middle = map(int, wanted[name])
            picked.append(len(shape) + 1)
            shape += [pre, middle, size // (pre * middle)]
    ids = ids.reshape(shape)
    rest = [axis for axis in range(len(shape)) if axis not in picked]
    members = math.prod(shape[axis] for axis in picked)
    return ids.transpose(*rest, *picked).reshape(-1, members)
