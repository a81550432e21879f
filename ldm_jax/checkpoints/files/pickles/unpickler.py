"""A pickle machine that builds data and runs nothing.

It is not a subclass of Python's: every opcode is here, and none of them imports, calls, or sets an attribute on
anything but an `Inert`. Names are looked up in `allowed`. What cannot be in a checkpoint is an error: extension
codes, out-of-band buffers, and protocol 0's quoted text and persistent ids, which cannot name a storage.

Memory is bounded by a budget: each opcode costs what the dearest may allocate, text and bytes four times their
length, which is what Python's widest strings take. So a pickle of a million empty lists fails, small.

Ref: the pickle protocol, versions 0 to 5, as in the comments of Python's Lib/pickletools.py.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any

from ldm_jax.checkpoints.files.pickles import allowed
from ldm_jax.checkpoints.files.pickles.allowed import (
    Constructor,
    Inert,
    NumpyDtype,
    Storage,
    StorageType,
    Tensor,
    TorchDtype,
)
from ldm_jax.checkpoints.files.tensor_file import BadFile, MappedFile

MAX_PICKLE = 64 << 20  # bytes; Stable Diffusion's with all optimizer states takes about two
OPCODE = 128  # bytes of budget; an entry of a growing dict takes about 100
BUDGET = 32 << 20  # bytes, beside as many as the file has
MAX_INTEGER = 256  # bytes; torch's magic number has 10
MAX_NAME = 200  # letters of a refused name that are kept

_MALFORMED = (ValueError, TypeError, IndexError, KeyError, OverflowError, AttributeError, struct.error)


class Unpickler:
    """Reads pickles that follow each other in `data`.

    Attributes:
        position: in `data`, behind the pickle that was read last.
        refused: names that pickles wanted and did not get, in order of appearance.
        storages: key -> a storage, as the pickles first named it.
    """

    def __init__(self, file: MappedFile, data: bytes):
        self.file, self.data = file, data
        self.position = 0
        self.refused: dict[str, None] = {}
        self.storages: dict[str, Storage] = {}
        self._budget = BUDGET + file.size

    def load(self) -> Any:
        """The next pickle's object: dicts, lists, tuples, numbers, text, and what `allowed` describes.

        Raises BadFile for a malformed pickle, and for one beyond the budget.
        """
        self._stack: list[Any] = []
        self._marks: list[int] = []  # places in the stack; nothing is popped from below the last
        self._memo: dict[int, Any] = {}
        start = at = self.position
        try:
            while True:
                at = self.position
                (code,) = self._take(1)
                if code == 0x2E:  # STOP
                    break
                self._charge(OPCODE)
                operation = _OPCODES.get(code)
                if operation is None:
                    raise ValueError(f'no opcode, or none of a checkpoint: {bytes([code])!r}')
                operation(self)
            value = self._pop()
            if self._stack or self._marks:
                raise ValueError('it stops with more than one object')
            return value
        except BadFile:
            raise
        except _MALFORMED as error:
            reason = f'{error}' if isinstance(error, ValueError) else f'{type(error).__name__}: {error}'
            raise self.file.error(
                f'its pickle, at byte {at - start}: {reason[:400]}. It is damaged, or no checkpoint.'
            ) from None
        finally:
            self._stack, self._marks, self._memo = [], [], {}

    # Reading

    def _charge(self, count: int) -> None:
        self._budget -= count
        if self._budget < 0:
            raise self.file.error(
                'its pickle makes more objects than its size justifies. It is no checkpoint; do not trust it.'
            )

    def _take(self, count: int) -> bytes:
        if count > len(self.data) - self.position:
            if len(self.data) >= MAX_PICKLE:
                raise ValueError(f'it is longer than {MAX_PICKLE} bytes, the most that is read')
            raise ValueError(f'{count} more bytes are needed and {len(self.data) - self.position} are there')
        self.position += count
        return self.data[self.position - count : self.position]

    def _number(self, format: str) -> Any:
        return struct.unpack(format, self._take(struct.calcsize(format)))[0]

    def _payload(self, length_format: str) -> bytes:
        count = self._number(length_format)
        if count < 0:
            raise ValueError(f'a length of {count}')
        self._charge(4 * count)
        return self._take(count)

    def _line(self) -> bytes:
        end = self.data.find(b'\n', self.position)
        if end < 0:
            raise ValueError('a line without an end')
        self._charge(4 * (end - self.position))
        return self._take(end + 1 - self.position)[:-1]

    # The stack

    def _push(self, value: Any) -> None:
        self._stack.append(value)

    def _pop(self) -> Any:
        self._need(1)
        return self._stack.pop()

    def _need(self, count: int) -> None:
        if len(self._stack) - (self._marks[-1] if self._marks else 0) < count:
            raise ValueError('the stack is too short')

    def _top(self) -> Any:
        self._need(1)
        return self._stack[-1]

    def _since_mark(self) -> list[Any]:
        if not self._marks:
            raise ValueError('there is no mark')
        start = self._marks.pop()
        items = self._stack[start:]
        del self._stack[start:]
        return items

    def _last(self, count: int) -> tuple:
        self._need(count)
        items = tuple(self._stack[-count:])
        del self._stack[-count:]
        return items

    # Plain values

    def _proto(self) -> None:
        version = self._number('B')
        if version > 5:
            raise ValueError(f'protocol {version}; 0 to 5 are known')

    def _frame(self) -> None:
        if self._number('<Q') > len(self.data) - self.position:
            raise ValueError('a frame beyond the end')

    def _integer_line(self) -> None:
        line = self._line()
        if line in (b'00', b'01'):  # protocol 0's booleans
            return self._push(line == b'01')
        self._push(self._decimal(line))

    def _long_line(self) -> None:
        self._push(self._decimal(self._line().removesuffix(b'L')))

    def _decimal(self, line: bytes) -> int:
        if len(line) > 2 * MAX_INTEGER:
            raise ValueError(f'an integer of {len(line)} digits')
        return int(line)

    def _long(self, length_format: str) -> None:
        count = self._number(length_format)
        if not 0 <= count <= MAX_INTEGER:
            raise ValueError(f'an integer of {count} bytes; at most {MAX_INTEGER} are allowed')
        self._push(int.from_bytes(self._take(count), 'little', signed=True))

    # Containers

    def _append(self, items: list[Any] | tuple) -> None:
        target = self._top()
        if isinstance(target, list):
            target.extend(items)
        elif not isinstance(target, Inert):  # which drops them
            raise ValueError(f'items are put in {_kind(target)}')

    def _set(self, items: list[Any] | tuple) -> None:
        target = self._top()
        if len(items) % 2:
            raise ValueError('a key without a value')
        if isinstance(target, dict):
            for index in range(0, len(items), 2):
                target[allowed.hashable(items[index])] = items[index + 1]
        elif not isinstance(target, Inert):
            raise ValueError(f'a key is set in {_kind(target)}')

    def _set_items(self) -> None:
        items = self._since_mark()
        self._set(items)

    def _append_items(self) -> None:
        items = self._since_mark()
        self._append(items)

    def _dict_of_mark(self) -> None:
        items = self._since_mark()
        self._push({})
        self._set(items)

    # The memo

    def _remember(self, index: int) -> None:
        if index < 0:
            raise ValueError(f'a memo index of {index}')
        self._memo[index] = self._top()

    def _recall(self, index: int) -> None:
        if index not in self._memo:
            raise ValueError(f'nothing was remembered as {index}')
        self._push(self._memo[index])

    # Names and what would be calls

    def _find(self, module: str, name: str) -> Any:
        found = allowed.find(module, name)
        if found is None:
            full = f'{module}.{name}'[:MAX_NAME]
            self.refused.setdefault(full)
            return Inert(full)
        return found

    def _global(self) -> None:
        module = self._line().decode()
        self._push(self._find(module, self._line().decode()))

    def _stack_global(self) -> None:
        module, name = self._last(2)
        if not isinstance(module, str) or not isinstance(name, str):
            raise ValueError(f'a name that is {_kind(name)} of {_kind(module)}')
        self._push(self._find(module, name))

    def _reduce(self) -> None:
        function, arguments = self._last(2)
        self._push(self._made(function, arguments))

    def _new_object_with_keywords(self) -> None:
        kind, arguments, keywords = self._last(3)
        if not isinstance(keywords, dict):
            raise ValueError(f'keywords that are {_kind(keywords)}')
        if keywords and isinstance(kind, Constructor):
            raise ValueError(f'{kind.name} with keywords')
        self._push(self._made(kind, arguments))

    def _instance(self) -> None:
        module = self._line().decode()
        function = self._find(module, self._line().decode())
        self._push(self._made(function, tuple(self._since_mark())))

    def _object(self) -> None:
        items = self._since_mark()
        if not items:
            raise ValueError('an object of no class')
        self._push(self._made(items[0], tuple(items[1:])))

    def _made(self, function: Any, arguments: Any) -> Any:
        """What a call would have given: one of our constructors', or nothing that does anything."""
        if not isinstance(arguments, tuple):
            raise ValueError(f'arguments that are {_kind(arguments)}')
        if isinstance(function, Constructor):
            made = function.make(arguments, self._charge)
            if isinstance(made, Inert):
                self.refused.setdefault(made.name)
            return made
        if isinstance(function, Inert):
            return Inert(function.name)
        if isinstance(function, StorageType | TorchDtype):
            return Inert('torch storage or dtype')
        raise ValueError(f'{_kind(function)} is called')

    def _build(self) -> None:
        """Sets state: kept on an Inert, a byte order on a NumPy dtype; a dict's attributes are not needed."""
        state = self._pop()
        target = self._top()
        if isinstance(target, Inert):
            target.state = state
        elif isinstance(target, NumpyDtype):
            if not isinstance(state, tuple) or len(state) < 2 or state[1] not in ('<', '>', '|', '='):
                raise ValueError('a NumPy dtype whose byte order is none')
            target.dtype = target.dtype.newbyteorder(state[1])
        elif not isinstance(target, dict | Tensor):
            raise ValueError(f'state is set on {_kind(target)}')

    def _persistent(self) -> None:
        storage = allowed.storage(self._pop())
        if isinstance(storage, Storage):
            self.storages.setdefault(storage.key, storage)
        self._push(storage)


