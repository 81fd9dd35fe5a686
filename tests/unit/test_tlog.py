"""tlog and tiles, against a tree computed by RFC 6962's definition; tables from x/mod's tests."""

import base64
import contextlib
from collections.abc import Sequence
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modhaven import tiles, tlog
from modhaven.tiles import Tile
from modhaven.tlog import Tree


def merkle(leaves: Sequence[bytes]) -> bytes:
    """RFC 6962 section 2.1, MTH."""
    if len(leaves) < 2:
        return leaves[0] if leaves else tlog.EMPTY_TREE_HASH
    k = 1
    while k * 2 < len(leaves):
        k *= 2
    return tlog.node_hash(merkle(leaves[:k]), merkle(leaves[k:]))


@dataclass
class Log:
    """A log of ``size`` records, its hash reader, and its tiles of height 2."""

    size: int
    height: int = 2
    damaged: int | None = None  # the hash to zero, by its stored index
    saved: list[Tile] = field(default_factory=list)

    def leaf(self, n: int) -> bytes:
        return tlog.record_hash(b"leaf %d" % n)

    def head(self, size: int | None = None) -> Tree:
        size = self.size if size is None else size
        return Tree(size, merkle([self.leaf(n) for n in range(size)]))

    def stored(self, index: int) -> bytes:
        level, n = tlog.split_stored_hash_index(index)
        span = range(n << level, (n + 1) << level)
        assert span.stop <= self.size
        return merkle([self.leaf(leaf) for leaf in span])

    def __call__(self, indexes: Sequence[int]) -> list[bytes]:
        return [self.stored(index) for index in indexes]

    def read_tiles(self, wanted: Sequence[Tile]) -> list[bytes]:
        return [self.tile(tile) for tile in wanted]

    def tile(self, tile: Tile) -> bytes:
        first = tile.number << tile.height
        data = bytearray(
            b"".join(
                self.stored(tlog.stored_hash_index(tile.level * tile.height, first + n))
                for n in range(tile.width)
            )
        )
        if self.damaged is not None:
            place, start, end = tiles._locate(self.height, self.damaged)
            same = (tile.level, tile.number) == (place.level, place.number)
            if same and end <= len(data):
                data[start:end] = bytes(end - start)
        return bytes(data)

    def save_tiles(self, wanted: Sequence[Tile], data: Sequence[bytes]) -> None:
        assert len(wanted) == len(data)
        self.saved += wanted


def test_hashes_of_rfc_6962() -> None:
    assert tlog.EMPTY_TREE_HASH.hex().startswith("e3b0c44298fc1c149afb")
    # Test vectors of Certificate Transparency: an empty leaf, and a tree of two.
    assert tlog.record_hash(b"").hex() == (
        "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d"
    )
    assert tlog.node_hash(tlog.record_hash(b""), tlog.record_hash(b"\0")).hex() == (
        "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125"
    )


def test_stored_indexes_are_dense_and_reversible() -> None:
    seen: dict[int, tuple[int, int]] = {}
    for level in range(12):
        for n in range(200):
            index = tlog.stored_hash_index(level, n)
            assert tlog.split_stored_hash_index(index) == (level, n)
            assert seen.setdefault(index, (level, n)) == (level, n)
    assert set(range(300)) <= set(seen)


@given(st.integers(0, 62), st.integers(0, 2**40))
def test_stored_indexes_of_large_trees(level: int, n: int) -> None:
    assert tlog.split_stored_hash_index(tlog.stored_hash_index(level, n)) == (level, n)


@given(st.integers(1, 130))
def test_tree_hash(size: int) -> None:
    assert tlog.tree_hash(size, Log(size)) == Log(size).head().hash


def test_tree_hash_of_nothing() -> None:
    assert tlog.tree_hash(0, Log(0)) == tlog.EMPTY_TREE_HASH


@given(st.data(), st.integers(1, 130))
def test_record_proofs(data: st.DataObject, size: int) -> None:
    n = data.draw(st.integers(0, size - 1))
    log = Log(size)
    proof = tlog.prove_record(size, n, log)
    tlog.check_record(proof, log.head(), n, log.leaf(n))
    with pytest.raises(tlog.ProofError):
        tlog.check_record(proof, log.head(), n, log.leaf(n + 1))
    with pytest.raises(tlog.ProofError):
        tlog.check_record([*proof, bytes(32)], log.head(), n, log.leaf(n))
    for at in range(len(proof)):
        damaged = [*proof[:at], bytes(32), *proof[at + 1 :]]
        with pytest.raises(tlog.ProofError):
            tlog.check_record(damaged, log.head(), n, log.leaf(n))
    if proof:
        other = data.draw(st.integers(0, size - 1))
        if other != n:
            with pytest.raises(tlog.ProofError):
                tlog.check_record(proof, log.head(), other, log.leaf(n))


