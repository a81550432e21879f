"""XLA's optimised program as text, read into computations and instructions.

Only what counting needs is kept: types, operands, the computations that an instruction calls and how often a loop's
body runs. Text is the one form that every compiler gives (`jax.stages.Compiled.as_text`).
Ref: openxla.org/xla/operation_semantics.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import re
from collections.abc import Iterator, Mapping

BITS = {'pred': 8, 'token': 0, 'opaque': 0}  # the others have theirs in the name: bf16, s4, f8e4m3fn
FREE = {  # of no cost themselves: names for memory that is there
    'parameter', 'constant', 'tuple', 'get-tuple-element', 'bitcast', 'after-all', 'partition-id', 'replica-id',
    'opt-barrier', 'while', 'conditional', 'call',
}  # fmt: skip

_ARRAY = re.compile(r'([a-z][a-z0-9]*)\[([0-9,]*)\](?:\{([0-9,]*)(?::([^}]*))?\})?')
_NAME = re.compile(r'%([\w.\-]+)')
_LINE = re.compile(r'^\s*(ROOT )?%?([\w.\-]+) = ')
_HEAD = re.compile(r'^(ENTRY )?%?([\w.\-]+) \(.*\{$')
_CALLS = re.compile(
    r'\b(calls|to_apply|body|condition|true_computation|false_computation)=%?([\w.\-]+)'
    r'|\bbranch_computations=\{([^}]*)\}'
)


@dataclasses.dataclass(frozen=True)
class Shape:
    """An array of one device."""

    dtype: str
    dims: tuple[int, ...]
    order: tuple[int, ...] = ()  # of the dimensions in memory, the one that changes fastest first
    tile: tuple[int, ...] = ()  # that the fastest dimensions are padded to
    space: int = 0  # 0 is the device's main memory; on a TPU 1 is on the chip

    @property
    def nbytes(self) -> int:
        """Without padding."""
        return math.prod(self.dims) * bits(self.dtype) // 8

    @property
    def padded(self) -> int:
        """Bytes in memory: a TPU lays arrays out in tiles, of 8 x 128 numbers or so."""
        sizes = [self.dims[axis] for axis in self.order]
        for i, side in enumerate(reversed(self.tile)):
            if i < len(sizes):
                sizes[i] = -(-sizes[i] // side) * side
        return math.prod(sizes or self.dims) * bits(self.dtype) // 8


def bits(dtype: str) -> int:
    """Bits of a number."""
    if dtype in BITS:
        return BITS[dtype]
    size = re.match(r'[a-z]+(\d+)', dtype)
    if size is None:
        raise ValueError(f'XLA has written an element type that is not known here: {dtype!r}.')
    return int(size[1])


@dataclasses.dataclass(frozen=True)
class Instruction:
    """One line: its arrays (several of a tuple, in order), what it reads and what it calls."""

    name: str
    opcode: str
    shapes: tuple[Shape, ...]
    operands: tuple[str, ...]
    text: str  # behind the operands: attributes; of a parameter or constant what stands between the brackets first
    calls: tuple[str, ...]
    is_tuple: bool = False

    @property
    def op_name(self) -> str:
        """Where in the traced program it comes from; '' where the compiler does not say."""
        found = re.search(r'metadata=\{[^}]*op_name="([^"]*)"', self.text)
        return found[1] if found else ''

    @property
    def index(self) -> int:
        """The number of a parameter, or of the element that a get-tuple-element takes."""
        return int(re.match(r'\d+', self.text)[0] if self.opcode == 'parameter' else self.attribute('index'))

    def attribute(self, name: str) -> str:
        """The value of a plain attribute; '' where it is not given."""
        found = re.search(rf'\b{name}=([^,\s]+)', self.text)
        return found[1] if found else ''


@dataclasses.dataclass(frozen=True)
class Computation:
    """Instructions by name, in an order in which each comes after what it reads."""

    name: str
    instructions: Mapping[str, Instruction]
    root: Instruction

    @functools.cached_property
    def parameters(self) -> dict[int, Instruction]:
        return {i.index: i for i in self.instructions.values() if i.opcode == 'parameter'}


@dataclasses.dataclass(frozen=True)
class Module:
    """A compiled program: its computations and which of them is entered."""

    computations: Mapping[str, Computation]
    entry: Computation

    def runs(self) -> Iterator[tuple[Computation, Instruction, float]]:
        """Every instruction that runs by itself, where it stands and how often it runs in one execution.

        A fusion is one instruction. Each branch of a conditional counts as taken, and a loop of unknown length as one
        round (see `unknown_loops`).
        """
        yield from self._runs(self.entry, 1.0)

    def _runs(
        self, computation: Computation, times: float
    ) -> Iterator[tuple[Computation, Instruction, float]]:
        for instruction in computation.instructions.values():
            yield computation, instruction, times
            if instruction.opcode == 'while':
                rounds = times * (self.rounds(computation, instruction) or 1)
                yield from self._runs(self.computations[_called(instruction, 'body')], rounds)
            elif instruction.opcode in ('call', 'conditional'):
                for name in instruction.calls:
                    yield from self._runs(self.computations[name], times)

    def unknown_loops(self) -> int:
        """How many loops have a length that shows only when they run."""
        return sum(
            instruction.opcode == 'while' and self.rounds(computation, instruction) is None
            for computation, instruction, _ in self.runs()
        )

    def rounds(self, computation: Computation, loop: Instruction) -> int | None:
        """How often a while's body runs; None where the text does not show it.

        It does where the compiler says it, and where a counter from one constant goes by another below a third. The
        step need not be one: the TPU's compiler unrolls the loops in which it multiplies arrays that are being sent.
        """
        known = re.search(r'"known_trip_count":\{"n":"(\d+)"\}', loop.text)
        if known:
            return int(known[1])
        condition, body = (self.computations[_called(loop, role)] for role in ('condition', 'body'))
        compare = condition.root
        if compare.opcode != 'compare' or compare.attribute('direction') != 'LT':
            return None
        counter, bound = (_behind(condition, condition.instructions[name]) for name in compare.operands)
        if counter.opcode != 'get-tuple-element' or body.root.opcode != 'tuple':
            return None
        first, last = (_start(computation, loop, value) for value in (counter, bound))
        new = _behind(body, body.instructions[body.root.operands[counter.index]])
        added = (
            [_behind(body, body.instructions[name]) for name in new.operands] if new.opcode == 'add' else []
        )
        steps = [
            _start(computation, loop, value)
            for value in added
            if not (value.opcode == 'get-tuple-element' and value.index == counter.index)
        ]
        if first is None or last is None or len(steps) != 1 or not steps[0]:
            return None
        return max(-(-(last - first) // steps[0]), 0)


def parse(text: str) -> Module:
    """The module that `jax.stages.Compiled.as_text` describes.

    Raises ValueError for a text that is none.
    """
    computations: dict[str, Computation] = {}
    entry = name = root = None
    found: dict[str, Instruction] = {}
    for line in text.splitlines():
        if name is None:
            head = _HEAD.match(line)
            if head:
                name, found = head[2], {}
                entry = name if head[1] else entry
        elif line.startswith('}'):
            computations[name] = Computation(name, found, root)
            name = None
        elif match := _LINE.match(line):
            instruction = _instruction(match[2], line[match.end() :])
            found[instruction.name] = instruction
            root = instruction if match[1] else root
    if entry is None:
        raise ValueError('This is not the text of an XLA module: it has no ENTRY computation.')
    return Module(computations, computations[entry])


def _instruction(name: str, text: str) -> Instruction:
    end = _closing(text, 0) + 1 if text.startswith('(') else text.index(' ')
    kind, rest = text[:end], text[end:].lstrip()
    bracket = rest.index('(')
    close = _closing(rest, bracket)
    opcode, inside, attributes = rest[:bracket], rest[bracket + 1 : close], rest[close + 1 :]
    calls = []
    for match in _CALLS.finditer(attributes):
        calls += [match[2]] if match[2] else [part.strip().lstrip('%') for part in match[3].split(',')]
    leaf = opcode in ('parameter', 'constant')
    return Instruction(
        name=name,
        opcode=opcode,
        shapes=tuple(map(_shape, _ARRAY.finditer(kind))),
        operands=() if leaf else tuple(_NAME.findall(inside)),
        text=f'{inside}{attributes}' if leaf else attributes,
        calls=tuple(calls),
        is_tuple=kind.startswith('('),
    )


def _shape(match: re.Match) -> Shape:
    dtype, dims, order, layout = match.groups(default='')
    tile = re.search(r'T\(([0-9,]+)\)', layout)
    space = re.search(r'S\((\d+)\)', layout)
    return Shape(
        dtype,
        _numbers(dims),
        _numbers(order),
        _numbers(tile[1]) if tile else (),
        int(space[1]) if space else 0,
    )


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(map(int, text.split(','))) if text else ()


def _closing(text: str, start: int) -> int:
    """Where the bracket that opens at `start` closes."""
    depth = 0
    for match in re.compile(r'[()]').finditer(text, start):
        depth += 1 if match[0] == '(' else -1
        if not depth:
            return match.start()
    raise ValueError(f'Brackets do not close in {text[:80]!r}.')


def _behind(computation: Computation, value: Instruction) -> Instruction:
    """What a value is a copy of."""
    while value.opcode in ('copy', 'bitcast', 'copy-done', 'copy-start'):
        value = computation.instructions[value.operands[0]]
    return value


def _start(outer: Computation, loop: Instruction, value: Instruction) -> int | None:
    """What a value of a loop's condition or body is before the first round, where it is a constant."""
    if value.opcode == 'get-tuple-element':
        start = outer.instructions[loop.operands[0]]
        if start.opcode != 'tuple':
            return None
        value = _behind(outer, outer.instructions[start.operands[value.index]])
    return _number(value) if value.opcode == 'constant' else None


def _called(instruction: Instruction, role: str) -> str:
    return next(m[2] for m in _CALLS.finditer(instruction.text) if m[1] == role)


def _number(constant: Instruction) -> int | None:
    found = re.match(r'-?\d+(?=\b[^.]|$)', constant.text)
    return int(found[0]) if found else None
