"""Damaged files of every kind: an error that says so, or arrays of the declared shape; never anything else."""

import functools
import json
import pickle
import random
import struct

import ml_dtypes
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors import safe_open

from ldm_jax.checkpoints.files import reader, safetensors
from ldm_jax.checkpoints.files.reader import BadFile, TensorSpec
from tests.checkpoints.files import file_builders as files

TREE = {
    'conv.weight': np.arange(24, dtype=np.float32).reshape(2, 3, 4),
    'conv.bias': np.arange(3, dtype=np.float16),
    'scale': np.float32(0.18215),
    'mask': np.array([[True, False]]),
    'half': np.arange(6).astype(ml_dtypes.bfloat16).reshape(3, 2),
    'none': np.zeros((0, 4), np.int64),
}
NUMBERS = (
    0,
    1,
    2,
    3,
    7,
    8,
    127,
    128,
    255,
    2**15,
    2**16 - 1,
    2**31 - 1,
    2**31,
    2**32 - 1,
    2**63 - 1,
    2**63,
    2**64 - 1,
)


@functools.cache
def seeds(folder):
    """Whole files, kind -> bytes."""
    torch = pytest.importorskip('torch')
    safetensors.write(
        folder / 'seed',
        {key: TensorSpec(a.shape, a.dtype) for key, a in TREE.items()},
        TREE.items(),
        {'a': 'b'},
    )
    found = {'safetensors': (folder / 'seed').read_bytes()}
    state = {key: files.torch_tensor(array) for key, array in TREE.items()}
    state['strided'] = state['conv.weight'].permute(2, 0, 1)[1:]
    tree = {
        'state_dict': state,
        'epoch': 3,
        'callbacks': {pickle.Pickler: np.float64(3)},
        'x': [1, (2.5, None), {4}],
    }
    for protocol in (2, 4):
        torch.save(tree, folder / 'seed', pickle_protocol=protocol)
        found[f'zip {protocol}'] = (folder / 'seed').read_bytes()
        torch.save(tree, folder / 'seed', pickle_protocol=protocol, _use_new_zipfile_serialization=False)
        found[f'legacy {protocol}'] = (folder / 'seed').read_bytes()
    found['small zip'] = files.one_tensor()
    return found


def survives(path, content):
    """Whether it opens; what does is read to its last byte."""
    path.unlink(missing_ok=True)  # ext4 waits for the disk when a file is written over
    path.write_bytes(content)
    try:
        with reader.open_file(path) as file:
            for key, spec in file.specs.items():
                array = file[key]
                assert array.shape == spec.shape
                assert array.dtype == spec.dtype
                assert len(array.tobytes()) == spec.nbytes
                assert not array.flags.writeable
            assert all(isinstance(value, bool | int | float | str) for value in file.scalars.values())
            return True
    except (BadFile, OSError) as error:
        complaint = str(error)
    assert str(path) in complaint
    assert len(complaint) < 2000
    return False


def mutated(content, others, rng):
    """One to three damages of a file."""
    data = bytearray(content)
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        at = rng.randrange(len(data) or 1)
        kind = rng.randrange(9)
        if kind == 0 and data:
            data[at] ^= 1 << rng.randrange(8)
        elif kind == 1 and data:
            data[at] = rng.randrange(256)
        elif kind == 2:
            del data[at:]
        elif kind == 3:
            del data[at : at + rng.randrange(1, 40)]
        elif kind == 4:
            data[at:at] = rng.randbytes(rng.randrange(1, 20))
        elif kind == 5:  # splice
            other = rng.choice(others)
            start = rng.randrange(len(other))
            data[at : at + rng.choice((0, 8, 64))] = other[start : start + rng.randrange(1, 200)]
        elif kind == 6:  # a count of any width
            width = rng.choice((1, 2, 4, 8))
            data[at : at + width] = (rng.choice(NUMBERS) % (1 << 8 * width)).to_bytes(width, 'little')
        elif kind == 7:  # a word of the file becomes another
            words = (
                b'conv.weight',
                b'F32',
                b'shape',
                b'PK\1\2',
                b'FloatStorage',
                b'storage',
                b'OrderedDict',
                b'data/0',
            )
            old, new = rng.choice(words), rng.choice((*words, b'../data', b'os\nsystem'))
            data = bytearray(bytes(data).replace(old, new, rng.choice((1, -1))))
        else:  # copied within
            start = rng.randrange(len(data) or 1)
            data[at:at] = data[start : start + rng.randrange(1, 100)]
    return bytes(data)


@pytest.mark.slow
def test_thousands_of_mutations(tmp_path):
    files = seeds(tmp_path)
    rng, survivors = random.Random(0), dict.fromkeys(files, 0)
    for kind, content in files.items():
        assert survives(tmp_path / 'whole', content)
        for _ in range(800):
            survivors[kind] += survives(tmp_path / 'file', mutated(content, list(files.values()), rng))
    # Flips in the data itself are not noticed; a mutator that always or never breaks a file tests little.
    assert all(10 < count < 700 for count in survivors.values()), survivors


