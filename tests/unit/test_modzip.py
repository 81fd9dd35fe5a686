"""modzip and zipdir; cases from the test tables of golang.org/x/mod (zip, dirhash, module)."""

import base64
import hashlib
import io
import struct
import tracemalloc
import zipfile
import zlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modhaven import modzip, zipdir
from modhaven.modzip import BadZip, check_and_hash, check_file_path, hash_go_mod

MODULE, VERSION = "example.com/m", "v1.0.0"
PREFIX = f"{MODULE}@{VERSION}/"
MIB = 1 << 20


def make_zip(files: dict[str, bytes] | list[tuple[str, bytes]], prefix: str = PREFIX) -> io.BytesIO:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items() if isinstance(files, dict) else files:
            info = zipfile.ZipInfo(prefix + name)
            info.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(info, data)
    return out


def raw_zip(
    entries: list[tuple[bytes, bytes, dict[str, int]]], *, overlap: bool = False
) -> io.BytesIO:
    """Build an archive by hand; the third item overrides fields of an entry's directory record."""
    body, directory = b"", b""
    for name, data, over in entries:
        method = over.get("method", 8)
        packer = zlib.compressobj(9, zlib.DEFLATED, -15)
        packed = packer.compress(data) + packer.flush() if method == 8 else data
        offset = 0 if overlap else len(body)
        crc = over.get("crc", zlib.crc32(data))
        size = over.get("size", len(data))
        if not overlap or not body:
            body += struct.pack(
                "<4s5H3I2H",
                b"PK\x03\x04",
                20,
                0,
                method,
                0,
                0,
                crc,
                len(packed),
                size,
                len(name),
                0,
            )
            body += name + packed
        directory += struct.pack(
            "<4s6H3I5H2I",
            *(b"PK\x01\x02", over.get("creator", 0x0314), 20, over.get("flags", 0), method, 0, 0),
            *(crc, over.get("packed", len(packed)), size, len(name), 0, 0, 0, 0),
            *(over.get("mode", 0) << 16, over.get("offset", offset)),
        )
        directory += name
    count = len(entries) & 0xFFFF
    end = struct.pack("<4s4H2IH", b"PK\x05\x06", 0, 0, count, count, len(directory), len(body), 0)
    return io.BytesIO(body + directory + end)


def h1(files: dict[str, bytes]) -> str:
    """The definition: sha256sum over sorted names, hashed again."""
    lines = "".join(
        f"{hashlib.sha256(files[name]).hexdigest()}  {name}\n"
        for name in sorted(files, key=str.encode)
    )
    return "h1:" + base64.b64encode(hashlib.sha256(lines.encode()).digest()).decode()


def refused(source: io.BytesIO, message: str, module: str = MODULE, version: str = VERSION) -> None:
    with pytest.raises(BadZip, match=message):
        check_and_hash(source, module, version)


# -- hashes ---------------------------------------------------------------------------------------


def test_known_hashes() -> None:
    # Both from x/mod's zip_test.go.
    assert check_and_hash(make_zip({}), MODULE, VERSION) == (
        "h1:47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU="
    )
    assert check_and_hash(
        make_zip({"go.mod": b"module example.com/m\n\ngo 1.13\n"}), MODULE, VERSION
    ) == ("h1:XduFAgX/GaspZa8Jv4pfzoGEzNaU/r88PiCunijw5ok=")


def test_hash_go_mod() -> None:
    # rsc.io/quote v1.5.2/go.mod, as in its public go.sum line.
    data = b'module "rsc.io/quote"\n\nrequire "rsc.io/sampler" v1.3.0\n'
    assert hash_go_mod(data) == "h1:LzX7hefJvL54yjefDEDHNONDjII0t9xZLPXsUe+TKr0="
    assert hash_go_mod(data) == h1({"go.mod": data})


@given(st.lists(st.binary(max_size=200), max_size=8), st.permutations(range(8)))
def test_hash_is_that_of_the_definition(contents: list[bytes], order: list[int]) -> None:
    names = ["a", "b/a", "a.go", "a-b", "b.go/x", "é", "Z", "b/~"]
    files = {names[n]: data for n, data in zip(order, contents, strict=False)}
    assert check_and_hash(make_zip(files), MODULE, VERSION) == h1(
        {PREFIX + name: data for name, data in files.items()}
    )


def test_source_may_be_a_path(tmp_path: Path) -> None:
    path = tmp_path / "m.zip"
    path.write_bytes(make_zip({"a.go": b"package a\n"}).getvalue())
    expected = h1({PREFIX + "a.go": b"package a\n"})
    assert check_and_hash(path, MODULE, VERSION) == expected
    assert check_and_hash(str(path), MODULE, VERSION) == expected


