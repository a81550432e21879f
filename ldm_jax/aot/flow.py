"""Which arguments of a compiled program a value is made of.

What was gathered from other devices was a weight if it is made of the state alone, and an activation or a gradient if
examples are in it: names and shapes do not tell, since the compiler transposes, merges and renames.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ldm_jax.aot.hlo import Computation, Instruction, Module

Origin = frozenset | tuple  # names of arguments; of a tuple, the origin of each element
NOTHING: frozenset = frozenset()


def origins(module: Module, arguments: Sequence[str]) -> Mapping[tuple[str, str], frozenset]:
    """(computation, instruction) -> names of the arguments that the instruction reads, through all it was made of.

    arguments: the name of each of the program's arguments, in order; several may share one.
    """
    return _Reading(module, arguments).found


class _Reading:
    def __init__(self, module: Module, arguments: Sequence[str]):
        self._module, self.found = module, {}
        each = tuple(frozenset([name]) for name in arguments)
        parameters = module.entry.parameters
        tupled = len(parameters) == 1 and parameters[0].is_tuple  # as the TPU's compiler has many arguments
        if len(each) != (len(parameters[0].shapes) if tupled else len(parameters)):
            raise ValueError(
                f'{len(each)} arguments are named, and the program takes others: {len(parameters)}.'
            )
        self._run(module.entry, {0: each} if tupled else dict(enumerate(each)))

    def _run(self, computation: Computation, given: Mapping[int, Origin]) -> Origin:
        values: dict[str, Origin] = {}
        for name, instruction in computation.instructions.items():
            operands = [values[operand] for operand in instruction.operands if operand in values]
            key = computation.name, name
            self.found[key] = self.found.get(key, NOTHING).union(*map(_flat, operands))
            values[name] = self._value(instruction, operands, given)
        return values[computation.root.name]

    def _value(self, instruction: Instruction, operands: list[Origin], given: Mapping[int, Origin]) -> Origin:
        opcode = instruction.opcode
        if opcode == 'parameter':
            return given.get(instruction.index, NOTHING)
        if opcode == 'tuple':
            return tuple(operands)
        if opcode == 'get-tuple-element':
            whole = operands[0]
            return whole[instruction.index] if isinstance(whole, tuple) else whole
        if opcode in ('opt-barrier', 'copy', 'copy-done', 'bitcast') and len(operands) == 1:
            return operands[0]
        if opcode == 'while':
            return self._loop(instruction, operands[0])
        if opcode in ('fusion', 'call', 'async-start') and instruction.calls:
            return self._run(self._module.computations[instruction.calls[0]], dict(enumerate(operands)))
        if opcode == 'conditional':
            branches = [
                self._run(self._module.computations[name], {0: operand})
                for name, operand in zip(instruction.calls, operands[1:], strict=False)
            ]
            found = branches[0]
            for branch in branches[1:]:
                found = _join(found, branch)
            return found
        if opcode.endswith('-start') and len(operands) == 1:
            return operands[0]  # its result stands in a tuple with what it reads and semaphores
        return NOTHING.union(*map(_flat, operands))

    def _loop(self, instruction: Instruction, state: Origin) -> Origin:
        body = next(
            computation
            for name in instruction.calls
            if (computation := self._module.computations[name]).root.is_tuple
        )
        while True:  # sets only grow, so this ends
            new = _join(state, self._run(body, {0: state}))
            if new == state:
                return state
            state = new


def _flat(origin: Origin) -> frozenset:
    return NOTHING.union(*map(_flat, origin)) if isinstance(origin, tuple) else origin


def _join(a: Origin, b: Origin) -> Origin:
    if isinstance(a, tuple) and isinstance(b, tuple) and len(a) == len(b):
        return tuple(_join(x, y) for x, y in zip(a, b, strict=True))
    return _flat(a) | _flat(b)