@given(st.data(), st.integers(1, 130))
def test_tree_proofs(data: st.DataObject, size: int) -> None:
    old = data.draw(st.integers(1, size))
    log = Log(size)
    proof = tlog.prove_tree(size, old, log)
    tlog.check_tree(proof, log.head(), log.head(old))
    with pytest.raises(tlog.ProofError):
        tlog.check_tree(proof, log.head(), Tree(old, bytes(32)))
    with pytest.raises(tlog.ProofError):
        tlog.check_tree(proof, Tree(size, bytes(32)), log.head(old))
    for at in range(len(proof)):
        damaged = [*proof[:at], bytes(32), *proof[at + 1 :]]
        with pytest.raises(tlog.ProofError):
            tlog.check_tree(damaged, log.head(), log.head(old))
    with pytest.raises(tlog.ProofError):
        tlog.check_tree([*proof, bytes(32)], log.head(), log.head(old))


def test_proofs_out_of_range() -> None:
    log = Log(4)
    for n in (-1, 4):
        with pytest.raises(tlog.ProofError):
            tlog.prove_record(4, n, log)
        with pytest.raises(tlog.ProofError):
            tlog.check_record([], log.head(), n, log.leaf(0))
    for old in (0, 5):
        with pytest.raises(tlog.ProofError):
            tlog.prove_tree(4, old, log)
        with pytest.raises(tlog.ProofError):
            tlog.check_tree([], log.head(), Tree(old, bytes(32)))


# -- text -----------------------------------------------------------------------------------------

HASH = "nND/nri/U0xuHUrYSy0HtMeal2vzD9V4k/BO79C+QeI="


def test_parse_tree() -> None:
    text = f"go.sum database tree\n123456789012\n{HASH}\n"
    tree = Tree(123456789012, base64.b64decode(HASH))
    assert tlog.parse_tree(text) == tree
    assert tlog.parse_tree(text + "extra\nlines\n") == tree


@pytest.mark.parametrize(
    "text",
    [
        "",
        f"go.sum database tree\n1\n{HASH}",
        f"go.sum database tree\n-1\n{HASH}\n",
        f"go.sum database tree\n01\n{HASH}\n",
        f"go.sum database tree\n+1\n{HASH}\n",
        f"go.sum database tree\n9223372036854775808\n{HASH}\n",
        f"go.sum database tree v2\n1\n{HASH}\n",
        f"go.sum database tree\n1\n{HASH[:-4]}\n",
        "go.sum database tree\n1\n!!!\n",
        f"go.sum database tree\n1\n{HASH}\n" + "x" * 1_000_000,
    ],
)
def test_malformed_trees(text: str) -> None:
    with pytest.raises(tlog.MalformedError):
        tlog.parse_tree(text)


def test_parse_record() -> None:
    assert tlog.parse_record(b"5\nhello\nworld\n\nrest\n\nof it") == (
        5,
        b"hello\nworld\n",
        b"rest\n\nof it",
    )


@pytest.mark.parametrize(
    "message",
    [
        b"",
        b"5",
        b"5\n",
        b"5\n\n",
        b"5\nx\n",
        b"x\nx\n\n",
        b"-1\nx\n\n",
        b"5\n\x01\n\n",
        b"5\n\xff\n\n",
        b"5\n\nx\n\n",
        b"99999999999999999999\nx\n\n",
        b"\xff\nx\n\n",
    ],
)
def test_malformed_records(message: bytes) -> None:
    with pytest.raises(tlog.MalformedError):
        tlog.parse_record(message)


# -- tiles ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "tile"),
    [
        ("tile/4/0/001", Tile(4, 0, 1, 16)),
        ("tile/4/0/001.p/5", Tile(4, 0, 1, 5)),
        ("tile/3/5/x123/x456/078", Tile(3, 5, 123456078, 8)),
        ("tile/3/5/x123/x456/078.p/2", Tile(3, 5, 123456078, 2)),
        ("tile/1/0/x003/x057/500", Tile(1, 0, 3057500, 2)),
        ("tile/1/data/x003/x057/500", Tile(1, -1, 3057500, 2)),
        ("tile/8/0/000", Tile(8, 0, 0, 256)),
        ("tile/8/3/x001/000.p/255", Tile(8, 3, 1000, 255)),
    ],
)
def test_tile_paths(path: str, tile: Tile) -> None:
    assert tile.path == path
    assert tiles.parse_tile_path(path) == tile
    assert tile.is_full == (".p/" not in path)
    assert tile.full.path == path.partition(".p/")[0]


