"""Tiles: the files in which a log's hashes are served, and a reader that believes none of them.

Source: golang.org/x/mod/sumdb/tlog (tile.go), research.swtch.com/tlog#tiling_a_log. A tile of
height H at level L holds up to 2**H consecutive hashes of tree level H*L, a partial one fewer.
Its path is ``tile/H/L/K``, K in groups of three digits, all but the last with an x before them, and
``.p/W`` behind a partial one. Level ``data`` (here -1) holds the records themselves.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from modhaven import tlog
from modhaven.tlog import HASH_SIZE, Tree

HEIGHT = 8
"""The height of the tiles of every known checksum database; clients never ask for another."""

DATA_LEVEL = -1
_MAX_HEIGHT = 30
_MAX_LEVEL = 63
_PATH = re.compile(
    r"tile/(?P<height>[1-9][0-9]?)/(?P<level>data|0|[1-9][0-9]?)"
    r"/(?P<number>(?:x[0-9]{3}/){0,5}[0-9]{3})(?:\.p/(?P<width>[1-9][0-9]{0,9}))?"
)


class BadTileError(ValueError):
    """Tiles do not belong to the tree they are read for: damaged, forged, or of another tree."""


@dataclass(frozen=True, slots=True)
class Tile:
    """Coordinates of a tile: ``width`` is how many hashes it holds, 2**height when full."""

    height: int
    level: int
    number: int
    width: int

    @property
    def is_full(self) -> bool:
        """Whether nothing can be added to the tile; such a tile never changes."""
        return self.width == 1 << self.height

    @property
    def full(self) -> "Tile":
        """The tile of the same place at its full width."""
        return replace(self, width=1 << self.height)

    @property
    def path(self) -> str:
        """Where the tile is served, below the database's address (Tile.Path)."""
        number = self.number
        groups: list[str] = []
        while True:
            number, group = divmod(number, 1000)
            groups.append(f"x{group:03d}" if groups else f"{group:03d}")
            if not number:
                break
        level = "data" if self.level == DATA_LEVEL else str(self.level)
        suffix = "" if self.is_full else f".p/{self.width}"
        return f"tile/{self.height}/{level}/{'/'.join(reversed(groups))}{suffix}"


class TileSource(Protocol):
    """Where a TileHashReader gets tiles from; their data is ``width`` hashes of 32 bytes."""

    @property
    def height(self) -> int:
        """The height of the tiles."""

    def read_tiles(self, tiles: Sequence[Tile]) -> list[bytes]:
        """Return the data of each tile, from a cache or a server; it is not trusted."""

    def save_tiles(self, tiles: Sequence[Tile], data: Sequence[bytes]) -> None:
        """Take note that what read_tiles returned is authentic and may be kept."""


def parse_tile_path(path: str) -> Tile:
    """Return the tile of a path; ValueError unless it is in canonical form (ParseTilePath)."""
    match = _PATH.fullmatch(path)
    if match is not None and int(match["height"]) <= _MAX_HEIGHT:
        height = int(match["height"])
        level = DATA_LEVEL if match["level"] == "data" else int(match["level"])
        number = int(match["number"].replace("x", "").replace("/", ""))
        tile = Tile(height, level, number, int(match["width"] or 1 << height))
        if level <= _MAX_LEVEL and tile.path == path and tile.width <= 1 << height:
            return tile
    raise ValueError(f"malformed tile path {path!r}")


def tile_for_index(height: int, index: int) -> Tile:
    """Return the narrowest tile that holds or implies the hash at a stored index."""
    return _locate(height, index)[0]


def hash_from_tile(tile: Tile, data: bytes, index: int) -> bytes:
    """Return the hash at a stored index, given a tile that holds or implies it (HashFromTile)."""
    narrowest, start, end = _locate(tile.height, index)
    if replace(narrowest, width=tile.width) != tile or narrowest.width > tile.width:
        raise ValueError(f"index {index} is in {narrowest.path}, not {tile.path}")
    return _tile_hash(data[start:end])


