"""A source of a checksum database: what fetching can fail with; tiles, fetched or cached.

Source: golang.org/x/mod/sumdb (client.go, tileReader).
"""

import contextlib
import contextvars
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor

from modhaven import tiles
from modhaven.sumdb_state import State
from modhaven.tiles import Tile
from modhaven.tlog import HASH_SIZE

Fetch = Callable[[str], bytes]
"""Fetches a path below the database's address: ``lookup/M@V``, ``tile/…``, ``latest``.

Raises NotFound for 404 and 410, Unreachable (or OSError) when there is no answer. May be called
from several threads at once, in a copy of the asking thread's context.
"""

_MAX_CACHED_TILES = 1024  # 8 KiB each
_PARALLEL_FETCHES = 8


class SumdbError(Exception):
    """Base of everything a lookup can fail with."""


class Unreachable(SumdbError):  # noqa: N818 (a state of the database, and the app's word for it)
    """No source gave an answer; nothing is known about the module."""


class NotFound(SumdbError):  # noqa: N818
    """The database answered that it has no such module version."""


class Skipped(SumdbError):  # noqa: N818
    """The module matches the GONOSUMDB patterns and is never looked up (x/mod ErrGONOSUMDB)."""


class SecurityError(SumdbError):
    """An answer came that is not authentic: damaged, forged, or about something else."""


class ForkError(SecurityError):
    """The database has signed two histories; ``proof`` is the evidence, for people to publish."""

    def __init__(self, message: str, proof: str) -> None:
        """Keep the proof beside the message."""
        super().__init__(message)
        self.proof = proof


class TileCache:
    """Authenticated tiles, in memory and in the state; the widest known of each place."""

    def __init__(self, state: State) -> None:
        """Keep tiles in ``state`` and the last used ones in memory."""
        self._state = state
        self._lock = threading.Lock()
        self._tiles: OrderedDict[Tile, bytes] = OrderedDict()

    def find(self, tile: Tile) -> bytes | None:
        """Return the data of a tile if it or a wider one is known."""
        size = tile.width * HASH_SIZE
        with self._lock:
            data = self._tiles.get(tile.full, b"")
        return data[:size] if len(data) >= size else self._state.load_tile(tile)

    def keep(self, tile: Tile, data: bytes) -> None:
        """Keep a tile that has been authenticated, in place of a cached one that differs."""
        with self._lock:
            known = self._tiles.get(tile.full, b"")
            if known[: len(data)] == data:
                return
            self._tiles[tile.full] = data
            self._tiles.move_to_end(tile.full)
            if len(self._tiles) > _MAX_CACHED_TILES:
                self._tiles.popitem(last=False)
        # A tile can be fetched again: a full disk must not turn a good answer into an error.
        with contextlib.suppress(OSError):
            self._state.save_tile(tile, data)


class Source:
    """One source for the time of one question: fetches, and is the TileSource of its readers."""

    height = tiles.HEIGHT

    def __init__(
        self, name: str, fetch: Fetch, others: Sequence[Fetch], cache: TileCache, *, cached: bool
    ) -> None:
        """Ask ``fetch`` for the database ``name``, and ``others`` for tiles it does not have.

        With ``cached``, tiles of the cache are used too.
        """
        self._name, self._fetch, self._others = name, fetch, others
        self._cache, self._cached = cache, cached
        self._authentic: dict[Tile, bytes] = {}

    def fetch(self, path: str) -> bytes:
        """Return what the source has at ``path``. Raises NotFound, Unreachable."""
        try:
            return self._fetch(path)
        except OSError as error:
            raise Unreachable(f"{self._name}: {path}: {error}") from error

    def read_tiles(self, wanted: Sequence[Tile]) -> list[bytes]:
        """See tiles.TileSource. Raises Unreachable."""
        found = {tile: data for tile in wanted if (data := self._find(tile)) is not None}
        missing = [tile for tile in wanted if tile not in found]
        found.update(zip(missing, self._fetch_all(missing), strict=True))
        return [found[tile] for tile in wanted]

    def save_tiles(self, wanted: Sequence[Tile], data: Sequence[bytes]) -> None:
        """See tiles.TileSource; the tiles are only cached by commit."""
        self._authentic.update(zip(wanted, data, strict=True))

    def commit(self) -> None:
        """Cache the tiles: they belong to trees that have been found consistent."""
        for tile, data in self._authentic.items():
            self._cache.keep(tile, data)

    def _find(self, tile: Tile) -> bytes | None:
        if tile in self._authentic:
            return self._authentic[tile]
        return self._cache.find(tile) if self._cached else None

    def _fetch_all(self, wanted: Sequence[Tile]) -> Iterable[bytes]:
        """Fetch tiles side by side: a cold lookup needs five to eight of them."""
        if len(wanted) <= 1:
            return [self._fetch_tile(tile) for tile in wanted]
        # Each in a copy of the caller's context, which may carry a deadline or a request id.
        contexts = [contextvars.copy_context() for _ in wanted]
        with ThreadPoolExecutor(min(_PARALLEL_FETCHES, len(wanted))) as pool:
            return list(
                pool.map(
                    lambda context, tile: context.run(self._fetch_tile, tile), contexts, wanted
                )
            )

    def _fetch_tile(self, tile: Tile) -> bytes:
        """Fetch a tile here or, as a mirror may lag behind the tree head we know, elsewhere."""
        try:
            return _fetch_tile(self.fetch, tile)
        except NotFound as error:
            missing = error
        for other in self._others:
            with contextlib.suppress(NotFound, Unreachable, OSError):
                return _fetch_tile(other, tile)
        raise Unreachable(f"{self._name}: {tile.path} is missing") from missing


def _fetch_tile(fetch: Fetch, tile: Tile) -> bytes:
    if not tile.is_full:
        with contextlib.suppress(NotFound):
            return fetch(tile.path)
    # Where a partial tile has been completed, only the full one may be left.
    return fetch(tile.full.path)[: tile.width * HASH_SIZE]
