"""Reads a zip archive the way Go's archive/zip does, in bounded memory.

Two programs that disagree about what a zip contains are a way around every check, and the go
command is the one that unpacks what we publish. So this reader follows Go's archive/zip (reader.go)
where Python's zipfile differs: names are bytes as stored in the central directory, local headers
are only used to find the data, the number of entries is compared modulo 65,536, CRC and sizes come
from the central directory. Unlike both it has bounds: on the entries, on the size of the directory,
and on output, which ends at the declared size.
"""

import io
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO, cast

# Not limits of the format. Large real modules have some 30,000 files; a hostile archive of 500 MiB
# could declare millions.
MAX_ENTRIES = 200_000
MAX_DIRECTORY_BYTES = 64 << 20

_CHUNK_BYTES = 256 << 10
_STORED, _DEFLATED = 0, 8
_FLAG_DATA_DESCRIPTOR = 0x8
_DESCRIPTOR_BYTES = 12  # without its optional signature
_ZIP64_EXTRA = 1
_UNIX_CREATORS = (3, 19)
_MAX16 = 0xFFFF
_MAX32 = 0xFFFFFFFF
_MAX_OFFSET = 1 << 62  # what a seek can take

_ENTRY = struct.Struct("<4s6H3I5H2I")
_LOCAL = struct.Struct("<4s22xHH")
_END = struct.Struct("<4s4H2IH")
_END64_LOCATOR = struct.Struct("<4sIQI")
_END64 = struct.Struct("<4s20x4Q")


class FormatError(ValueError):
    """The bytes are not a zip archive that Go's archive/zip would read in full."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One central directory entry.

    Sizes are declared ones, in bytes; ``mode`` is st_mode, 0 when it does not come from Unix.
    """

    name: bytes
    flags: int
    method: int
    crc: int
    compressed_size: int
    size: int
    header_offset: int
    mode: int


def read_entries(file: BinaryIO, size: int) -> list[Entry]:
    """Return the entries of ``file``, an archive of ``size`` bytes, in directory order.

    Source: archive/zip Reader.init. Raises FormatError.
    """
    count, directory, base = _find_directory(file, size)
    end = min(size, directory + MAX_DIRECTORY_BYTES)
    file.seek(directory)
    reader = _section(file, directory, end)
    entries: list[Entry] = []
    while (entry := _read_entry(reader, base)) is not None:
        if len(entries) == MAX_ENTRIES:
            raise FormatError(f"more than {MAX_ENTRIES} entries")
        entries.append(entry)
    if len(entries) & _MAX16 != count & _MAX16:
        raise FormatError(f"the directory declares {count} entries, {len(entries)} can be read")
    return entries


def read_content(file: BinaryIO, entry: Entry) -> Iterator[bytes]:
    """Yield the uncompressed bytes of ``entry`` in pieces of at most 256 KiB.

    Checks its declared size and CRC; never yields more than the declared size.
    Source: archive/zip File.Open, checksumReader. Raises FormatError.
    """
    label = entry.name.decode("utf-8", "backslashreplace")
    start = _data_start(file, entry, label)
    if entry.name.endswith(b"/"):
        # Some writers give folders a compressed size; Go does not look at a folder's data.
        if entry.size:
            raise FormatError(f"{label}: a folder with content")
        return
    seen = crc = 0
    for piece in _unpacked(file, start, entry, label):
        seen += len(piece)
        if seen > entry.size:
            raise FormatError(
                f"{label}: uncompressed size is larger than declared size ({entry.size} bytes)"
            )
        crc = zlib.crc32(piece, crc)
        yield piece
    if seen != entry.size:
        raise FormatError(f"{label}: uncompressed size is {seen}, declared are {entry.size} bytes")
    described = entry.flags & _FLAG_DATA_DESCRIPTOR
    if described:
        _check_descriptor(file, start + entry.compressed_size, entry, label)
    # Go takes a zero CRC without a descriptor as "not set".
    if crc != entry.crc and (described or entry.crc):
        raise FormatError(f"{label}: checksum error")


def _data_start(file: BinaryIO, entry: Entry, label: str) -> int:
    """Return where the data of ``entry`` starts (archive/zip findBodyOffset)."""
    if entry.header_offset < 0 or entry.header_offset + entry.compressed_size > _MAX_OFFSET:
        raise FormatError(f"{label}: data outside the file")
    file.seek(entry.header_offset)
    header = file.read(_LOCAL.size)
    if len(header) < _LOCAL.size or header[:4] != b"PK\x03\x04":
        raise FormatError(f"{label}: no local header where the directory says")
    _, name_length, extra_length = _LOCAL.unpack(header)
    return int(entry.header_offset + _LOCAL.size + name_length + extra_length)


class _Section(io.RawIOBase):
    """The bytes [start, end) of a seekable file as a stream of its own."""

    def __init__(self, file: BinaryIO, start: int, end: int) -> None:
        self._file, self._at, self._end = file, start, end

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override]
        self._file.seek(self._at)
        data = self._file.read(min(len(buffer), self._end - self._at))
        buffer[: len(data)] = data
        self._at += len(data)
        return len(data)


def _section(file: BinaryIO, start: int, end: int) -> BinaryIO:
    return cast("BinaryIO", io.BufferedReader(_Section(file, start, end)))