def test_every_truncation(tmp_path):
    for kind, content in seeds(tmp_path).items():
        step = max(1, len(content) // 300)
        for size in [*range(0, len(content), step), len(content) - 1]:
            assert not survives(tmp_path / 'file', content[:size]), (kind, size)


def test_every_bit_of_the_structure(tmp_path):
    content = seeds(tmp_path)['small zip']
    data = content.index(files.FOUR.tobytes())
    for index in range(len(content)):
        for bit in (0, 3, 7):
            flipped = bytearray(content)
            flipped[index] ^= 1 << bit
            survives(tmp_path / 'file', bytes(flipped))
    assert survives(tmp_path / 'file', content[:data] + bytes(16) + content[data + 16 :])


def headers(content):
    (length,) = struct.unpack('<Q', content[:8])
    return json.loads(content[8 : 8 + length]), content[8 + length :]


def test_rewritten_headers_that_open_are_read_as_the_library_reads_them(tmp_path):
    header, data = headers(seeds(tmp_path)['safetensors'])
    rng, opened = random.Random(1), 0
    for _ in range(1000):
        changed = json.loads(json.dumps(header))
        key = rng.choice([key for key in changed if key != '__metadata__'])
        entry, kind = changed[key], rng.randrange(7)
        if kind == 0:
            entry['dtype'] = rng.choice((*safetensors.DTYPES, 'F31', ''))
        elif kind == 1:
            entry['shape'] = [rng.choice((*NUMBERS, -1, 4)) for _ in range(rng.randrange(4))]
        elif kind == 2:
            entry['shape'] = rng.sample(entry['shape'], len(entry['shape']))
        elif kind == 3:
            entry['data_offsets'] = [value + rng.choice((0, -1, 1, 8)) for value in entry['data_offsets']]
        elif kind == 4:
            other = rng.choice(list(changed))
            changed[key], changed[other] = changed[other], changed[key]
        elif kind == 5:
            changed[rng.choice(('__metadata__', 'x', ''))] = changed.pop(key)
        else:
            entry['data_offsets'] = [rng.choice(NUMBERS), rng.choice(NUMBERS)]
        path = tmp_path / 'file'
        if survives(path, files.safetensors(changed, data)):
            opened += 1
            with safe_open(path, 'pt') as theirs, reader.open_file(path) as ours:
                assert set(theirs.keys()) == set(ours)
                for key in ours:
                    assert files.torch_bytes(theirs.get_tensor(key)) == ours[key].tobytes()
    assert 100 < opened < 900


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp('mutations')


quick = settings(max_examples=120, deadline=None, suppress_health_check=list(HealthCheck))


@quick
@given(data=st.data())
def test_any_damage(folder, data):
    files = seeds(folder)
    content = files[data.draw(st.sampled_from(sorted(files)))]
    at = data.draw(st.integers(0, len(content)))
    cut = data.draw(st.integers(0, 64))
    put = data.draw(st.binary(max_size=64))
    survives(folder / 'file', content[:at] + put + content[at + cut :])


@quick
@given(content=st.binary(max_size=200), start=st.sampled_from([b'', b'PK\3\4', bytes(8), b'\x80\x02', b'{']))
def test_any_bytes(folder, content, start):
    survives(folder / 'file', start + content)


@quick
@given(
    program=st.lists(
        st.sampled_from([bytes([code]) for code in range(256)]) | st.binary(max_size=8), max_size=60
    )
)
def test_any_pickle(folder, program):
    assert not survives(folder / 'file', files.torch_zip(b''.join(program) + b'.'))
    survives(folder / 'file', files.one_tensor(x=b''.join(program)))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(['a', 'dtype', 'shape', 'data_offsets', '__metadata__']), inner, max_size=4
        )
    ),
    max_leaves=12,
)


@pytest.mark.slow
@quick
@given(header=JSON, data=st.binary(max_size=16))
def test_any_json_as_header(folder, header, data):
    survives(folder / 'file', files.safetensors(header, data))


@quick
@given(
    tree=st.dictionaries(
        st.text(max_size=8).filter(lambda key: key != '__metadata__'),
        st.tuples(st.sampled_from(sorted(safetensors.DTYPES)), st.lists(st.integers(0, 4), max_size=4)),
        max_size=5,
    ),
    metadata=st.dictionaries(st.text(max_size=8), st.text(max_size=8), max_size=3),
)
def test_what_is_written_is_read_by_both(folder, tree, metadata):
    rng = np.random.default_rng(0)
    arrays = {}
    for key, (kind, shape) in tree.items():
        dtype = safetensors.DTYPES[kind]
        raw = rng.integers(0, 2, int(np.prod(shape)) * dtype.itemsize, np.uint8)
        arrays[key] = raw.view(dtype).reshape(shape)
    specs = {key: TensorSpec(array.shape, array.dtype) for key, array in arrays.items()}
    safetensors.write(folder / 'written', specs, arrays.items(), metadata)
    with reader.open_file(folder / 'written') as ours, safe_open(folder / 'written', 'pt') as theirs:
        assert ours.specs == specs
        assert ours.metadata == (theirs.metadata() or {}) == metadata
        assert set(theirs.keys()) == set(arrays)
        for key, array in arrays.items():
            assert ours[key].tobytes() == array.tobytes() == files.torch_bytes(theirs.get_tensor(key))