def test_folders_count_as_empty_files() -> None:
    # dirhash.HashZip lists every entry of the zip, folders too.
    assert check_and_hash(make_zip([("", b""), ("dir/", b""), ("a", b"x")]), MODULE, VERSION) == h1(
        {PREFIX: b"", PREFIX + "dir/": b"", PREFIX + "a": b"x"}
    )


def test_name_without_utf8_flag_is_taken_as_bytes() -> None:
    name = (PREFIX + "испытание").encode()
    assert check_and_hash(raw_zip([(name, b"x", {})]), MODULE, VERSION) == h1({name.decode(): b"x"})


def test_data_before_and_after_the_archive() -> None:
    files = {"a.go": b"package a\n"}
    expected = h1({PREFIX + "a.go": files["a.go"]})
    data = make_zip(files).getvalue()
    assert check_and_hash(io.BytesIO(b"#!/bin/sh\n" + data), MODULE, VERSION) == expected
    commented = data[:-2] + struct.pack("<H", 2000) + b"c" * 2000
    assert check_and_hash(io.BytesIO(commented), MODULE, VERSION) == expected


def test_zip64_and_data_descriptors() -> None:
    out = io.BytesIO()

    class Unseekable(io.BytesIO):  # makes zipfile write data descriptors
        def seekable(self) -> bool:
            return False

        def tell(self) -> int:
            raise io.UnsupportedOperation

        def write(self, data: bytes) -> int:  # type: ignore[override]
            return out.write(data)

    with (
        zipfile.ZipFile(Unseekable(), "w", zipfile.ZIP_DEFLATED) as archive,
        archive.open(zipfile.ZipInfo(PREFIX + "a"), "w", force_zip64=True) as member,
    ):
        member.write(b"hello")
    expected = h1({PREFIX + "a": b"hello"})
    assert check_and_hash(out, MODULE, VERSION) == expected
    data = bytearray(out.getvalue())
    at = data.index(b"PK\x07\x08")
    data[at + 4] ^= 1
    refused(io.BytesIO(bytes(data)), "descriptor")


def test_more_entries_than_the_count_can_say() -> None:
    files = {f"d{n // 1000}/f{n}": b"" for n in range(66_000)}
    assert check_and_hash(make_zip(files), MODULE, VERSION) == h1(
        {PREFIX + name: b"" for name in files}
    )


# -- names ----------------------------------------------------------------------------------------

# x/mod zip testdata check_zip and unzip.
BAD_NAMES = [
    (["go.mod", "GO.MOD"], "case-insensitive|lowercase"),
    (["Go.mod"], "go.mod files must have lowercase names"),
    (["sub/go.mod"], "go.mod file not in module root directory"),
    (["sub/Go.Mod"], "go.mod file not in module root directory"),
    (["dup", "dup"], "multiple entries for file 'dup'"),
    (["x", "x/y"], "entry 'x' is both a file and a directory"),
    (["x/y", "x"], "entry 'x' is both a file and a directory"),
    (["x/", "x"], "entry 'x' is both a file and a directory"),
    (["case", "Case"], "case-insensitive file name collision: 'case' and 'Case'"),
    (["dir/a", "Dir/b"], "case-insensitive file name collision: 'dir/b' and 'Dir/b'"),
    (["\N{KELVIN SIGN}x", "kx"], "case-insensitive"),
    (["not/../clean"], "invalid path element"),
    (["../up"], "invalid path element"),
    (["./x"], "invalid path element"),
    (["/abs"], "empty path element"),
    (["a//b"], "empty path element"),
    (["x//"], "empty path element"),
    (["invalid.go'"], "invalid char"),
    (["a\\b"], "invalid char"),
    (["C:x"], "invalid char"),
    (["a\nb"], "invalid char"),
    (["x\u202ey"], "invalid char"),
    (["aux.go"], "disallowed on Windows"),
    (["trailing."], "trailing dot"),
]


@pytest.mark.parametrize(("names", "message"), BAD_NAMES, ids=str)
def test_bad_names(names: list[str], message: str) -> None:
    refused(raw_zip([((PREFIX + name).encode(), b"", {}) for name in names]), message)


def test_names_that_only_look_alike_are_good() -> None:
    names = ["ß", "SS", "dir/x", "dir/y", "a.b/go.mod.txt", "mygo.mod", ".gitignore", "x..y"]
    check_and_hash(make_zip(dict.fromkeys(names, b"")), MODULE, VERSION)


@pytest.mark.parametrize(
    "name",
    [b"other.com/m@v1.0.0/a", b"example.com/m@v1.0.1/a", b"example.com/m@v1.0.0", b"a", b""],
)
def test_names_without_the_prefix(name: bytes) -> None:
    refused(raw_zip([(name, b"", {})]), "does not have prefix")


