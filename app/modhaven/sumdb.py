"""A checksum database client: go.sum lines, proven to be in the one log that everybody sees.

Source: golang.org/x/mod/sumdb (client.go). A lookup answers with a record, its number, and a signed
tree head. The client checks the signature, that the tree head and the latest one it knows are of
one and the same growing tree, and that the record is in that tree. The latest head only ever grows;
two signed heads that contradict each other prove that the database has lied (ForkError).

A database has several sources: mirrors first, itself last. A source that fails or serves bad data
is passed over; only the signature counts, not who delivers it. Unlike x/mod's client this one runs
for months: it authenticates tiles before it caches them, asks again without its cache when cached
and fetched data disagree, and refuses answers about another module.
"""

import base64
import contextlib
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import TypeVar

from modhaven import globs, modpath, note, tiles, tlog
from modhaven.sumdb_source import (
    Fetch,
    ForkError,
    NotFound,
    SecurityError,
    Skipped,
    Source,
    SumdbError,
    TileCache,
    Unreachable,
)
from modhaven.sumdb_state import DiskState, MemoryState, State

match_prefix_patterns = globs.match_prefix_patterns

__all__ = [
    "Client",
    "DiskState",
    "Fetch",
    "ForkError",
    "MemoryState",
    "NotFound",
    "SecurityError",
    "Skipped",
    "State",
    "SumdbError",
    "Unreachable",
    "match_prefix_patterns",
]

_T = TypeVar("_T")
_GO_MOD = "/go.mod"
_MAX_CACHED_RECORDS = 4096  # a few hundred bytes each


@dataclass(frozen=True, slots=True)
class _Head:
    """A tree head that has been opened: the tree and the signed note it comes from."""

    tree: tlog.Tree
    message: bytes


