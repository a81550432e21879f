"""Safetensors files: the library's are read, ours are read by the library, and nothing damaged is."""

import json
import os
import resource
import signal
import struct
import subprocess
import sys
import textwrap

import ml_dtypes
import numpy as np
import pytest
from safetensors import safe_open

from ldm_jax.checkpoints.files import reader, safetensors
from ldm_jax.checkpoints.files.reader import BadFile, TensorSpec
from tests.checkpoints.files import file_builders as files

KINDS = sorted(safetensors.DTYPES)


def random_tree(seed, kinds=KINDS):
    """Arrays of all types and odd shapes, of random bytes."""
    rng = np.random.default_rng(seed)
    tree = {}
    for index, kind in enumerate(rng.permutation(np.repeat(kinds, 3))):
        dtype = safetensors.DTYPES[kind]
        shape = tuple(rng.integers(0, 5, rng.integers(0, 4)))
        raw = rng.bytes(int(np.prod(shape, dtype=int)) * dtype.itemsize)
        if kind == 'BOOL':
            raw = bytes(byte & 1 for byte in raw)
        tree[f'{index}.é "{kind}"\n'] = np.frombuffer(raw, dtype).reshape(shape)
    return tree


def specs(tree):
    return {key: TensorSpec(array.shape, array.dtype) for key, array in tree.items()}


def same(one, two):
    return one.shape == two.shape and one.dtype == two.dtype and one.tobytes() == two.tobytes()


@pytest.mark.parametrize('seed', range(5))
def test_the_library_s_files_are_read(tmp_path, seed):
    library = pytest.importorskip('safetensors.torch')
    tree = random_tree(seed)
    tensors = {key: files.torch_tensor(array) for key, array in tree.items()}
    library.save_file(tensors, tmp_path / 'a', {'format': 'pt', 'quote': '"\u2028'})
    with reader.open_file(tmp_path / 'a') as file:
        assert file.kind == 'safetensors'
        assert file.metadata == {'format': 'pt', 'quote': '"\u2028'}
        assert file.specs == specs(tree)
        assert file.keys() == tree.keys()
        for key, array in file.items():
            assert same(array, tree[key]), key
            assert isinstance(array, np.memmap)
            assert not array.flags.writeable


@pytest.mark.parametrize('seed', range(5))
def test_the_library_reads_ours(tmp_path, seed):
    pytest.importorskip('torch')
    tree = random_tree(seed)
    arrived = list(tree.items())
    np.random.default_rng(seed).shuffle(arrived)
    safetensors.write(tmp_path / 'a', specs(tree), arrived, {'made': 'here "é"'})
    with safe_open(tmp_path / 'a', 'pt') as theirs, reader.open_file(tmp_path / 'a') as ours:
        assert theirs.metadata() == ours.metadata == {'made': 'here "é"'}
        assert set(theirs.keys()) == set(ours) == set(tree)
        for key, array in tree.items():
            tensor = theirs.get_tensor(key)
            assert tuple(tensor.shape) == array.shape
            assert files.torch_bytes(tensor) == array.tobytes()
            assert same(ours[key], array)
            assert ours[key].ctypes.data % array.dtype.itemsize == 0
    length = struct.unpack('<Q', (tmp_path / 'a').read_bytes()[:8])[0]
    assert length % 8 == 0
    assert os.listdir(tmp_path) == ['a']


def test_arrays_in_other_orders_and_byte_orders_are_written_as_they_mean(tmp_path):
    x = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
    tree = {'T': x.T, 'slice': x[:, ::2, 1:], 'big': x.astype('>f4'), 'bf16': x.astype(ml_dtypes.bfloat16).T}
    safetensors.write(tmp_path / 'a', specs(tree), tree.items())
    with safe_open(tmp_path / 'a', 'np') as theirs:
        for key in ('T', 'slice', 'big'):
            np.testing.assert_array_equal(theirs.get_tensor(key), tree[key])
    assert same(np.ascontiguousarray(tree['bf16']), reader.open_file(tmp_path / 'a')['bf16'])


def test_a_file_without_tensors(tmp_path):
    safetensors.write(tmp_path / 'a', {}, [])
    assert len(reader.open_file(tmp_path / 'a')) == 0
    with safe_open(tmp_path / 'a', 'np') as theirs:
        assert list(theirs.keys()) == []


X = np.zeros(3, np.float32)
SPEC = TensorSpec((3,), X.dtype)


