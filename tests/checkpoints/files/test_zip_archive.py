"""Zip files that keep the rules, and those that do not: one reading, or an error."""

import io
import os
import struct
import zipfile
import zlib

import numpy as np
import pytest

from ldm_jax.checkpoints.files import reader, zip_archive
from ldm_jax.checkpoints.files.reader import BadFile
from tests.checkpoints.files import file_builders as files
from tests.checkpoints.files.file_builders import FOUR, Zip, dictionary, program, tensor

PICKLE = program(dictionary(w=tensor()))
DATA = FOUR.tobytes()


def opened(path, content):
    path.write_bytes(content)
    return reader.open_file(path)


def check(file):
    assert set(file) == {'w'}
    np.testing.assert_array_equal(file['w'], FOUR)


def plain():
    return Zip().add('a/data.pkl', PICKLE).add('a/data/0', DATA)


def wide(*values):
    """The zip64 field of an entry."""
    return struct.pack(f'<2H{len(values)}Q', 1, 8 * len(values), *values)


def descriptor(data, form='<4s3I'):
    return struct.pack(form, b'PK\7\10', zlib.crc32(data), len(data), len(data))


def test_zip_files_of_other_writers_are_read(tmp_path):
    deflated = io.BytesIO()
    with zipfile.ZipFile(deflated, 'w') as archive:
        archive.mkdir('any name é')
        archive.writestr('any name é/data.pkl', PICKLE, zipfile.ZIP_DEFLATED)
        archive.writestr('any name é/data/0', DATA, zipfile.ZIP_STORED)
    forced = io.BytesIO()
    with zipfile.ZipFile(forced, 'w') as archive:
        for name, data in {'a/data.pkl': PICKLE, 'a/data/0': DATA}.items():
            with archive.open(name, 'w', force_zip64=True) as member:
                member.write(data)
    unseekable = io.BytesIO()  # sizes follow the data

    class Pipe(io.RawIOBase):
        def write(self, data):
            return unseekable.write(data)

        def writable(self):
            return True

    with zipfile.ZipFile(Pipe(), 'w') as archive:
        archive.writestr('a/data.pkl', PICKLE)
        archive.writestr('a/data/0', DATA)
    for index, content in enumerate(
        [plain().bytes(), deflated.getvalue(), forced.getvalue(), unseekable.getvalue()]
    ):
        check(opened(tmp_path / str(index), content))


def test_a_file_beyond_4_gb(tmp_path):
    """Sparse: 5 GB of zeros, then a tensor, then a zip64 directory."""
    gap, path = 5 << 30, tmp_path / 'large'
    first = (
        b'PK\3\4'
        + struct.pack('<5H3I2H', 45, 0, 0, 0, 0, 0, 2**32 - 1, 2**32 - 1, 8, 20)
        + b'a/data/1'
        + wide(gap, gap)
    )
    members = [(b'a/data/1', 0, gap, gap, 0)]
    with open(path, 'wb') as out:
        out.write(first)
        out.seek(len(first) + gap)
        for name, data in ((b'a/data.pkl', PICKLE), (b'a/data/0', DATA)):
            members.append((name, zlib.crc32(data), len(data), len(data), out.tell()))
            out.write(
                b'PK\3\4'
                + struct.pack('<5H3I2H', 45, 0, 0, 0, 0, *members[-1][1:4], len(name), 0)
                + name
                + data
            )
        directory = out.tell()
        for name, crc, packed, size, header in members:
            full = 2**32 - 1
            extra = wide(size, packed, header) if header == 0 else wide(header)
            sizes = (full, full) if header == 0 else (packed, size)
            out.write(
                b'PK\1\2'
                + struct.pack(
                    '<6H3I5H2I', 45, 45, 0, 0, 0, 0, crc, *sizes, len(name), len(extra), 0, 0, 0, 0, full
                )
            )
            out.write(name + extra)
        end = out.tell()
        out.write(struct.pack('<4sQ2H2I4Q', b'PK\6\6', 44, 45, 45, 0, 0, 3, 3, end - directory, directory))
        out.write(struct.pack('<4sIQI', b'PK\6\7', 0, end, 1))
        out.write(struct.pack('<4s4H2IH', b'PK\5\6', 0, 0, 3, 3, end - directory, 2**32 - 1, 0))
    # Python's reader agrees.
    assert zipfile.ZipFile(path).namelist() == ['a/data/1', 'a/data.pkl', 'a/data/0']
    with reader.open_file(path) as file:
        check(file)
    if os.stat(path).st_blocks * 512 > 1 << 28:
        path.unlink()


