"""What a hostile PyTorch file costs is bounded by its size, and what the reader imports by a list."""

import struct
import subprocess
import sys
import textwrap

import pytest

from tests.checkpoints.files import file_builders as files
from tests.checkpoints.files.file_builders import name, program, text

MANY = 300_000  # opcodes, more than a small file's budget has
AGAIN = b'h\x00h\x01R' * MANY  # calls the first remembered with the second, again and again


def nested(levels, one, two):
    """Containers of two of the container before: 2^levels leaves for whoever walks them all."""
    yield one
    for index in range(levels):
        yield two(b'h' + bytes([index])) + b'q' + bytes([index + 1]) + b'0'
    yield b'h' + bytes([levels])


BOMBS = {
    'lists': b']' * MANY,
    'dicts': b'}' * MANY,
    'marks': b'(' * MANY,
    'duplicates': b'N' + b'2' * MANY,
    'lists in lists': b'(' * MANY + b'l' * MANY,
    'tuples in a key': b'})' + b'\x85' * MANY + b'Ns',
    'a memo': b'N' + b''.join(b'r' + index.to_bytes(4, 'little') for index in range(MANY)),
    'a sparse memo': b'Nr\xff\xff\xff\xffp4294967295000000\n',
    'memoized': b'N' + b'\x94' * MANY,
    'a list into dicts': (
        name('collections', 'OrderedDict') + b'q\x00](' + b'K\x01N\x86' * 1000 + b'e\x85q\x01' + AGAIN
    ),
    'a list into sets': name('builtins', 'set') + b'q\x00](' + b'N' * 100_000 + b'e\x85q\x01' + AGAIN,
    'text into bytes': (
        name('_codecs', 'encode') + b'q\x00' + text('x' * MANY) + text('latin1') + b'\x86q\x01' + AGAIN
    ),
    'wide text': text('\U0001f600' + 'x' * (30 << 20)),
    'bytes that are not there': b'\x8e' + (1 << 40).to_bytes(8, 'little'),
    'laughing lists': b''.join(nested(60, b']q\x00(NNe0', lambda last: b'](' + last + last + b'e')),
    'laughing tuples as a key': b'}' + b''.join(nested(60, b')q\x000', lambda last: last + last + b'\x86')) + b'Ns',
    'laughing dicts': b''.join(
        nested(60, b'}q\x000', lambda last: b'}(' + text('a') + last + text('b') + last + b'u')
    ),
    'colliding keys': b'}(' + b''.join(files.integer(index * (2**61 - 1)) + b'N' for index in range(MANY // 3)) + b'u',
    'a dict in itself': b'}q\x00' + text('state_dict') + b'h\x00s' + text('a') + b'h\x00s',
    'tensors': (
        name('torch._utils', '_rebuild_tensor_v2') + b'q\x00(' + files.storage() + b'K\x00)))})tq\x01' + AGAIN
    ),
    'names': b''.join(b'cx\n%d\n' % index for index in range(MANY)),
}  # fmt: skip


@pytest.mark.slow
def test_memory_is_bounded_by_the_file_s_size(tmp_path):
    contents = {}
    for case, expression in BOMBS.items():
        contents[f'{case}, zip'] = files.torch_zip(program(expression))
    for case in ('lists', 'memoized', 'wide text'):
        contents[f'{case}, legacy'] = files.torch_legacy(program(BOMBS[case]))
    one = files.Zip().add('a/000000', b'')
    names = [b'a/%06d' % index for index in range(65_000)]
    body = b''.join(one.body.replace(b'a/000000', member) for member in names)
    offsets = (struct.pack('<I', len(one.body) * index) for index in range(len(names)))
    directory = b''.join(
        one.directory[:42] + offset + member for offset, member in zip(offsets, names, strict=True)
    )
    end = struct.pack('<4s4H2IH', b'PK\5\6', 0, 0, len(names), len(names), len(directory), len(body), 0)
    contents['members, zip'] = body + directory + end
    paths = {case: tmp_path / case for case in contents}
    for case, content in contents.items():
        paths[case].write_bytes(content)
    for case, peak in zip(paths, files.peaks_of_opening(list(paths.values())), strict=True):
        assert peak < 2 * len(contents[case]) + (64 << 20), case


def test_the_reader_imports_nothing_heavy_and_nothing_that_unpickles(tmp_path):
    path = tmp_path / 'file.pt'
    path.write_bytes(files.one_tensor(x=files.call('os', 'system', text('true'))))
    code = f"""
        import sys
        import atexit, numpy, ml_dtypes
        before = set(sys.modules)
        from ldm_jax.checkpoints.files import reader
        new = {{name.partition('.')[0] for name in set(sys.modules) - before}}
        assert new <= sys.stdlib_module_names | {{'ldm_jax'}}, new
        before = set(sys.modules)
        reader.open_file({str(path)!r})['w']
        assert set(sys.modules) == before, set(sys.modules) - before
    """
    run = subprocess.run([sys.executable, '-c', textwrap.dedent(code)], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
