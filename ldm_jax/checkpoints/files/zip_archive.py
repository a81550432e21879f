"""The directory of a zip file, read strictly: every byte count in it is checked before it is used.

Zip readers disagree about files that break the rules, and that is how a file shows one face to a scanner and
another to a loader. So there is one reading here, of files that keep the rules, and an error for the rest: the
directory is where the file ends, each member's own header repeats its entry, no two members share a byte or a
name, nothing precedes the first.

Ref: PKWARE APPNOTE.TXT 6.3.10, sections 4.3 and 4.5.3.
"""

from __future__ import annotations

import dataclasses
import struct
import zlib

from ldm_jax.checkpoints.files.tensor_file import MappedFile, quoted

STORED, DEFLATED = 0, 8
MAX_MEMBERS = 100_000
MAX_DIRECTORY = 32 << 20  # bytes: torch's entries take about 70, a large model has some thousands
MAX_INFLATED = 16 << 20  # bytes
MAX_RATIO = 50  # of inflated to deflated bytes; a pickle of tensor names gets to about 20

_END, _END64, _LOCATOR64 = struct.Struct('<4s4H2IH'), struct.Struct('<4sQ2H2I4Q'), struct.Struct('<4sIQI')
_ENTRY, _LOCAL = struct.Struct('<4s6H3I5H2I'), struct.Struct('<4s5H3I2H')
_FULL = 0xFFFFFFFF  # in a 32-bit field: see the zip64 field


@dataclasses.dataclass(frozen=True, slots=True)
class Member:
    """A file of the archive; `start` is the offset of its data."""

    name: str
    method: int
    checksum: int  # CRC-32; 0 where the writer did not compute it
    packed: int  # bytes in the file
    size: int  # bytes when unpacked
    header: int  # offset of its local header
    start: int


def members(file: MappedFile) -> dict[str, Member]:
    """Name -> member. Raises BadFile for an archive that is cut, damaged, or in two minds."""
    offset, size, count = _directory(file)
    directory = file.read(offset, size)
    found: dict[str, Member] = {}
    position = 0
    for _ in range(count):
        entry, position = _entry(file, directory, position, offset)
        if entry.name in found:
            raise file.error(f'two members are called {quoted(entry.name)}. Do not trust it.')
        found[entry.name] = entry
    if position != size:
        raise file.error(f'its directory has {size - position} bytes more than its {count} entries.')
    end, before = 0, 'the start of the file'
    for entry in sorted(found.values(), key=lambda entry: entry.header):
        if entry.header < end or (end == 0 and entry.header != 0):
            raise file.error(
                f'{quoted(entry.name)} starts at {entry.header}; {quoted(before)} ends at {end}.'
            )
        end, before = entry.start + entry.packed, entry.name
    if end > offset:
        raise file.error(f'{quoted(before)} ends at {end}, inside the directory at {offset}.')
    return found


def read(file: MappedFile, member: Member, limit: int) -> bytes:
    """A small member's bytes, at most `limit` and inflated ones at most MAX_INFLATED, its checksum compared."""
    inflated = member.method == DEFLATED
    limit = min(limit, MAX_INFLATED) if inflated else limit
    if member.size > limit or (inflated and member.size > MAX_RATIO * member.packed):
        raise file.error(
            f'{quoted(member.name)} unpacks from {member.packed} to {member.size} bytes; at most {limit} are read, '
            f'and {MAX_RATIO} times the packed size.'
        )
    data = file.read(member.start, member.packed)
    if inflated:
        stream = zlib.decompressobj(-15)
        try:
            data = stream.decompress(data, member.size + 1)
        except zlib.error as error:
            raise file.error(f'{quoted(member.name)} cannot be unpacked: {error}.') from None
        if len(data) != member.size or not stream.eof or stream.unused_data:
            raise file.error(
                f'{quoted(member.name)} does not unpack to the {member.size} bytes that it claims.'
            )
    if member.checksum and zlib.crc32(data) != member.checksum:
        raise file.error(
            f'{quoted(member.name)} has another checksum than the directory says: it is damaged.'
        )
    return data