@pytest.mark.parametrize(
    "path",
    [
        "tile/3/5/123/456/078",
        "tile/3/-1/123",
        "tile/3/5/x000/001",
        "tile/8/0/001.p/256",
        "tile/8/0/001.p/0",
        "tile/8/0/001.p/300",
        "tile/8/0/001.p/05",
        "tile/8/0/1",
        "tile/8/0/x001",
        "tile/0/0/001",
        "tile/31/0/001",
        "tile/08/0/001",
        "tile/8/64/001",
        "tile/8/00/001",
        "/tile/8/0/001",
        "tile/8/0/001/",
        "tile/8/0/../001",
        "tile/8/0/\u0660\u0660\u0661",
        "tile/8/0/001.p/",
        "tile/8/0",
    ],
)
def test_malformed_tile_paths(path: str) -> None:
    with pytest.raises(ValueError, match="malformed tile path"):
        tiles.parse_tile_path(path)


@given(st.integers(1, 30), st.integers(-1, 63), st.integers(0, 10**15), st.data())
def test_tile_paths_are_reversible(
    height: int, level: int, number: int, data: st.DataObject
) -> None:
    tile = Tile(height, level, number, data.draw(st.integers(1, 2**height)))
    assert tiles.parse_tile_path(tile.path) == tile


@given(st.text())
def test_tile_paths_never_crash(path: str) -> None:
    for text in (path, f"tile/8/0/{path}"):
        with contextlib.suppress(ValueError):
            assert tiles.parse_tile_path(text).path == text


def test_every_hash_is_read_from_tiles() -> None:
    for size in range(1, 70):
        log = Log(size)
        reader = tiles.TileHashReader(log.head(), log)
        indexes = list(range(tlog.stored_hash_index(0, size)))
        assert reader(indexes) == log(indexes)
        assert all(reader([index]) == log([index]) for index in indexes[:: max(1, size // 5)])
        assert log.saved


def test_every_damaged_hash_is_noticed() -> None:
    for size in [*range(1, 20), 33, 64, 65]:
        for index in range(tlog.stored_hash_index(0, size)):
            log = Log(size, damaged=index)
            with pytest.raises(tiles.BadTileError):
                tiles.TileHashReader(log.head(), log)([index])
            assert not log.saved


@given(st.integers(1, 300), st.data())
def test_proofs_from_tiles(size: int, data: st.DataObject) -> None:
    log = Log(size, height=data.draw(st.integers(1, 8)))
    reader = tiles.TileHashReader(log.head(), log)
    old = data.draw(st.integers(1, size))
    assert tlog.tree_hash(old, reader) == log.head(old).hash
    tlog.check_tree(tlog.prove_tree(size, old, reader), log.head(), log.head(old))
    n = data.draw(st.integers(0, size - 1))
    tlog.check_record(tlog.prove_record(size, n, reader), log.head(), n, log.leaf(n))


def test_tiles_of_another_tree_and_size() -> None:
    log = Log(20)
    for tree in (Tree(20, bytes(32)), Tree(19, log.head().hash), Tree(20, log.head(19).hash)):
        with pytest.raises(tiles.BadTileError):
            tiles.TileHashReader(tree, log)([0])
    for index in (tlog.stored_hash_index(0, 20), -1):
        with pytest.raises(tiles.BadTileError):
            tiles.TileHashReader(log.head(), log)([index])

    class Short(Log):
        def read_tiles(self, wanted: Sequence[Tile]) -> list[bytes]:
            return [data[:-1] for data in super().read_tiles(wanted)]

    with pytest.raises(tiles.BadTileError):
        tiles.TileHashReader(log.head(), Short(20))([0])


def test_hash_from_the_wrong_tile() -> None:
    log = Log(20)
    tile = Tile(2, 0, 1, 4)
    assert tiles.hash_from_tile(tile, log.tile(tile), tlog.stored_hash_index(1, 2)) == (
        tlog.node_hash(log.leaf(4), log.leaf(5))
    )
    with pytest.raises(ValueError, match="is in tile"):
        tiles.hash_from_tile(tile, log.tile(tile), 0)
    assert tiles.tile_for_index(2, 0) == Tile(2, 0, 0, 1)


def test_empty_tree() -> None:
    assert tiles.TileHashReader(tlog.EMPTY_TREE, Log(0))([]) == []
