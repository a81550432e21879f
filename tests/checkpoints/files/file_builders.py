"""Files by hand, for what the libraries would not write."""

import io
import json
import pickle
import struct
import subprocess
import sys
import textwrap
import zipfile
import zlib

import numpy as np

LEGACY = [0x1950A86A20F9469CFC6C, 1001, {'protocol_version': 1001, 'little_endian': True, 'type_sizes': {}}]


def safetensors(header, data=b'', length=None):
    """A file of a header (an object, or its bytes) and data."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack('<Q', len(text) if length is None else length) + text + data


def entry(shape, begin, end, dtype='F32'):
    return {'dtype': dtype, 'shape': shape, 'data_offsets': [begin, end]}


def torch_zip(program, storages=None, root='archive', **members):
    """A stored zip file as PyTorch lays it out; program: the bytes of data.pkl."""
    files = {'data.pkl': program, 'byteorder': b'little', 'version': b'3\n'} | members
    files |= {f'data/{key}': bytes(data) for key, data in (storages or {}).items()}
    return zip_file({f'{root}/{name}': data for name, data in files.items()})


def zip_file(files, method=zipfile.ZIP_STORED):
    out = io.BytesIO()
    with zipfile.ZipFile(out, 'w', method) as archive:
        for name, data in files.items():
            archive.writestr(zipfile.ZipInfo(name), data, method)
    return out.getvalue()


def torch_legacy(program, storages=None):
    """A file as PyTorch wrote it before 1.6; storages: key -> float32 array."""
    storages = storages or {}
    parts = [pickle.dumps(part, 2) for part in LEGACY] + [program, pickle.dumps(list(storages), 2)]
    for data in storages.values():
        parts += [struct.pack('<q', len(data)), np.asarray(data, np.float32).tobytes()]
    return b''.join(parts)


def torch_tensor(array):
    """The same bytes in PyTorch."""
    import torch

    dtype = getattr(torch, array.dtype.name)
    if not array.size:
        return torch.empty(array.shape, dtype=dtype)
    return torch.frombuffer(bytearray(array.tobytes()), dtype=dtype).reshape(array.shape)


def torch_bytes(tensor):
    """The bytes of a PyTorch tensor in C order."""
    import torch

    return tensor.detach().resolve_conj().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()


def peaks_of_opening(paths):
    """Bytes that a process grows by when it opens each of some files, which must raise BadFile."""
    code = """
        import os, resource, sys
        from ldm_jax.checkpoints.files import reader

        def peak():
            return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024

        for path in sys.argv[1:]:
            child = os.fork()  # which starts at this process's size
            if child == 0:
                before = peak()
                try:
                    reader.open_file(path)
                except reader.BadFile:
                    print(peak() - before, flush=True)
                os._exit(0)
            os.waitpid(child, 0)
    """
    command = [sys.executable, '-c', textwrap.dedent(code), *map(str, paths)]
    run = subprocess.run(command, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    found = [int(line) for line in run.stdout.split()]
    assert len(found) == len(paths), run.stderr
    return found


# Pickle opcodes, as functions from operands (programs) to a program.


def text(value):
    raw = value.encode()
    return b'X' + struct.pack('<I', len(raw)) + raw


def integer(value):
    return b'\x8a' + (lambda raw: bytes([len(raw)]) + raw)(value.to_bytes(12, 'little', signed=True))


def name(module, attribute):
    return f'c{module}\n{attribute}\n'.encode()


def items(*values):
    return b'(' + b''.join(values) + b't'


def call(module, attribute, *arguments):
    return name(module, attribute) + items(*arguments) + b'R'


def dictionary(**entries):
    return b'}(' + b''.join(text(key) + value for key, value in entries.items()) + b'u'


def storage(key='0', count=4, kind='FloatStorage'):
    return items(text('storage'), name('torch', kind), text(key), text('cpu'), integer(count)) + b'Q'


def tensor(key='0', count=4, offset=0, shape=(4,), strides=(1,), kind='FloatStorage'):
    return call(
        'torch._utils', '_rebuild_tensor_v2', storage(key, count, kind), integer(offset),
        items(*map(integer, shape)), items(*map(integer, strides)), b'\x89', b'}',
    )  # fmt: skip


def program(value):
    return b'\x80\x02' + value + b'.'


FOUR = np.arange(4, dtype=np.float32)


def one_tensor(value=None, storages=None, **entries):
    """A zip file of {'w': value, **entries}; value: a tensor of four numbers by default."""
    state = dictionary(w=tensor() if value is None else value, **entries)
    return torch_zip(program(state), {'0': FOUR.tobytes()} if storages is None else storages)


class Zip:
    """A stored zip file whose every field may be set: members of (name, data, fields)."""

    def __init__(self):
        self.body, self.directory, self.count = b'', b'', 0

    def add(self, name, data, *, local_name=None, local=None, central=None, gap=b'', header=None):
        raw, at = name.encode(), len(self.body + gap)
        true = {
            'crc': zlib.crc32(data),
            'packed': len(data),
            'size': len(data),
            'flags': 0,
            'method': 0,
            'extra': b'',
        }
        one, two = true | (local or {}), true | (central or {})
        raw_local = raw if local_name is None else local_name.encode()
        self.body += gap + struct.pack(
            '<4s5H3I2H', b'PK\3\4', 20, one['flags'], one['method'], 0, 0,
            one['crc'], one['packed'], one['size'], len(raw_local), len(one['extra']),
        ) + raw_local + one['extra'] + data  # fmt: skip
        self.directory += struct.pack(
            '<4s6H3I5H2I', b'PK\1\2', 20, 20, two['flags'], two['method'], 0, 0, two['crc'], two['packed'],
            two['size'], len(raw), len(two['extra']), 0, 0, 0, 0, at if header is None else header,
        ) + raw + two['extra']  # fmt: skip
        self.count += 1
        return self

    def bytes(self, comment=b'', **end):
        end = {'count': self.count, 'size': len(self.directory), 'offset': len(self.body)} | end
        return self.body + self.directory + struct.pack(
            '<4s4H2IH', b'PK\5\6', 0, 0, end['count'], end['count'], end['size'], end['offset'], len(comment)
        ) + comment  # fmt: skip