def _kind(value: Any) -> str:
    """For errors: a value of a file is not shown, it may be endless."""
    return value.name if isinstance(value, Inert | Constructor) else f'a {type(value).__name__}'


def _python2_text(raw: bytes) -> str | bytes:
    """Python 2 wrote text and bytes alike; PyTorch reads them as UTF-8."""
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return raw


def _pop_or_mark(machine: Unpickler) -> None:
    if machine._marks and machine._marks[-1] == len(machine._stack):
        machine._marks.pop()
    else:
        machine._pop()


_OPCODES: dict[int, Callable[[Unpickler], None]] = {
    ord(code): operation
    for code, operation in {
        b'\x80': Unpickler._proto,
        b'\x95': Unpickler._frame,
        b'(': lambda m: m._marks.append(len(m._stack)),
        b'0': _pop_or_mark,
        b'1': lambda m: m._since_mark() and None,
        b'2': lambda m: m._push(m._top()),
        b'N': lambda m: m._push(None),
        b'\x88': lambda m: m._push(True),
        b'\x89': lambda m: m._push(False),
        b'I': Unpickler._integer_line,
        b'L': Unpickler._long_line,
        b'F': lambda m: m._push(float(m._line())),
        b'J': lambda m: m._push(m._number('<i')),
        b'K': lambda m: m._push(m._number('<B')),
        b'M': lambda m: m._push(m._number('<H')),
        b'G': lambda m: m._push(m._number('>d')),
        b'\x8a': lambda m: m._long('<B'),
        b'\x8b': lambda m: m._long('<i'),
        b'T': lambda m: m._push(_python2_text(m._payload('<i'))),
        b'U': lambda m: m._push(_python2_text(m._payload('<B'))),
        b'V': lambda m: m._push(m._line().decode('raw-unicode-escape')),
        b'X': lambda m: m._push(m._payload('<I').decode('utf-8', 'surrogatepass')),
        b'\x8c': lambda m: m._push(m._payload('<B').decode('utf-8', 'surrogatepass')),
        b'\x8d': lambda m: m._push(m._payload('<Q').decode('utf-8', 'surrogatepass')),
        b'B': lambda m: m._push(m._payload('<I')),
        b'C': lambda m: m._push(m._payload('<B')),
        b'\x8e': lambda m: m._push(m._payload('<Q')),
        b'\x96': lambda m: m._push(m._payload('<Q')),  # a bytearray
        b']': lambda m: m._push([]),
        b'}': lambda m: m._push({}),
        b')': lambda m: m._push(()),
        b'\x8f': lambda m: m._push([]),  # a set: its items need not be hashed to be carried
        b'l': lambda m: m._push(m._since_mark()),
        b'd': Unpickler._dict_of_mark,
        b't': lambda m: m._push(tuple(m._since_mark())),
        b'\x91': lambda m: m._push(m._since_mark()),  # a frozenset
        b'\x85': lambda m: m._push(m._last(1)),
        b'\x86': lambda m: m._push(m._last(2)),
        b'\x87': lambda m: m._push(m._last(3)),
        b'a': lambda m: m._append(m._last(1)),
        b'e': Unpickler._append_items,
        b'\x90': Unpickler._append_items,
        b's': lambda m: m._set(m._last(2)),
        b'u': Unpickler._set_items,
        b'p': lambda m: m._remember(m._decimal(m._line())),
        b'q': lambda m: m._remember(m._number('<B')),
        b'r': lambda m: m._remember(m._number('<I')),
        b'\x94': lambda m: m._remember(len(m._memo)),
        b'g': lambda m: m._recall(m._decimal(m._line())),
        b'h': lambda m: m._recall(m._number('<B')),
        b'j': lambda m: m._recall(m._number('<I')),
        b'c': Unpickler._global,
        b'\x93': Unpickler._stack_global,
        b'R': Unpickler._reduce,
        b'\x81': Unpickler._reduce,  # NEWOBJ: class and arguments, as for a call
        b'\x92': Unpickler._new_object_with_keywords,
        b'i': Unpickler._instance,
        b'o': Unpickler._object,
        b'b': Unpickler._build,
        b'Q': Unpickler._persistent,
    }.items()
}  # fmt: skip
