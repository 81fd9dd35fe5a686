"""Module zip rules and the h1: hash.

Sources: golang.org/x/mod/zip (CheckZip, Unzip) and sumdb/dirhash (Hash1, HashZip).

A module zip is good when
- it is at most 500 MiB, and so is everything in it uncompressed; go.mod and LICENSE are at most
  16 MiB each;
- every name starts with ``module@version/`` (unescaped) and is otherwise a valid file path: UTF-8,
  letters, digits, space and some punctuation, no empty, ``.`` or ``..`` elements, none that Windows
  reserves;
- no two names are equal under case folding, none is both a file and a directory;
- go.mod stands in the root only and in lower case;
- every file has exactly its declared size and checksum, and is a regular file.

Stricter than x/mod, against archives made to exhaust the reader: the numbers of entries (zipdir)
and of folders are bounded, and compressed sizes must not add up to more than the file has
(overlapping entries).
"""

import base64
import hashlib
import io
import os
import stat
import unicodedata
from collections.abc import Iterable
from pathlib import Path
from typing import BinaryIO

from modhaven import zipdir

MAX_ZIP_BYTES = 500 << 20
MAX_GO_MOD_BYTES = 16 << 20
MAX_LICENSE_BYTES = 16 << 20
_FILE_LIMITS = {"go.mod": MAX_GO_MOD_BYTES, "LICENSE": MAX_LICENSE_BYTES}

# Files and the folders they imply. Deep paths of one-letter folders would otherwise cost far more
# memory than they take in the file.
_MAX_NODES = 2 * zipdir.MAX_ENTRIES

_FILE_NAME_PUNCTUATION = frozenset("!#$%&()+,-.=@[]^_{}~ ")
_WINDOWS_RESERVED = frozenset(
    ["con", "prn", "aux", "nul"] + [f"{name}{n}" for name in ("com", "lpt") for n in range(1, 10)]
)


class BadZip(ValueError):  # noqa: N818 (the name says it)
    """The archive breaks a rule for module zips; the message says which file and which rule."""


def check_and_hash(source: str | os.PathLike[str] | BinaryIO, module: str, version: str) -> str:
    """Check a module zip against all rules and return its hash, `h1:` and base64.

    ``source`` is a path or a seekable binary file; ``module`` and ``version`` are unescaped and
    already valid (modpath.check). Reads every byte once, in pieces of at most 256 KiB; memory grows
    with the number of entries only.
    Source: x/mod zip.Unzip, dirhash.HashZip. Raises BadZip, and OSError when reading fails.
    """
    if isinstance(source, (str, os.PathLike)):
        with Path(source).open("rb") as file:
            return check_and_hash(file, module, version)
    size = source.seek(0, io.SEEK_END)
    if size > MAX_ZIP_BYTES:
        raise BadZip(f"module zip file is too large ({size} bytes; limit is {MAX_ZIP_BYTES} bytes)")
    try:
        entries = zipdir.read_entries(source, size)
        _check_entries(entries, size, f"{module}@{version}/")
        # In the order of the data, so that the file is read from front to back.
        entries.sort(key=lambda entry: entry.header_offset)
        return _hash1((entry.name, _hash_entry(source, entry)) for entry in entries)
    except zipdir.FormatError as error:
        raise BadZip(str(error)) from error


def hash_go_mod(data: bytes) -> str:
    """Return the h1: hash that go.sum has for a go.mod file (cmd/go modfetch.goModSum)."""
    return _hash1([(b"go.mod", hashlib.sha256(data).digest())])


def check_file_path(path: str) -> None:
    """Raise BadZip unless ``path`` is a valid relative file path (x/mod module.CheckFilePath).

    Letters are those of Python's Unicode tables: one from a script added since then is refused.
    """
    for element in path.split("/"):
        if not element:
            raise BadZip(f"malformed file path {path!r}: empty path element")
        if element.count(".") == len(element):
            raise BadZip(f"malformed file path {path!r}: invalid path element {element!r}")
        if element.endswith("."):
            raise BadZip(f"malformed file path {path!r}: trailing dot in path element")
        for char in element:
            if not _allowed_in_file_name(char):
                raise BadZip(f"malformed file path {path!r}: invalid char {char!r}")
        short = element.partition(".")[0]
        if short.lower() in _WINDOWS_RESERVED:
            raise BadZip(f"malformed file path {path!r}: {short!r} disallowed on Windows")


def fold(text: str) -> str:
    """Return ``text`` with each character replaced by one of its simple case folding class.

    Unlike str.casefold this keeps ß and ss apart, as Go's strings.EqualFold does.
    """
    return text.lower() if text.isascii() else "".join(map(_fold_char, text))