def overlapping():
    """Two members of the same bytes: one header, two entries."""
    archive = plain()
    return archive.add('a/data/1', DATA, header=0)


def nested_quine():
    return files.torch_zip(files.torch_zip(PICKLE, {'0': DATA}), {'0': DATA})


FULL, PKL = 2**32 - 1, ('a/data.pkl', PICKLE)
deflate = zlib.compressobj(9, zlib.DEFLATED, -15)
PACKED = deflate.compress(DATA) + deflate.flush()
whole = plain().bytes()
BAD = {
    'cut in the directory': (whole[:-10], 'It is cut'),
    'cut in the data': (whole[:300], 'It is cut'),
    'appended': (whole + b'x', 'something was appended'),
    'appended zip file': (whole + plain().bytes(), 'does not end at'),
    'prepended': (b'x' + whole, 'unknown kind'),
    'prepended member': (b'PK\3\4' + whole, 'does not end at'),
    'a comment': (plain().bytes(comment=b'hello'), 'not where its'),
    'a comment with a directory end': (plain().bytes(comment=whole[-22:]), 'does not end at|not where'),
    'two data.pkl of one name': (plain().add('a/data.pkl', PICKLE).bytes(), "two members are called 'a/data.pkl'"),
    'two data.pkl in two folders': (plain().add('b/data.pkl', PICKLE).bytes(), 'one folder in the archive, found 2'),
    'no folder': (Zip().add('data.pkl', PICKLE).add('data/0', DATA).bytes(), 'lies in no folder'),
    'no data.pkl': (Zip().add('a/data/0', DATA).bytes(), 'no data.pkl'),
    'no members': (Zip().bytes(), 'unknown kind'),
    'up': (plain().add('a/../../evil', b'x').bytes(), 'leaves the folder'),
    'up by backslash': (plain().add('a/..\\evil', b'x').bytes(), 'leaves the folder'),
    'absolute': (plain().add('/etc/passwd', b'x').bytes(), 'leaves the folder'),
    'name not UTF-8': (whole.replace(b'a/data/0', b'a/data/\xff'), 'not UTF-8'),
    'encrypted': (Zip().add(*PKL, central={'flags': 1}, local={'flags': 1}).bytes(), 'encrypted'),
    'deflated tensor': (
        Zip().add(*PKL)
        .add('a/data/0', PACKED, local={'method': 8, 'size': 16}, central={'method': 8, 'size': 16}).bytes(),
        'compressed or has 16 bytes',
    ),
    'other compression': (Zip().add(*PKL, central={'method': 99}).bytes(), 'method 99'),
    'method in one header only': (Zip().add(*PKL, central={'method': 8}).bytes(), 'disagree'),
    'flags in one header only': (Zip().add(*PKL, local={'flags': 8}).bytes(), 'disagree'),
    'another name in the local header': (Zip().add(*PKL, local_name='a/good.pkl').bytes(), 'disagree'),
    'another size in the local header': (Zip().add(*PKL, local={'size': 9}).bytes(), 'says .* bytes'),
    'another checksum in the local header': (Zip().add(*PKL, local={'crc': 9}).bytes(), 'says .* bytes'),
    'wrong checksum': (Zip().add(*PKL, local={'crc': 9}, central={'crc': 9}).bytes(), 'another checksum'),
    'stored in other sizes': (Zip().add(*PKL, central={'size': 9}).bytes(), 'is stored and has'),
    'size beyond the file': (
        Zip().add(*PKL, central={'size': 9999, 'packed': 9999}, local={'size': 9999, 'packed': 9999}).bytes(),
        'beyond the members',
    ),
    'header beyond the file': (Zip().add(*PKL, header=9999).bytes(), 'beyond the members'),
    'zip64 size missing': (Zip().add(*PKL, central={'size': 2**32 - 1}).bytes(), 'no zip64 sizes'),
    'zip64 size of 2^63': (
        Zip().add(*PKL, central={'size': FULL, 'packed': FULL, 'extra': wide(2**63, 2**63)}).bytes(),
        'beyond the members',
    ),
    'overlapping members': (overlapping().bytes(), 'disagree|starts at'),
    'a gap at the start': (Zip().add(*PKL, gap=b'PK\3\4').bytes(), 'starts at 4'),
    'more entries than there are': (plain().bytes(count=3), 'ends inside an entry'),
    'fewer entries than there are': (plain().bytes(count=1), 'bytes more than'),
    'directory size': (plain().bytes(size=10), 'does not end at'),
    'directory offset': (plain().bytes(offset=0), 'does not end at'),
    'a zip file as the pickle': (nested_quine(), 'its pickle'),
    'big-endian': (files.torch_zip(PICKLE, {'0': DATA}, byteorder=b'big'), "b'big'-endian"),
    'TorchScript': (files.torch_zip(PICKLE, {'0': DATA}, **{'constants.pkl': b'x', 'code/x.py': b''}), 'no module'),
    'storage without its member': (Zip().add(*PKL).bytes(), "storage '0' is named and not there"),
    'storage of another size': (Zip().add(*PKL).add('a/data/0', DATA[:8]).bytes(), '8 bytes for 16'),
}  # fmt: skip