def test_prefix_is_the_unescaped_module() -> None:
    upper = make_zip({"a": b""}, "github.com/Azure/x@v1.0.0/")
    check_and_hash(upper, "github.com/Azure/x", "v1.0.0")
    refused(make_zip({"a": b""}, "github.com/!azure/x@v1.0.0/"), "prefix", "github.com/Azure/x")


def test_name_that_is_not_utf8_or_holds_nul() -> None:
    refused(raw_zip([(PREFIX.encode() + b"\xff", b"", {})]), "invalid UTF-8")
    refused(raw_zip([(PREFIX.encode() + b"a\0b", b"", {})]), "invalid char")


# x/mod module_test.go, checkPathTests: path, fileOK.
FILE_PATHS_GOOD = [
    "x.y/z",
    "x.y",
    ".x/z",
    "x..y/z",
    "x.y/z/v0",
    "x.y/z/v2.0",
    "X.y/z",
    "!x.y/z",
    "_x.y/z",
    "x.y#/z",
    "x.y$/z",
    "x.y%/z",
    "x.y&/z",
    "x.y(/z",
    "x.y)/z",
    "x.y+/z",
    "x.y,/z",
    "x.y-/z",
    "x.y=/z",
    "x.y@/z",
    "x.y[/z",
    "x.y]/z",
    "x.y^/z",
    "x.y_/z",
    "x.y{/z",
    "x.y}/z",
    "x.y~/z",
    "x.y/z!",
    "x.y/z#",
    "x.y/z~",
    "x.y/x.foo",
    "x.y/prn2",
    "x.y/com",
    "x.y/calm1",
    "github.com/!123/logrus",
    "github.com/user/unicode/испытание",
    ".gitignore",
    ".github/ISSUE_TEMPLATE",
    "-x",
]
FILE_PATHS_BAD = [
    "/x.y/z",
    "x./z",
    "x.y/z/../../w",
    "x.y//z",
    "x.y/z//w",
    "x.y/z/",
    'x.y"/z',
    "x.y'/z",
    "x.y*/z",
    "x.y./zt",
    "x.y:/z",
    "x.y;/z",
    "x.y</z",
    "x.y>/z",
    "x.y?/z",
    "x.y\\/z",
    "x.y`/z",
    "x.y|z",
    "x.y/aux.foo",
    "x.y/prn",
    "x.y/com1",
    "x.y/com1.txt",
    "x.y/CoN",
    "x.y/LPT9.a.b",
    "../x",
    "./y",
    "x:y",
    "\\temp\\foo",
    "x☺y",
    ".",
    "..",
    "...",
]


def test_file_paths() -> None:
    for path in [*FILE_PATHS_GOOD, "with space"]:
        check_file_path(path)
    for path in [*FILE_PATHS_BAD, "", "a\tb", "a\x7fb"]:
        with pytest.raises(BadZip):
            check_file_path(path)


# -- kinds and sizes ------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", [0o120777, 0o010644, 0o020644, 0o060644, 0o140755, 0o040755])
def test_irregular_files(mode: int) -> None:
    refused(raw_zip([((PREFIX + "x").encode(), b"target", {"mode": mode})]), "not a regular file")


def test_modes_count_only_when_they_come_from_unix() -> None:
    check_and_hash(
        raw_zip([((PREFIX + "x").encode(), b"", {"mode": 0o120777, "creator": 20})]),
        MODULE,
        VERSION,
    )
    check_and_hash(raw_zip([((PREFIX + "x").encode(), b"", {"mode": 0o100644})]), MODULE, VERSION)


def test_folder_with_content() -> None:
    refused(raw_zip([((PREFIX + "d/").encode(), b"data", {})]), "folder with content")


def one(length: int, /, *, name: str = "lie.go", **over: int) -> io.BytesIO:
    return raw_zip([((PREFIX + name).encode(), b"a" * length, over)])


@pytest.mark.parametrize("method", [0, 8])
def test_size_is_a_lie(method: int) -> None:
    refused(one(2989, method=method, size=172), r"larger than declared size \(172 bytes\)")
    refused(one(2989, method=method, size=5000), "uncompressed size is 2989, declared are 5000")


def test_checksum() -> None:
    refused(one(100, crc=12345), "checksum error")
    check_and_hash(one(100, crc=0), MODULE, VERSION)  # as archive/zip: not set


def test_cut_off_data() -> None:
    refused(one(100_000, packed=50), "cut off")
    refused(one(100, packed=50, method=0), "uncompressed size is 50")


def test_unknown_compression_method() -> None:
    refused(one(100, method=12), "unsupported compression method 12")


def test_offsets_outside_the_file() -> None:
    refused(one(10, offset=5000), "no local header")
    refused(one(10, offset=3), "no local header")