def _fold_char(char: str) -> str:
    for folded in (char.casefold(), char.lower()):
        if len(folded) == 1:
            return folded
    return char


def _allowed_in_file_name(char: str) -> bool:
    if char.isascii():
        return char.isalnum() or char in _FILE_NAME_PUNCTUATION
    return unicodedata.category(char).startswith("L")


def _hash1(files: Iterable[tuple[bytes, bytes]]) -> str:
    """Return the h1: hash of (name, SHA-256 of the content) pairs (x/mod dirhash.Hash1)."""
    summary = hashlib.sha256()
    for name, digest in sorted(files):
        summary.update(digest.hex().encode() + b"  " + name + b"\n")
    return "h1:" + base64.b64encode(summary.digest()).decode()


def _hash_entry(file: BinaryIO, entry: zipdir.Entry) -> bytes:
    # A folder counts as an empty file in a zip's h1, as in dirhash.HashZip.
    digest = hashlib.sha256()
    for piece in zipdir.read_content(file, entry):
        digest.update(piece)
    return digest.digest()


def _check_entries(entries: Iterable[zipdir.Entry], zip_size: int, prefix: str) -> None:
    """Check names, kinds and declared sizes (x/mod zip.checkZip)."""
    tree = _NameTree()
    total = compressed = 0
    for entry in entries:
        full = _decode(entry.name)
        if not full.startswith(prefix):
            raise BadZip(f"{full!r}: path does not have prefix {prefix!r}")
        name = full[len(prefix) :]
        is_folder = not name or name.endswith("/")
        _check_kind(entry, full, is_folder=is_folder)
        compressed += entry.compressed_size
        if compressed > zip_size:
            raise BadZip(f"{full!r}: compressed sizes add up to more than the zip file")
        if name:
            check_file_path(name.removesuffix("/"))
            tree.add(name.removesuffix("/"), is_folder=is_folder)
        if is_folder:
            continue
        _check_go_mod(name, full)
        total += entry.size
        if total > MAX_ZIP_BYTES:
            raise BadZip(
                "total uncompressed size of module contents too large"
                f" (max size is {MAX_ZIP_BYTES} bytes)"
            )
        limit = _FILE_LIMITS.get(name)
        if limit is not None and entry.size > limit:
            raise BadZip(f"{name} file too large (max size is {limit} bytes)")


def _check_go_mod(name: str, full: str) -> None:
    base = name.rpartition("/")[2]
    if fold(base) != "go.mod":
        return
    if base != name:
        raise BadZip(f"{full!r}: go.mod file not in module root directory")
    if name != "go.mod":
        raise BadZip(f"{full!r}: go.mod files must have lowercase names")


def _decode(name: bytes) -> str:
    try:
        return name.decode("utf-8")
    except UnicodeDecodeError as error:
        raise BadZip(f"malformed file path {name!r}: invalid UTF-8") from error


def _check_kind(entry: zipdir.Entry, full: str, *, is_folder: bool) -> None:
    kind = stat.S_IFMT(entry.mode)
    if kind not in (0, stat.S_IFDIR if is_folder else stat.S_IFREG):
        raise BadZip(f"{full!r}: not a regular file (mode {stat.filemode(entry.mode)})")


class _NameTree:
    """Finds names that collide under case folding, and paths that are both file and folder.

    As x/mod's collisionChecker, but a tree: that one's cost is quadratic in the depth of a path.
    """

    def __init__(self) -> None:
        self._nodes: dict[tuple[int, str], tuple[int, str, bool]] = {}

    def add(self, path: str, *, is_folder: bool) -> None:
        elements = path.split("/")
        parent = 0
        for depth, element in enumerate(elements, 1):
            last = depth == len(elements)
            folder = is_folder or not last
            key = (parent, fold(element))
            known = self._nodes.get(key)
            if known is None:
                if len(self._nodes) == _MAX_NODES:
                    raise BadZip(f"more than {_MAX_NODES} files and folders")
                known = self._nodes[key] = (len(self._nodes) + 1, element, folder)
            elif known[1] != element:
                other = "/".join([*elements[: depth - 1], known[1], *elements[depth:]])
                raise BadZip(f"case-insensitive file name collision: {other!r} and {path!r}")
            elif known[2] != folder:
                raise BadZip(f"entry {'/'.join(elements[:depth])!r} is both a file and a directory")
            elif not folder:
                raise BadZip(f"multiple entries for file {path!r}")
            parent = known[0]