class TileHashReader:
    """A tlog.HashReader of ``tree`` that takes hashes from tiles and authenticates each of them.

    The tiles on the right edge must hash to the root, every other one to its place in a parent that
    has been checked. So what it returns is proven to be in the tree: reading a record's hash is
    an inclusion check, and computing an older tree's hash from it is a consistency check.
    """

    def __init__(self, tree: Tree, source: TileSource) -> None:
        """Read hashes of ``tree`` from tiles of ``source``."""
        self._tree, self._source = tree, source

    def __call__(self, indexes: Sequence[int]) -> list[bytes]:
        """Return the hashes at stored indexes. Raises BadTileError, and what the source raises."""
        size, height = self._tree.size, self._source.height
        edge = tlog.subtree_indexes(0, size)
        edge_tiles = [_in_tree(tile_for_index(height, index), 0, size) for index in edge]
        # Insertion order is the order of the checks: parents come before their children.
        plan = dict.fromkeys(edge_tiles)
        first_child = len(plan)
        homes = [self._plan_for(index, plan) for index in indexes]
        tiles = [tile for tile in plan if tile is not None]
        read = self._source.read_tiles(tiles)
        data = dict(zip(tiles, read, strict=True))
        for tile in tiles:
            if len(data[tile]) != tile.width * HASH_SIZE:
                raise BadTileError(f"{tile.path} has {len(data[tile])} bytes")
        self._check_edge(edge, edge_tiles, data)
        for tile in tiles[first_child:]:
            parent = _in_tree(tile, 1, size)
            place = tlog.stored_hash_index((tile.level + 1) * height, tile.number)
            if parent is None or _tile_hash(data[tile]) != hash_from_tile(
                parent, data[parent], place
            ):
                raise BadTileError(f"{tile.path} does not belong to the tree of {size} records")
        self._source.save_tiles(tiles, read)
        return [
            hash_from_tile(tile, data[tile], index)
            for tile, index in zip(homes, indexes, strict=True)
        ]

    def _plan_for(self, index: int, plan: dict[Tile | None, None]) -> Tile:
        """Add the tile that holds ``index`` and its parents to the plan; return the tile."""
        size = self._tree.size
        if not 0 <= index < tlog.stored_hash_index(0, size):
            raise BadTileError(f"index {index} is not in the tree of {size} records")
        narrowest = tile_for_index(self._source.height, index)
        chain: list[Tile] = []
        tile = _in_tree(narrowest, 0, size)
        home = tile
        while tile is not None and tile not in plan:
            chain.append(tile)
            tile = _in_tree(narrowest, len(chain), size)
        if home is None or tile is None:
            raise BadTileError(f"index {index} is in no tile of the tree of {size} records")
        plan.update(dict.fromkeys(reversed(chain)))
        return home

    def _check_edge(
        self, edge: Sequence[int], tiles: Sequence[Tile | None], data: dict[Tile, bytes]
    ) -> None:
        """Check the tiles on the right edge of the tree against its root hash."""
        root = b""
        for index, tile in zip(reversed(edge), reversed(tiles), strict=True):
            assert tile is not None  # noqa: S101 (every hash of the edge is in a tile of the tree)
            part = hash_from_tile(tile, data[tile], index)
            root = tlog.node_hash(part, root) if root else part
        if (root or tlog.EMPTY_TREE_HASH) != self._tree.hash:
            raise BadTileError(
                f"the tiles on the edge do not belong to the tree of {self._tree.size} records"
            )


def _locate(height: int, index: int) -> tuple[Tile, int, int]:
    """Return the narrowest tile for a stored index, and which bytes of it hash to that hash."""
    level, n = tlog.split_stored_hash_index(index)
    tile_level, within = divmod(level, height)
    number = n << within >> height
    n -= number << height >> within
    start, end = n << within, (n + 1) << within
    return Tile(height, tile_level, number, end), start * HASH_SIZE, end * HASH_SIZE


def _in_tree(tile: Tile, up: int, size: int) -> Tile | None:
    """Return the ``up``-th parent of ``tile`` as wide as it is in a tree of ``size`` records."""
    level = tile.level + up
    number = tile.number >> (up * tile.height)
    width = min((size >> (level * tile.height)) - (number << tile.height), 1 << tile.height)
    return Tile(tile.height, level, number, width) if width > 0 else None


def _tile_hash(data: bytes) -> bytes:
    """Return the root of the subtree over the hashes in ``data``, a power of two of them."""
    hashes = [data[at : at + HASH_SIZE] for at in range(0, len(data), HASH_SIZE)]
    while len(hashes) > 1:
        hashes = [
            tlog.node_hash(left, right)
            for left, right in zip(hashes[::2], hashes[1::2], strict=True)
        ]
    return hashes[0]