def _directory(file: MappedFile) -> tuple[int, int, int]:
    """(offset, size, number of entries)."""
    at = file.size - _END.size
    tail = file.read(at, _END.size) if at >= 0 else b''
    if not tail.startswith(b'PK\5\6'):
        raise file.error(
            f'it starts as a zip file and its directory is not where its {file.size} bytes end. '
            'It is cut, or something was appended: fetch it again.'
        )
    _, disk, first, here, count, size, offset, comment = _END.unpack(tail)
    end = at
    locator_at = at - _LOCATOR64.size
    if locator_at >= 0 and (locator := file.read(locator_at, _LOCATOR64.size)).startswith(b'PK\6\7'):
        _, disk64, end, disks = _LOCATOR64.unpack(locator)
        if end + _END64.size != locator_at or disk64 != 0 or disks > 1:
            raise file.error('its zip64 directory end is not before its locator.')
        fields = _END64.unpack(file.read(end, _END64.size))
        small = (disk, first, here, count, size, offset)
        if fields[0] != b'PK\6\6' or fields[1] != _END64.size - 12:
            raise file.error('its zip64 directory end is damaged.')
        for value, value64, full in zip(small, fields[4:], (0xFFFF,) * 4 + (_FULL,) * 2, strict=True):
            if value not in (value64, full):
                raise file.error(f'its two directory ends disagree: {value} and {value64}.')
        disk, first, here, count, size, offset = fields[4:]
    if disk or first or here != count or comment:
        raise file.error('it is one of several volumes, or has a comment; PyTorch writes neither.')
    if offset + size != end:
        raise file.error(f'its directory, {size} bytes at {offset}, does not end at {end}.')
    if count > MAX_MEMBERS or size > MAX_DIRECTORY:
        raise file.error(f'its directory has {count} entries in {size} bytes, more than any model needs.')
    return offset, size, count


def _entry(file: MappedFile, directory: bytes, position: int, end: int) -> tuple[Member, int]:
    """The entry at a position of the directory, checked against the local header; and the next position."""
    if position + _ENTRY.size > len(directory):
        raise file.error('its directory ends inside an entry.')
    fields = _ENTRY.unpack_from(directory, position)
    magic, _, _, flags, method, _, _, checksum, packed, size, name_size, extra_size, note_size = fields[:13]
    disk, header = fields[13], fields[16]
    position += _ENTRY.size
    raw = directory[position : position + name_size]
    extra = directory[position + name_size : position + name_size + extra_size]
    position += name_size + extra_size + note_size
    if magic != b'PK\1\2' or position > len(directory):
        raise file.error('an entry of its directory is damaged.')
    try:
        name = raw.decode()
    except UnicodeDecodeError:
        raise file.error(f'a member has the name {raw[:80]!r}, which is not UTF-8.') from None
    shown = quoted(name)
    if flags & 0x2041 or disk:  # encrypted, strongly encrypted, or its header masked
        raise file.error(f'{shown} is encrypted, or in another volume.')
    if method not in (STORED, DEFLATED):
        raise file.error(f'{shown} is compressed by method {method}; PyTorch stores its members.')
    size, packed, header = _widened(file, shown, extra, (size, packed, header))
    if method == STORED and packed != size:
        raise file.error(f'{shown} is stored and has {packed} bytes for {size}.')
    if header + _LOCAL.size > end:
        raise file.error(f'{shown} starts at {header}, beyond the members, which end at {end}.')
    local = _LOCAL.unpack(file.read(header, _LOCAL.size))
    start = header + _LOCAL.size + local[9] + local[10]
    if start + packed > end:
        raise file.error(f'{shown} ends at {start + packed}, beyond the members, which end at {end}.')
    tail = file.read(header + _LOCAL.size, local[9] + local[10])
    if local[0] != b'PK\3\4' or tail[: local[9]] != raw or local[3] != method or local[2] != flags:
        raise file.error(f'{shown}: the header of the member and its entry in the directory disagree.')
    sizes = _widened(file, shown, tail[local[9] :], (local[8], local[7]))
    # Where the sizes follow the data, the header's are zero; torch writes files so.
    later = bool(flags & 8) and sizes == (0, 0) and local[6] == 0
    if not later and (sizes != (size, packed) or local[6] != checksum):
        raise file.error(
            f'{shown}: the header of the member says {sizes} bytes, the directory {size, packed}.'
        )
    return Member(name, method, checksum, packed, size, header, start), position


def _widened(file: MappedFile, shown: str, extra: bytes, values: tuple[int, ...]) -> tuple[int, ...]:
    """The values, those that did not fit 32 bits from the zip64 field, which holds just these, in order."""
    if _FULL not in values:
        return values
    position = 0
    while position + 4 <= len(extra):
        kind, size = struct.unpack_from('<2H', extra, position)
        position += 4
        if kind == 1:
            wide = extra[position : min(position + size, len(extra))]
            if len(wide) < 8 * values.count(_FULL):
                break
            numbers = iter(struct.unpack_from(f'<{len(wide) // 8}Q', wide))
            return tuple(next(numbers) if value == _FULL else value for value in values)
        position += size
    raise file.error(f'{shown} has no zip64 sizes where it should.')