def _find_directory(file: BinaryIO, size: int) -> tuple[int, int, int]:
    """Return the declared number of entries, the directory's offset, and what to add to offsets."""
    tail, at = b"", -1
    for length in (1024, 65 * 1024):
        file.seek(max(0, size - length))
        tail = file.read(length)
        at = _find_end(tail)
        if at >= 0:
            break
    if at < 0:
        raise FormatError("not a valid zip file: no end of central directory")
    end_offset = size - len(tail) + at
    _, _, _, _, count, directory_size, offset, _ = _END.unpack_from(tail, at)
    if count == _MAX16 or _MAX32 in (directory_size, offset):
        found = _find_end64(file, end_offset)
        if found is not None:
            end_offset, count, directory_size, offset = found
    base = end_offset - directory_size - offset
    if not 0 <= base + offset < size:
        raise FormatError("the central directory lies outside the file")
    if base > 0:
        # Archives with a wrong directory size exist: like Go, prefer a base of zero where a valid
        # entry is found at it.
        reader = _section(file, offset, size)
        try:
            if _read_entry(reader, 0) is not None:
                base = 0
        except FormatError:
            pass
    return count, base + offset, base


def _find_end(tail: bytes) -> int:
    """Return where the end-of-directory record is in ``tail``, -1 without one that is whole."""
    at = tail.rfind(b"PK\x05\x06", 0, max(0, len(tail) - _END.size + 4))
    if at >= 0 and at + _END.size + int.from_bytes(tail[at + 20 : at + 22], "little") > len(tail):
        return -1
    return at


def _find_end64(file: BinaryIO, end_offset: int) -> tuple[int, int, int, int] | None:
    """Return offset, entries, directory size and directory offset of a zip64 end record, if any."""
    if end_offset < _END64_LOCATOR.size:
        return None
    file.seek(end_offset - _END64_LOCATOR.size)
    magic, disk, at, disks = _END64_LOCATOR.unpack(file.read(_END64_LOCATOR.size))
    if magic != b"PK\x06\x07" or disk != 0 or disks != 1:
        return None
    if at > end_offset:
        raise FormatError("the zip64 directory end lies outside the file")
    file.seek(at)
    data = file.read(_END64.size)
    if len(data) < _END64.size or data[:4] != b"PK\x06\x06":
        raise FormatError("no zip64 directory end where its locator says")
    _, _, count, directory_size, offset = _END64.unpack(data)
    return at, count, directory_size, offset


def _read_entry(reader: BinaryIO, base: int) -> Entry | None:
    """Return the next directory entry, or None where no further one starts or fits."""
    header = reader.read(_ENTRY.size)
    if len(header) < _ENTRY.size or header[:4] != b"PK\x01\x02":
        return None
    fields = _ENTRY.unpack(header)
    creator, _, flags, method = fields[1:5]
    crc, compressed_size, size, name_length, extra_length, comment_length = fields[7:13]
    attributes, offset = fields[15:17]
    data = reader.read(name_length + extra_length + comment_length)
    if len(data) < name_length + extra_length + comment_length:
        return None
    extra = data[name_length : name_length + extra_length]
    sizes = _apply_zip64(extra, size, compressed_size, offset)
    if sizes is None:
        return None
    size, compressed_size, offset = sizes
    unix = creator >> 8 in _UNIX_CREATORS
    return Entry(
        name=data[:name_length],
        flags=flags,
        method=method,
        crc=crc,
        compressed_size=compressed_size,
        size=size,
        header_offset=offset + base,
        mode=attributes >> 16 if unix else 0,
    )


def _apply_zip64(
    extra: bytes, size: int, compressed: int, offset: int
) -> tuple[int, int, int] | None:
    """Return size, compressed size and offset, zip64 values for saturated ones, if not cut off."""
    at = 0
    while at + 4 <= len(extra):
        tag, length = struct.unpack_from("<HH", extra, at)
        at += 4
        if at + length > len(extra):
            break
        if tag == _ZIP64_EXTRA:
            values = iter(struct.unpack_from(f"<{length // 8}Q", extra, at))
            try:
                size = next(values) if size == _MAX32 else size
                compressed = next(values) if compressed == _MAX32 else compressed
                offset = next(values) if offset == _MAX32 else offset
            except StopIteration:
                return None
        at += length
    return size, compressed, offset


def _unpacked(file: BinaryIO, start: int, entry: Entry, label: str) -> Iterator[bytes]:
    if entry.method == _STORED:
        return _stored(file, start, entry.compressed_size)
    if entry.method == _DEFLATED:
        return _inflated(file, start, entry.compressed_size, label)
    raise FormatError(f"{label}: unsupported compression method {entry.method}")


def _stored(file: BinaryIO, start: int, length: int) -> Iterator[bytes]:
    end = start + length
    while start < end:
        # Set each time: the caller may read other parts of the file between two pieces.
        file.seek(start)
        data = file.read(min(_CHUNK_BYTES, end - start))
        if not data:
            return
        start += len(data)
        yield data


def _inflated(file: BinaryIO, start: int, length: int, label: str) -> Iterator[bytes]:
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    try:
        for packed in _stored(file, start, length):
            rest = packed
            while rest and not inflater.eof:
                if piece := inflater.decompress(rest, _CHUNK_BYTES):
                    yield piece
                rest = inflater.unconsumed_tail
            if inflater.eof:
                return
        while not inflater.eof and (piece := inflater.decompress(b"", _CHUNK_BYTES)):
            yield piece
    except zlib.error as error:
        raise FormatError(f"{label}: {error}") from error
    if not inflater.eof:
        raise FormatError(f"{label}: compressed data is cut off")


def _check_descriptor(file: BinaryIO, at: int, entry: Entry, label: str) -> None:
    """Check the CRC in the data descriptor (archive/zip readDataDescriptor ignores its sizes)."""
    file.seek(at)
    data = file.read(_DESCRIPTOR_BYTES + 4)
    if data[:4] == b"PK\x07\x08":
        data = data[4:]
    if len(data) < _DESCRIPTOR_BYTES or int.from_bytes(data[:4], "little") != entry.crc:
        raise FormatError(f"{label}: the data descriptor is missing or has another checksum")
