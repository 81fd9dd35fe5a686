"""Which checksum database is asked about a module, and what siblings prove while it is down."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, BinaryIO, cast

import pytest
from tests.unit.test_sumdb import NAME
from tests.unit.test_sumdb import Database as Log

from modhaven import protocol, sumdb
from modhaven.attempt import AttemptError, Deadline
from modhaven.breaker import Breaker
from modhaven.databases import Database, Databases, asking
from modhaven.peers import Peers

if TYPE_CHECKING:
    from pathlib import Path

    from modhaven.source import Source
    from modhaven.upstream import Upstream


def database(folder: Path, name: str, modules: str = "") -> Database:
    key = Log().key
    return Database(
        name=name, key=key, mirrors=[], itself=None, folder=folder / name, nosumdb="",
        modules=modules,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("module", "verifies", "corp_may_hear", "public_may_hear"),
    [
        ("rsc.io/quote", "public", True, True),
        ("git.corp.x/a", "corp", True, False),
        ("git.corp.x/other/b", "corp", True, False),
        # Private, and no database names it.
        ("secret.x/a", None, False, False),
        ("nosumdb.x/a", None, True, True),
    ],
)
def test_who_is_asked(
    tmp_path: Path, module: str, verifies: str | None, *, corp_may_hear: bool, public_may_hear: bool
) -> None:
    public = database(tmp_path, "public")
    corp = database(tmp_path, "corp", "git.corp.x")
    second = database(tmp_path, "second")
    databases = Databases(
        [public, corp, second], nosumdb="nosumdb.x", private="git.corp.x,secret.x"
    )
    client = databases.for_module(module)
    assert client is (getattr(databases.get(verifies), "client", None) if verifies else None)
    # The private pattern keeps the public database in the dark, our clients' questions included.
    assert databases.may_hear(public, module) is public_may_hear
    assert databases.may_hear(corp, module) is corp_may_hear


def test_without_a_database_for_all_the_others_verify_nothing(tmp_path: Path) -> None:
    databases = Databases([database(tmp_path, "corp", "git.corp.x")], nosumdb="", private="")
    assert databases.for_module("rsc.io/quote") is None


# --- siblings


class Itself:
    """The database as a source of a node, until it is ``down``."""

    name = "itself"
    serves_all = True

    def __init__(self, log: Log) -> None:
        self.log = log
        self.down = False
        self.breaker = Breaker(failures=100, open_seconds=1)

    def is_for(self, _module: str, *, private: bool) -> bool:
        return not private

    def probe_while_open(self) -> None:
        """Nothing probes here."""

    def fetch(self, path: str, sink: BinaryIO, **_: Any) -> None:
        if self.down:
            raise AttemptError("connection refused", transient=True)
        try:
            sink.write(self.log(path))
        except sumdb.NotFound:
            raise AttemptError("404", not_found=True) from None


class Sibling:
    """What a node is to another one: gives what it has proven, or what ``spoils`` makes of it."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.breaker = Breaker(failures=100, open_seconds=1)
        self.node: Database
        self.asked: list[str] = []
        self.spoils = False

    def probe_while_open(self) -> None:
        """Nothing probes here."""

    def small(self, path: str, **_: Any) -> tuple[bytes, str]:
        self.asked.append(path)
        body = self.node.known(protocol.parse(f"/{path}"))
        if body is None:
            raise AttemptError("404", not_found=True)
        return body.replace(b"h1:", b"h1:x") if self.spoils else body, ""


class Pair:
    """Two nodes of one database, each the other's sibling."""

    def __init__(self, folder: Path) -> None:
        self.log = Log()
        self.itself = Itself(self.log)
        self.siblings = [Sibling("a"), Sibling("b")]
        self.nodes = [
            Database(
                name=NAME, key=self.log.key, mirrors=[], itself=cast("Source", self.itself),
                folder=folder / sibling.name, nosumdb="",
                peers=Peers([cast("Upstream", sibling)], seconds=3),
            )
            for sibling in reversed(self.siblings)
        ]  # fmt: skip
        for sibling, node in zip(self.siblings, self.nodes, strict=True):
            sibling.node = node

    def look_up(self, number: int, version: str) -> bytes:
        request = protocol.parse(f"/sumdb/{NAME}/lookup/example.com/filler@{version}")
        with asking(Deadline.after(5)):
            return self.nodes[number].answer(request)

    def grow(self, number: int, size: int) -> str:
        """Let the log grow, and a node look its last record up; give that one's version."""
        self.log.fill(size)
        version = f"v1.0.{size - 1}"
        self.look_up(number, version)
        return version


A, B = 0, 1


@pytest.mark.parametrize(
    "history",
    [
        [(A, 300)],
        [(B, 300), (A, 900)],
        [(A, 300), (B, 900)],
        [(A, 5000), (B, 10_000), (A, 20_000), (B, 30_000)],
        [(A, 400), (B, 410), (A, 420), (B, 430)],
    ],
)
def test_what_one_node_has_looked_up_is_proven_to_the_other_while_the_database_is_down(
    tmp_path: Path, history: list[tuple[int, int]]
) -> None:
    pair = Pair(tmp_path)
    versions = []
    for number, size in history:
        versions.append(pair.grow(number, size))
        for node in pair.nodes:
            node.meet(seconds=5)
    pair.itself.down = True
    for version in versions:
        assert pair.look_up(A, version) == pair.look_up(B, version)


def test_what_the_sibling_gives_must_be_proven(tmp_path: Path) -> None:
    pair = Pair(tmp_path)
    version = pair.grow(A, 300)
    pair.itself.down = True
    pair.siblings[A].spoils = True
    with pytest.raises(sumdb.SumdbError):
        pair.look_up(B, version)
    pair.siblings[A].spoils = False
    assert pair.look_up(B, version)


def test_no_sibling_is_asked_for_what_the_database_has_or_says_it_has_not(tmp_path: Path) -> None:
    pair = Pair(tmp_path)
    version = pair.grow(A, 300)
    pair.look_up(B, version)
    with pytest.raises(sumdb.NotFound):
        pair.look_up(B, "v9.9.9")
    assert not pair.siblings[A].asked


def test_heads_that_contradict_each_other_are_found_when_siblings_meet(tmp_path: Path) -> None:
    pair = Pair(tmp_path)
    pair.grow(A, 300)
    pair.log.size, pair.log.nodes, pair.log.records = 0, {}, {}
    pair.log.add("example.com/other", "v1.0.0")
    pair.grow(B, 310)
    pair.nodes[B].meet(seconds=5)
    assert pair.nodes[B].forked