@pytest.mark.parametrize(
    ("name", "size", "message"),
    [
        ("large.go", 500 * MIB + 1, "total uncompressed size of module contents too large"),
        ("go.mod", 16 * MIB + 1, "go.mod file too large"),
        ("LICENSE", 16 * MIB + 1, "LICENSE file too large"),
        ("large.go", 0xFFFFFFFE, "total uncompressed size of module contents too large"),
    ],
)
def test_declared_size_limits(name: str, size: int, message: str) -> None:
    refused(one(10, name=name, size=size), message)


def test_sizes_at_the_limit() -> None:
    data = bytes(16 * MIB)
    check_and_hash(make_zip({"go.mod": data, "LICENSE": data, "x/LICENSE": data}), MODULE, VERSION)


def test_total_of_declared_sizes() -> None:
    files = [((PREFIX + f"f{n}").encode(), b"", {"size": 100 * MIB}) for n in range(6)]
    refused(raw_zip(files), "total uncompressed size")


def test_zip_file_too_large(tmp_path: Path) -> None:
    path = tmp_path / "big.zip"
    for size, message in [(500 * MIB, "not a valid zip"), (500 * MIB + 1, "file is too large")]:
        with path.open("wb") as file:
            file.truncate(size)
        with pytest.raises(BadZip, match=message):
            check_and_hash(path, MODULE, VERSION)


def test_bomb_is_refused_in_little_memory() -> None:
    # 100 MiB of zeros in 100 kB, declared as one byte; and an honest one, hashed in pieces.
    bomb = raw_zip([((PREFIX + "bomb").encode(), bytes(100 * MIB), {"size": 1})])
    honest = raw_zip([((PREFIX + "bomb").encode(), bytes(100 * MIB), {})])
    tracemalloc.start()
    try:
        refused(bomb, "larger than declared size")
        check_and_hash(honest, MODULE, VERSION)
        assert tracemalloc.get_traced_memory()[1] < 4 * MIB
    finally:
        tracemalloc.stop()


def test_overlapping_entries() -> None:
    entries: list[tuple[bytes, bytes, dict[str, int]]] = [
        ((PREFIX + f"f{n}").encode(), bytes(range(256)) * 40, {"method": 0}) for n in range(100)
    ]
    refused(raw_zip(entries, overlap=True), "compressed sizes add up")


def test_bounded_entries_and_folders(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(zipdir, "MAX_ENTRIES", 10)
    monkeypatch.setattr(modzip, "_MAX_NODES", 20)
    check_and_hash(make_zip({f"f{n}": b"" for n in range(10)}), MODULE, VERSION)
    refused(make_zip({f"f{n}": b"" for n in range(11)}), "more than 10 entries")
    refused(make_zip({"/".join("a" * 21): b""}), "more than 20 files and folders")


def test_entry_count_must_agree() -> None:
    data = bytearray(make_zip({"a": b"", "b": b""}).getvalue())
    data[-12] = 3
    refused(io.BytesIO(bytes(data)), "declares 3 entries, 2 can be read")


@pytest.mark.parametrize("data", [b"", b"PK", b"not a zip" * 1000, b"PK\x05\x06" + b"\xff" * 18])
def test_rubbish(data: bytes) -> None:
    refused(io.BytesIO(data), "zip|directory")


GOOD = make_zip({"go.mod": b"module example.com/m\n", "a/b.go": b"package b\n" * 50}).getvalue()
GOOD_HASH = check_and_hash(io.BytesIO(GOOD), MODULE, VERSION)


@given(st.integers(0, len(GOOD) - 1), st.binary(min_size=1, max_size=8))
def test_a_damaged_zip_never_passes_with_other_content(at: int, patch: bytes) -> None:
    damaged = GOOD[:at] + patch + GOOD[at + len(patch) :]
    try:
        result = check_and_hash(io.BytesIO(damaged), MODULE, VERSION)
    except BadZip:
        return
    # The names that count stand in the directory at the end: changed ones change the hash.
    assert result == GOOD_HASH or at + len(patch) > GOOD.index(b"PK\x01\x02")


@given(st.integers(0, len(GOOD) - 1))
def test_a_cut_off_zip_is_refused(length: int) -> None:
    with pytest.raises(BadZip):
        check_and_hash(io.BytesIO(GOOD[:length]), MODULE, VERSION)


@given(st.binary(max_size=300))
def test_rubbish_never_crashes(data: bytes) -> None:
    end = struct.pack("<4s4H2IH", b"PK\x05\x06", 0, 0, 1, 1, len(data), 0, 0)
    for archive in (data, data + end, b"PK\x01\x02" + data + end):
        with pytest.raises(BadZip):
            check_and_hash(io.BytesIO(archive), MODULE, VERSION)