@pytest.mark.parametrize(
    ('given', 'arrays', 'metadata', 'message'),
    [
        ({'a': SPEC}, [], {}, "1 tensors never came, the first 'a'"),
        ({'a': SPEC}, [('b', X)], {}, "'b' has no spec"),
        ({'a': SPEC}, [('a', X), ('a', X)], {}, "'a' comes twice"),
        ({'a': SPEC}, [('a', X[:2])], {}, r"'a' is float32 \(2,\); its spec says float32 \(3,\)"),
        ({'a': SPEC}, [('a', X.astype(np.float64))], {}, "'a' is float64"),
        ({'a': TensorSpec((3,), np.dtype('U3'))}, [], {}, "safetensors has no type <U3"),
        ({'__metadata__': SPEC}, [], {}, 'cannot be called'),
        ({}, [], {'a': 1}, 'text by text'),
    ],
)  # fmt: skip
def test_what_cannot_be_written_leaves_the_old_file(tmp_path, given, arrays, metadata, message):
    (tmp_path / 'a').write_bytes(b'old')
    with pytest.raises(ValueError, match=message):
        safetensors.write(tmp_path / 'a', given, arrays, metadata)
    assert os.listdir(tmp_path) == ['a']
    assert (tmp_path / 'a').read_bytes() == b'old'


def test_a_kill_in_the_middle_leaves_nothing_under_the_name(tmp_path):
    code = f"""
        import numpy as np, os, signal
        from ldm_jax.checkpoints.files import safetensors
        from ldm_jax.checkpoints.files.reader import TensorSpec
        def arrays():
            yield 'a', np.ones(1000, np.float32)
            os.kill(os.getpid(), signal.SIGKILL)
        spec = TensorSpec((1000,), np.dtype(np.float32))
        safetensors.write({str(tmp_path / 'x')!r}, dict(a=spec, b=spec), arrays())
    """
    run = subprocess.run([sys.executable, '-c', textwrap.dedent(code)])
    assert run.returncode == -signal.SIGKILL
    assert not (tmp_path / 'x').exists()
    safetensors.write(tmp_path / 'x', {'a': SPEC}, [('a', X)])  # and the next one is not in the way
    assert os.listdir(tmp_path) == ['x']


one = files.entry


def of_shape(shape):
    """A file of one float32 tensor of four bytes, its shape as it is spelt."""
    return files.safetensors(b'{"a":{"dtype":"F32","shape":%s,"data_offsets":[0,4]}}' % shape, b'1234')


BAD = {
    'empty': (b'', 'unknown kind'),
    'a length and nothing': (struct.pack('<Q', 0), 'unknown kind'),
    'header beyond the file': (files.safetensors(b'{}', length=3), 'cut or damaged'),
    'header of 2^64 - 1': (files.safetensors(b'{}', length=2**64 - 1), 'at most 100000000 are allowed'),
    'no object': (files.safetensors(b'{"a"', length=4), "expected ':'"),
    'text after': (files.safetensors(b'{}x'), 'follows the closing brace'),
    'key twice': (files.safetensors(b'{"a":%b,"a":%b}' % ((json.dumps(one([], 0, 4)).encode(),) * 2)), 'twice'),
    'metadata twice': (files.safetensors(b'{"__metadata__":{},"__metadata__":{}}'), 'twice'),
    'metadata of numbers': (files.safetensors({'__metadata__': {'a': 1}}), 'expected a string'),
    'unknown type': (files.safetensors({'a': one([1], 0, 4, 'F31')}, b'1234'), 'F31'),
    'negative': (files.safetensors({'a': one([-1, -1], 0, 4)}, b'1234'), 'none negative'),
    'fraction': (files.safetensors({'a': one([1.0], 0, 4)}, b'1234'), 'integers'),
    'exponent': (of_shape(b'[1e0]'), 'integers'),
    'leading zero': (of_shape(b'[01]'), 'integers'),
    'trailing comma': (of_shape(b'[1,]'), 'integers'),
    'bool': (files.safetensors({'a': one([True], 0, 4)}, b'1234'), 'integers'),
    'overflow to the right size': (files.safetensors({'a': one([2**62 + 1, 4], 0, 16)}, bytes(16)), 'more than'),
    'empty and endless': (files.safetensors({'a': one([0, 2**62, 2**62], 0, 0)}), 'more than an array'),
    'huge integer': (files.safetensors({'a': one([10**30], 0, 4)}, b'1234'), 'integers'),
    '65 axes': (files.safetensors({'a': one([1] * 65, 0, 4)}, b'1234'), '65 axes'),
    'wrong size': (files.safetensors({'a': one([2], 0, 4)}, b'1234'), r"'a' has 4 bytes; F32 \[2\] takes 8"),
    'backwards': (files.safetensors({'a': one([0], 4, 0)}, b'1234'), r'expected \[from, to\]'),
    'hole at the start': (files.safetensors({'a': one([1], 4, 8)}, bytes(8)), "'a' leaves a hole"),
    'hole': (files.safetensors({'a': one([1], 0, 4), 'b': one([1], 8, 12)}, bytes(12)), "'b' leaves a hole"),
    'overlap': (files.safetensors({'a': one([2], 0, 8), 'b': one([1], 4, 8)}, bytes(8)), "'b' overlaps"),
    'the same bytes twice': (files.safetensors({'a': one([1], 0, 4), 'b': one([1], 0, 4)}, bytes(4)), 'overlaps'),
    'cut': (files.safetensors({'a': one([2], 0, 8)}, bytes(7)), 'end at byte'),
    'appended': (files.safetensors({'a': one([1], 0, 4)}, bytes(5)), 'something was appended'),
    'unknown field': (files.safetensors({'a': one([1], 0, 4) | {'x': 1}}, bytes(4)), "'x'"),
    'missing field': (files.safetensors({'a': {'dtype': 'F32', 'shape': []}}), 'data_offsets'),
    'no entry': (files.safetensors({'a': []}), "expected '{'"),
    'not UTF-8': (files.safetensors(b'{"\xff":{}}'), 'not valid'),
    'half a surrogate pair': (files.safetensors(b'{"\\ud800":{}}'), 'not valid'),
    'control character': (files.safetensors(b'{"a\nb":{}}'), 'not valid'),
    'deep brackets': (files.safetensors(b'{"a":' + b'[' * 100_000), "expected '{'"),
}  # fmt: skip