@pytest.mark.parametrize('case', BAD)
def test_a_zip_file_in_two_minds_is_refused(tmp_path, case):
    content, message = BAD[case]
    with pytest.raises(BadFile, match=message):
        opened(tmp_path / 'file', content)


def packed_pickle(data, claimed=None, method=8):
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    fields = {'method': method, 'size': len(data) if claimed is None else claimed, 'crc': zlib.crc32(data)}
    raw = packer.compress(data) + packer.flush()
    return Zip().add('a/data.pkl', raw, local=fields, central=fields).add('a/data/0', DATA).bytes()


def test_a_deflated_pickle_is_unpacked_within_bounds(tmp_path):
    check(opened(tmp_path / 'a', packed_pickle(PICKLE)))
    zeros = program(b'N' * 10_000 + b'0' * 10_000 + dictionary(w=tensor()))
    with pytest.raises(BadFile, match='at most .* are read, and 50 times'):
        opened(tmp_path / 'b', packed_pickle(zeros))
    for claimed in (len(PICKLE) - 1, len(PICKLE) + 1):
        with pytest.raises(BadFile, match='does not unpack to'):
            opened(tmp_path / 'c', packed_pickle(PICKLE, claimed))
    noise = np.random.default_rng(0).bytes(zip_archive.MAX_INFLATED)
    with pytest.raises(BadFile, match='at most 16777216 are read'):
        opened(tmp_path / 'd', packed_pickle(PICKLE + noise))


def test_a_stored_pickle_beyond_the_limit_is_not_read(tmp_path):
    path = tmp_path / 'file'
    size = (64 << 20) + 1
    with zipfile.ZipFile(path, 'w') as archive:
        archive.writestr('a/data.pkl', bytes(size))
    with pytest.raises(BadFile, match=f'to {size} bytes; at most {64 << 20} are read'):
        reader.open_file(path)


def test_sizes_behind_the_data_are_read_from_the_directory(tmp_path):
    """As torch writes: flag 8, no sizes before the data, all of them behind it."""
    later = {'flags': 8, 'crc': 0, 'packed': 0, 'size': 0}
    archive = Zip()
    for name, data in (('a/data.pkl', PICKLE), ('a/data/0', DATA)):
        archive.add(name, data, local=later, central={'flags': 8})
        archive.body += descriptor(data)
    check(opened(tmp_path / 'file', archive.bytes()))
