"""How much one device computes and moves through its memory, from the compiled program, loops times their length.

XLA's own count (`Compiled.cost_analysis`) takes a loop's body once; elsewhere FLOPs here and there agree.

FLOPs     of products and convolutions, two for a multiply-add; those with padding's zeros are none.
traffic   bytes of main memory that each instruction reads and writes, fusions as a whole, arrays padded as they are
          stored. An array that is only sliced counts with the slice, one that is updated in place with the update.
"""

from __future__ import annotations

import functools
import math
import re

import numpy as np

from ldm_jax.aot.hlo import FREE, Computation, Instruction, Module

SLICES = ('dynamic-slice', 'slice', 'gather')
NAMES = ('bitcast', 'copy', 'reshape', 'convert', 'transpose')  # through which a slice is still one


def flops(module: Module) -> float:
    """FLOPs of one execution on one device. Those of custom kernels (Pallas) are not in it: they cannot be seen."""
    return sum(
        times * _flops(module, computation, instruction) for computation, instruction, times in module.runs()
    )


def traffic(module: Module) -> float:
    """Bytes through main memory in one execution on one device."""
    return sum(
        times * _traffic(module, computation, instruction)
        for computation, instruction, times in module.runs()
    )


def kernels(module: Module) -> list[str]:
    """Targets of custom calls that compute: their FLOPs are not counted."""
    targets = (
        instruction.attribute('custom_call_target').strip('"')
        for _, instruction, _ in module.runs()
        if instruction.opcode == 'custom-call'
    )
    return sorted({target for target in targets if target == 'tpu_custom_call'})


def _flops(module: Module, computation: Computation, instruction: Instruction) -> float:
    opcode = instruction.opcode
    if opcode in ('fusion', 'async-start'):
        inner = [module.computations[name] for name in instruction.calls]
        return sum(_flops(module, c, part) for c in inner for part in c.instructions.values())
    if opcode not in ('dot', 'convolution'):
        return 0.0
    left, right = (computation.instructions[name].shapes[0] for name in instruction.operands[:2])
    out = instruction.shapes[0]
    if opcode == 'dot':
        contracted = re.search(r'lhs_contracting_dims=\{([0-9,]*)\}', instruction.text)[1]
        axes = [int(axis) for axis in contracted.split(',') if axis]
        return 2.0 * math.prod(out.dims) * math.prod(left.dims[axis] for axis in axes)
    labels = re.search(r'dim_labels=(\w+)_(\w+)->(\w+)', instruction.text).groups()
    pairs = 1
    for axis in sorted(set(labels[2]) - set('bf')):
        sides = [
            shape.dims[label.index(axis)] for shape, label in zip((left, right, out), labels, strict=True)
        ]
        pairs *= _pairs(*sides, *_window(instruction, int(axis)))
    features = [out.dims[labels[2].index(label)] for label in 'bf']
    return 2.0 * math.prod(features) * right.dims[labels[1].index('i')] * pairs


def _window(instruction: Instruction, axis: int) -> tuple[int, int, int, int]:
    """Stride, padding before, and dilation of input and kernel along a dimension of a convolution's window."""
    found = re.search(r'window=\{([^}]*)\}', instruction.text)
    fields = dict(part.split('=') for part in found[1].split()) if found else {}

    def along(name, default):
        return fields[name].split('x')[axis] if name in fields else default

    before = along('pad', '0_0').split('_')[0]
    return (
        int(along('stride', '1')),
        int(before),
        int(along('lhs_dilate', '1')),
        int(along('rhs_dilate', '1')),
    )


@functools.lru_cache(maxsize=4096)
def _pairs(side: int, kernel: int, out: int, stride: int, pad: int, spread: int, dilate: int) -> int:
    """How many pairs of an output and a place in the kernel meet a number of the input, along one dimension."""
    at = np.arange(out)[:, None] * stride - pad + np.arange(kernel) * dilate
    return int(np.sum((at >= 0) & (at <= (side - 1) * spread) & (at % spread == 0)))


def _traffic(module: Module, computation: Computation, instruction: Instruction) -> float:
    opcode = instruction.opcode
    if (
        opcode in FREE
        or opcode.endswith(('-done', '-update'))
        or (opcode == 'custom-call' and not instruction.operands)
    ):
        return 0.0
    operands = [
        computation.instructions[name] for name in instruction.operands if name in computation.instructions
    ]
    if opcode == 'fusion':
        inner = module.computations[instruction.calls[0]]
        read = [_read(inner, i, operand) for i, operand in enumerate(operands)]
        updated = _updated(inner)
        if (
            updated is not None
        ):  # in place: that array is not read, and of the result only the update is written
            number, size = updated
            return sum(r for i, r in enumerate(read) if i != number) + size * _main(instruction)
        return sum(read) + _written(instruction)
    if opcode in SLICES:
        return 2.0 * _written(instruction)
    if opcode == 'dynamic-update-slice':
        return 2.0 * _written(operands[1])
    if opcode.endswith('-start'):  # its result is a tuple with what it reads
        return 2.0 * sum(_written(operand) for operand in operands)
    return sum(map(_written, operands)) + _written(instruction)


def _main(instruction: Instruction) -> bool:
    return instruction.shapes[0].space == 0


def _written(instruction: Instruction) -> float:
    return float(sum(shape.padded for shape in instruction.shapes if shape.space == 0))


def _read(inner: Computation, number: int, operand: Instruction) -> float:
    """Bytes of an operand that a fusion reads: of one that it only slices, the slices."""
    whole = _written(operand)
    if number not in inner.parameters or not whole:
        return whole
    slices, seen = 0.0, [inner.parameters[number].name]
    while seen:
        name = seen.pop()
        for user in inner.instructions.values():
            if name not in user.operands:
                continue
            if user.opcode in SLICES and user.operands[0] == name:
                slices += sum(shape.padded for shape in user.shapes)
            elif user.opcode in NAMES:
                seen.append(user.name)
            else:
                return whole
    return min(whole, slices) if slices else whole


def _updated(inner: Computation) -> tuple[int, float] | None:
    """(which operand, bytes) of a fusion that updates part of an operand in place; None for others."""
    root = inner.root
    while root.opcode in NAMES and len(root.operands) == 1:
        root = inner.instructions[root.operands[0]]
    if root.opcode != 'dynamic-update-slice':
        return None
    target, update = (inner.instructions[name] for name in root.operands[:2])
    while target.opcode in NAMES and len(target.operands) == 1:
        target = inner.instructions[target.operands[0]]
    if target.opcode != 'parameter':
        return None
    return target.index, float(update.shapes[0].padded)