@pytest.mark.parametrize('name', BAD)
def test_damage_is_named(tmp_path, name):
    content, message = BAD[name]
    (tmp_path / 'bad').write_bytes(content)
    with pytest.raises(BadFile, match=message) as caught:
        reader.open_file(tmp_path / 'bad')
    assert str(tmp_path / 'bad') in str(caught.value)
    if name not in ('unknown field', 'empty and endless', '65 axes'):  # which the library passes over
        with pytest.raises(Exception):  # noqa: B017 - whatever it calls it
            safe_open(tmp_path / 'bad', 'np').keys()


def test_no_part_of_a_pipe_or_folder_is_read(tmp_path):
    os.mkfifo(tmp_path / 'pipe')
    with pytest.raises(BadFile, match='no regular file'):
        reader.open_file(tmp_path / 'pipe')
    with pytest.raises(BadFile, match='open_folder'):
        reader.open_file(tmp_path)
    with pytest.raises(FileNotFoundError):
        reader.open_file(tmp_path / 'absent')


@pytest.mark.slow
def test_a_hostile_header_costs_less_than_twice_its_file_and_a_constant(tmp_path):
    headers = [
        b'{"a":' + b'[' * 10_000_000,
        b'{"a":[' + b'[],' * 3_000_000,
        b'{"__metadata__":{' + b','.join(b'"%d":"%d"' % (i, i) for i in range(200_000)) + b'}}',
        b'{'
        + b','.join(b'"%d":{"dtype":"U8","shape":[],"data_offsets":[0,1]}' % i for i in range(200_000))
        + b'}',
        '{"__metadata__":{"a":"\U0001f600'.encode() + b'x' * 20_000_000 + b'"}}',
    ]
    paths = [tmp_path / str(index) for index in range(len(headers))]
    for path, header in zip(paths, headers, strict=True):
        path.write_bytes(files.safetensors(header))
    for header, peak in zip(headers, files.peaks_of_opening(paths), strict=True):
        assert peak < 2 * len(header) + (96 << 20), header[:20]


def test_pages_of_a_dropped_array_leave_the_process(tmp_path):
    size = 64 << 20
    with open(tmp_path / 'a', 'wb') as out:
        out.write(
            files.safetensors({'a': one([size], 0, size, 'U8'), 'b': one([size], size, 2 * size, 'U8')})
        )
        out.truncate(out.tell() + 2 * size)

    def resident():
        return int(open('/proc/self/statm').read().split()[1]) * resource.getpagesize()

    with reader.open_file(tmp_path / 'a') as file:
        before = resident()
        for key in ('a', 'b', 'a', 'b'):
            array = file[key]
            assert array.max() == 0
            assert resident() - before < 1.5 * size
        del array
        assert resident() - before < size / 4
        kept = file['b']
    assert kept[-1] == 0  # a mapping outlives its file
    with pytest.raises(ValueError, match='is closed'):
        file['a']