class Client:
    """A client of one checksum database; all methods may be called from several threads."""

    def __init__(
        self,
        verifier_key: str,
        fetch: Fetch | Sequence[Fetch],
        state: State,
        *,
        nosumdb: str = "",
        on_failure: Callable[[SumdbError], None] | None = None,
    ) -> None:
        """Make a client; nothing is fetched yet.

        ``verifier_key`` is ``name+hash+key``; ``fetch`` one source or several, in the order to ask;
        ``nosumdb`` GONOSUMDB patterns; ``on_failure`` hears of every source that was passed over.
        Raises note.MalformedKeyError.
        """
        self._verifier = note.parse_verifier(verifier_key)
        self._sources: Sequence[Fetch] = [fetch] if callable(fetch) else list(fetch)
        self._state = state
        self._nosumdb = nosumdb
        self._on_failure = on_failure
        self._lock = threading.Lock()
        self._latest: _Head | None = None
        self._running: dict[str, Future[bytes]] = {}
        self._records: OrderedDict[str, bytes] = OrderedDict()
        self._tiles = TileCache(state)

    @property
    def name(self) -> str:
        """The database's name, such as ``sum.golang.org``; it may contain a path."""
        return self._verifier.name

    @property
    def fork(self) -> str:
        """The proof that the database has lied, empty if it has not; nothing new is verified then.

        It is kept in the state as ``fork``, for all processes, until somebody removes it.
        """
        return (self._state.load("fork") or b"").decode("utf-8", "replace")

    def lookup(self, module: str, version: str) -> list[str]:
        """Return the go.sum lines for a module version, or for its go.mod: ``v1.2.3/go.mod``.

        Source: sumdb.Client.Lookup. Raises Skipped, NotFound, Unreachable, SecurityError,
        and ValueError for a malformed module path or version.
        """
        bare = version.removesuffix(_GO_MOD)
        _, text, _ = tlog.parse_record(self.lookup_answer(module, bare))
        return _lines(text, f"{module} {version} ")

    def lookup_hash(self, module: str, version: str, suffix: str = "") -> str:
        """Return the h1: hash of the zip of a module version, of its go.mod with ``/go.mod``.

        Raises as lookup does, and NotFound when the database knows the version but no such hash.
        """
        for line in self.lookup(module, version + suffix):
            digest = line.rpartition(" ")[2]
            if digest.startswith("h1:"):
                return digest
        raise NotFound(f"{self.name} has no h1 hash for {module}@{version}{suffix}")

    def lookup_answer(self, module: str, version: str) -> bytes:
        """Return the verified answer to a lookup as received: record, empty line, tree head."""
        if match_prefix_patterns(self._nosumdb, module):
            raise Skipped(f"{module} matches the GONOSUMDB patterns")
        path = f"lookup/{modpath.escape_path(module)}@{modpath.escape_version(version)}"
        with self._lock:
            known = self._records.get(path)
            running = self._running.get(path)
            if known is None and running is None:
                mine: Future[bytes] = Future()
                self._running[path] = mine
        if known is not None:
            return known
        if running is not None:
            return running.result()
        try:
            answer = self._load_answer(path) or self._fetch_answer(path, module, version)
            with self._lock:
                self._records[path] = answer
                if len(self._records) > _MAX_CACHED_RECORDS:
                    self._records.popitem(last=False)
            mine.set_result(answer)
        except BaseException as error:
            mine.set_exception(error)
            raise
        finally:
            with self._lock:
                del self._running[path]
        return answer

    def latest(self) -> bytes:
        """Fetch the database's tree head, check it, and return the latest one known, signed."""

        def attempt(source: Source) -> bytes:
            self._merge(source.fetch("latest"), source)
            return self.head

        return self._from_sources(attempt)

    def known(self, path: str) -> bytes | None:
        """Return what has been proven of ``lookup/…``, ``tile/…`` or ``latest``; asks nobody."""
        if path == "latest":
            # Another process may know a later one than this.
            return self._load_head().message or self.head or None
        if path.startswith("lookup/"):
            return self._load_answer(path)
        try:
            return self._tiles.find(tiles.parse_tile_path(path))
        except ValueError:
            return None

    def learn(self, head: bytes) -> None:
        """Prove that a signed tree head is of the one log, and keep what proves it; as latest."""
        self._from_sources(lambda source: self._merge(head, source))

    @property
    def head(self) -> bytes:
        """The latest signed tree head known, empty if there is none; asks nobody."""
        return self._known_head().message

    def tile(self, path: str) -> bytes:
        """Return the verified data of the tile at ``path``, to serve it to others.

        Raises ValueError for a malformed path, NotFound for a tile beyond the tree, of records,
        or of another height than 8; Unreachable, SecurityError.
        """
        tile = tiles.parse_tile_path(path)
        if tile.height != tiles.HEIGHT or tile.level == tiles.DATA_LEVEL:
            raise NotFound(f"{path} is not mirrored")
        known = self._tiles.find(tile)
        if known is not None:
            return known
        first = tile.number << tile.height
        level = tile.level * tile.height
        indexes = [tlog.stored_hash_index(level, first + n) for n in range(tile.width)]

        def attempt(source: Source) -> bytes:
            tree = self._known_head().tree
            if tree.size >> level < first + tile.width:
                tree = self._merge(source.fetch("latest"), source)
            if tree.size >> level < first + tile.width:
                raise NotFound(f"{path} is beyond the tree of {tree.size} records")
            return b"".join(tiles.TileHashReader(tree, source)(indexes))

        return self._from_sources(attempt)

    def _load_answer(self, path: str) -> bytes | None:
        """Return a lookup from the state: it was verified before it was saved."""
        try:
            answer = self._state.load(path)
            if answer is not None:
                tlog.parse_record(answer)
        except (tlog.MalformedError, OSError):
            return None
        return answer

    def _fetch_answer(self, path: str, module: str, version: str) -> bytes:
        def attempt(source: Source) -> bytes:
            answer = source.fetch(path)
            number, text, head = tlog.parse_record(answer)
            tree = self._merge(head, source)
            self._check_record(number, text, tree, source)
            prefixes = (f"{module} {version} ", f"{module} {version}{_GO_MOD} ")
            if not any(_lines(text, prefix) for prefix in prefixes):
                raise SecurityError(f"{self.name}: the answer is not about {module}@{version}")
            return answer

        answer = self._from_sources(attempt)
        self._save(lambda: self._state.save(path, answer))
        return answer

    def _check_record(self, number: int, text: bytes, tree: tlog.Tree, source: Source) -> None:
        if number >= tree.size:
            raise SecurityError(
                f"{self.name}: record {number} is not in the tree of {tree.size} records"
            )
        index = tlog.stored_hash_index(0, number)
        if tiles.TileHashReader(tree, source)([index]) != [tlog.record_hash(text)]:
            raise SecurityError(f"{self.name}: record {number} is not what is in the tree")

    def _from_sources(self, attempt: Callable[[Source], _T]) -> _T:
        """Try each source in turn; raise the error of the last, the others as its notes."""
        if fork := self.fork:
            raise ForkError(f"{self.name} has signed two histories: nothing new is verified", fork)
        failures: list[SumdbError] = []
        for fetch in self._sources:
            try:
                return self._from_source(fetch, attempt)
            except ForkError as error:
                proof = error.proof.encode()
                self._save(lambda proof=proof: self._state.save("fork", proof))  # type: ignore[misc]
                raise
            except SumdbError as error:
                failures.append(error)
                if self._on_failure is not None:
                    self._on_failure(error)
        if not failures:
            raise Unreachable(f"{self.name} has no source")
        for earlier in failures[:-1]:
            failures[-1].add_note(f"before that: {type(earlier).__name__}: {earlier}")
        raise failures[-1]

    def _from_source(self, fetch: Fetch, attempt: Callable[[Source], _T]) -> _T:
        others = [other for other in self._sources if other is not fetch]
        try:
            source = Source(self.name, fetch, others, self._tiles, cached=True)
            try:
                result = attempt(source)
            except tiles.BadTileError:
                # Some tile is wrong, perhaps one of the cache: of a damaged disk, or because this
                # is a fork of the log. With fetched tiles alone it is clear which.
                source = Source(self.name, fetch, others, self._tiles, cached=False)
                result = attempt(source)
        except (note.NoteError, tlog.MalformedError, tiles.BadTileError) as error:
            raise SecurityError(f"{self.name}: {error}") from error
        except OSError as error:
            raise Unreachable(f"{self.name}: {error}") from error
        source.commit()
        return result

    def _known_head(self) -> _Head:
        """Return the latest head, at first from the state."""
        with self._lock:
            if self._latest is not None:
                return self._latest
        head = self._load_head()
        with self._lock:
            if self._latest is None:
                self._latest = head
            return self._latest

    def _load_head(self) -> _Head:
        message = self._state.load_head()
        try:
            return self._open(message) if message else _Head(tlog.EMPTY_TREE, b"")
        except (note.NoteError, tlog.MalformedError) as error:
            raise SecurityError(
                f"{self.name}: the stored tree head cannot be trusted ({error});"
                " restore it, or remove it to start anew"
            ) from error

    def _open(self, message: bytes) -> _Head:
        opened = note.open_note(message, [self._verifier])
        return _Head(tlog.parse_tree(opened.text), message)

    def _merge(self, message: bytes, source: Source) -> tlog.Tree:
        """Check a signed head against the latest one and return the later of the two trees.

        Source: sumdb.Client.mergeLatest. No lock is held while tiles are fetched.
        """
        head = self._open(message)
        while True:
            latest = self._known_head()
            if head.tree.size <= latest.tree.size:
                self._check_consistent(head, latest, source)
                return latest.tree
            self._check_consistent(latest, head, source)
            with self._lock:
                if self._latest is latest:
                    self._latest = head
                    break
        self._store_head(head, source)
        return head.tree

    def _store_head(self, head: _Head, source: Source) -> None:
        """Bring the stored head forward to ``head``, or the known one to what is stored."""
        while True:
            stored = self._load_head()
            if stored.tree.size >= head.tree.size:
                self._check_consistent(head, stored, source)
                with self._lock:
                    if self._latest is None or self._latest.tree.size < stored.tree.size:
                        self._latest = stored
                return
            self._check_consistent(stored, head, source)
            if self._state.swap_head(stored.message, head.message):
                return

    def _check_consistent(self, older: _Head, newer: _Head, source: Source) -> None:
        """Raise ForkError unless ``newer`` starts with all records of ``older`` (checkTrees)."""
        if older.tree == newer.tree or not older.tree.size:
            return
        if older.tree.size == newer.tree.size:
            raise self._fork(older, newer, [])
        reader = tiles.TileHashReader(newer.tree, source)
        root = tlog.tree_hash(older.tree.size, reader)
        if root != older.tree.hash:
            proof = tlog.prove_tree(newer.tree.size, older.tree.size, reader)
            raise self._fork(older, newer, [root, *proof])

    def _fork(self, older: _Head, newer: _Head, hashes: Sequence[bytes]) -> ForkError:
        """Return the error with both signed heads and the proof that they contradict each other."""
        lines = [f"SECURITY ERROR: {self.name} has signed two histories that contradict each other"]
        for title, head in (("old database:", older), ("new database:", newer)):
            lines += ["", title, *(f"\t{line}" for line in head.message.decode().splitlines())]
        lines += ["", "proof of misbehavior:"]
        lines += [f"\t{base64.b64encode(item).decode()}" for item in hashes]
        if not hashes:
            lines.append("\tboth are of the same size, with different hashes")
        sizes = f"{older.tree.size} and {newer.tree.size}"
        return ForkError(
            f"{self.name} has signed trees of {sizes} records that contradict each other",
            "\n".join(lines) + "\n",
        )

    def _save(self, save: Callable[[], None]) -> None:
        """Save what can be fetched again; a full disk must not turn a good answer into an error."""
        with contextlib.suppress(OSError):
            save()


def _lines(text: bytes, prefix: str) -> list[str]:
    return [line for line in text.decode().split("\n") if line.startswith(prefix)]
