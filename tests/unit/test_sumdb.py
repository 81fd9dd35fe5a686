"""sumdb, against a database with a real key; cases of x/mod's sumdb client tests, and more."""

import base64
import copy
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from modhaven import globs, modpath, note, sumdb, tiles, tlog
from modhaven.sumdb import Client, DiskState, MemoryState
from modhaven.tiles import Tile

NAME = "sum.example.org/db"


class Database:
    """A checksum database in memory; calling it fetches a path."""

    def __init__(self, seed: int = 1) -> None:
        self.private = Ed25519PrivateKey.from_private_bytes(bytes([seed]) * 32)
        key = b"\x01" + self.private.public_key().public_bytes_raw()
        self.key_hash = note.key_hash(NAME, key)
        self.key = f"{NAME}+{self.key_hash.hex()}+{base64.b64encode(key).decode()}"
        self.size = 0
        self.nodes: dict[tuple[int, int], bytes] = {}
        self.records: dict[str, tuple[int, bytes]] = {}
        self.only_full_tiles = False
        self.asked: list[str] = []
        self.lock = threading.Lock()

    def __deepcopy__(self, memo: dict[int, object]) -> "Database":
        other = Database()
        other.size, other.nodes, other.records = self.size, dict(self.nodes), dict(self.records)
        return other

    def add(self, module: str, version: str, text: str = "") -> None:
        text = text or (
            f"{module} {version} h1:{module}{version}=\n"
            f"{module} {version}/go.mod h1:mod{version}=\n"
        )
        path = f"lookup/{modpath.escape_path(module)}@{modpath.escape_version(version)}"
        self.records[path] = (self.size, text.encode())
        level, n, root = 0, self.size, tlog.record_hash(text.encode())
        self.nodes[0, n] = root
        while n & 1:
            root = tlog.node_hash(self.nodes[level, n - 1], root)
            level, n = level + 1, n >> 1
            self.nodes[level, n] = root
        self.size += 1

    def fill(self, size: int) -> None:
        while self.size < size:
            self.add("example.com/filler", f"v1.0.{self.size}")

    def read(self, indexes: "list[int] | object") -> list[bytes]:
        assert isinstance(indexes, list)
        return [self.nodes[tlog.split_stored_hash_index(index)] for index in indexes]

    def sign(self, text: str) -> bytes:
        signature = base64.b64encode(self.key_hash + self.private.sign(text.encode())).decode()
        return f"{text}\n— {NAME} {signature}\n".encode()

    def head(self, size: int | None = None) -> bytes:
        size = self.size if size is None else size
        root = base64.b64encode(tlog.tree_hash(size, self.read)).decode()
        return self.sign(f"go.sum database tree\n{size}\n{root}\n")

    def __call__(self, path: str) -> bytes:
        with self.lock:
            self.asked.append(path)
        if path == "latest":
            return self.head()
        if path.startswith("lookup/"):
            return self.answer(path)
        tile = tiles.parse_tile_path(path)
        assert tile.height == 8
        if (
            self.only_full_tiles
            and not tile.is_full
            and self.size >> (8 * tile.level) >= (tile.number + 1) << 8
        ):
            raise sumdb.NotFound(path)
        try:
            return b"".join(
                self.nodes[8 * tile.level, (tile.number << 8) + n] for n in range(tile.width)
            )
        except KeyError:
            raise sumdb.NotFound(path) from None

    def answer(self, path: str, size: int | None = None) -> bytes:
        if path not in self.records:
            raise sumdb.NotFound(path)
        number, text = self.records[path]
        return b"%d\n%s\n" % (number, text) + self.head(size)

    def tile_requests(self) -> list[str]:
        return [path for path in self.asked if path.startswith("tile/")]


def size_of(head: bytes) -> int:
    return int(head.split(b"\n")[1])


@pytest.fixture
def database() -> Database:
    database = Database()
    database.fill(700)
    database.add("rsc.io/sampler", "v1.3.0")
    database.add("rsc.io/Quote", "v1.5.2", "rsc.io/Quote v1.5.2 h1:uppercase!=\n")
    database.add(
        "rsc.io/quote", "v1.5.2", "rsc.io/quote v1.5.2 h1:a=\nrsc.io/quote v1.5.2 h2:xyzzy\n"
    )
    return database


@pytest.fixture(params=["memory", "disk"])
def state(request: pytest.FixtureRequest, tmp_path: Path) -> sumdb.State:
    return MemoryState() if request.param == "memory" else DiskState(tmp_path / "sumdb")


class Switch:
    """A source that can be replaced by another one."""

    def __init__(self, source: Callable[[str], bytes]) -> None:
        self.source = source

    def __call__(self, path: str) -> bytes:
        return self.source(path)


def unreachable(path: str) -> bytes:
    raise sumdb.Unreachable(path)


# -- good databases -------------------------------------------------------------------------------


def test_lookup(database: Database, state: sumdb.State) -> None:
    client = Client(database.key, database, state)
    assert client.name == NAME
    assert client.lookup("rsc.io/sampler", "v1.3.0") == [
        "rsc.io/sampler v1.3.0 h1:rsc.io/samplerv1.3.0="
    ]
    assert client.lookup_hash("rsc.io/sampler", "v1.3.0") == "h1:rsc.io/samplerv1.3.0="
    assert client.lookup_hash("rsc.io/sampler", "v1.3.0", "/go.mod") == "h1:modv1.3.0="
    assert client.lookup("rsc.io/quote", "v1.5.2") == [
        "rsc.io/quote v1.5.2 h1:a=",
        "rsc.io/quote v1.5.2 h2:xyzzy",
    ]
    assert client.lookup_hash("rsc.io/Quote", "v1.5.2") == "h1:uppercase!="
    with pytest.raises(sumdb.NotFound, match="no h1 hash"):
        client.lookup_hash("rsc.io/Quote", "v1.5.2", "/go.mod")
    assert size_of(client.head) == size_of(state.load_head()) == database.size
    # One fetch for each module version, and none of a tile twice.
    assert len(database.asked) == len(set(database.asked))


def test_known_lookups_need_no_database(database: Database, state: sumdb.State) -> None:
    Client(database.key, database, state).lookup("rsc.io/sampler", "v1.3.0")
    later = Client(database.key, unreachable, state)
    assert later.lookup_hash("rsc.io/sampler", "v1.3.0", "/go.mod") == "h1:modv1.3.0="
    assert later.lookup_answer("rsc.io/sampler", "v1.3.0") == database.answer(
        "lookup/rsc.io/sampler@v1.3.0"
    )
    with pytest.raises(sumdb.Unreachable):
        later.lookup("rsc.io/Quote", "v1.5.2")


def test_growing_tree(state: sumdb.State) -> None:
    database = Database()
    client = Client(database.key, database, state)
    for size in [1, 2, 3, 255, 256, 257, 511, 512, 513, 1000]:
        database.fill(size - 1)
        database.add("example.com/m", f"v1.0.{size}")
        assert client.lookup_hash("example.com/m", f"v1.0.{size}")
        assert size_of(state.load_head()) == size
    # A new process goes on from there.
    database.fill(1200)
    again = Client(database.key, database, state)
    assert again.lookup("example.com/filler", "v1.0.1100")
    assert size_of(state.load_head()) == 1200


def test_a_tree_with_three_levels_of_tiles(state: sumdb.State) -> None:
    database = Database()
    database.fill(65_700)
    client = Client(database.key, database, state)
    for number in (0, 300, 65_535, 65_536, 65_699):
        assert client.lookup("example.com/filler", f"v1.0.{number}")
    assert "tile/8/2/000.p/1" in database.asked


def test_full_tile_in_place_of_a_partial_one(database: Database, state: sumdb.State) -> None:
    database.only_full_tiles = True
    old = database.answer("lookup/rsc.io/sampler@v1.3.0", 702)
    database.fill(800)  # the tile of records 512 to 767 is complete by now

    def lagging(path: str) -> bytes:
        return old if path.startswith("lookup/") else database(path)

    assert Client(database.key, lagging, state).lookup("rsc.io/sampler", "v1.3.0")
    assert "tile/8/0/002.p/190" in database.asked
    assert "tile/8/0/002" in database.asked


def test_an_older_head_does_not_roll_back(database: Database, state: sumdb.State) -> None:
    old = copy.deepcopy(database)
    database.fill(1000)
    Client(database.key, database, state).lookup("rsc.io/Quote", "v1.5.2")
    client = Client(database.key, [old, database], state)
    assert client.lookup("rsc.io/sampler", "v1.3.0")
    assert size_of(client.latest()) == size_of(state.load_head()) == size_of(client.head) == 1000


def test_another_process_has_gone_further(database: Database, state: sumdb.State) -> None:
    grown = copy.deepcopy(database)
    behind = Client(database.key, [database, grown], state)
    behind.lookup("rsc.io/sampler", "v1.3.0")
    grown.fill(1500)
    Client(database.key, grown, state).latest()
    database.fill(900)
    assert behind.lookup("rsc.io/Quote", "v1.5.2")
    assert size_of(state.load_head()) == size_of(behind.head) == 1500


def test_unknown_module(database: Database, state: sumdb.State) -> None:
    client = Client(database.key, database, state)
    with pytest.raises(sumdb.NotFound):
        client.lookup("rsc.io/other", "v1.0.0")
    with pytest.raises(ValueError, match="malformed module path"):
        client.lookup("rsc io", "v1.0.0")
    with pytest.raises(ValueError, match="disallowed version"):
        client.lookup("rsc.io/x", "v1/../../x")


def test_many_threads_ask_once(database: Database, state: sumdb.State) -> None:
    client = Client(database.key, database, state)
    names = [("rsc.io/sampler", "v1.3.0"), ("rsc.io/Quote", "v1.5.2")]
    names += [("example.com/filler", f"v1.0.{n}") for n in range(0, 700, 70)]
    with ThreadPoolExecutor(16) as pool:
        results = list(pool.map(lambda name: client.lookup(*name), names * 10))
    assert all(results)
    lookups = [path for path in database.asked if path.startswith("lookup/")]
    assert len(lookups) == len(set(lookups)) == len(names)


def test_nosumdb(database: Database) -> None:
    client = Client(database.key, database, MemoryState(), nosumdb="p.io,*/q")
    for module in ("p.io", "p.io/x", "x.io/q", "x.io/q/z"):
        with pytest.raises(sumdb.Skipped):
            client.lookup(module, "v1.0.0")
    for module in ("abc.io", "a.io/p.io", "p.iox", "n.io/o/p/q"):
        with pytest.raises(sumdb.NotFound):
            client.lookup(module, "v1.0.0")


def test_a_full_disk_does_not_stop_lookups(database: Database) -> None:
    class Full(MemoryState):
        def save(self, *args: object) -> None:
            raise OSError(28, f"No space left on device: {args[0]}")

        def save_tile(self, *args: object) -> None:
            raise OSError(28, f"No space left on device: {args[0]}")

    assert Client(database.key, database, Full()).lookup("rsc.io/sampler", "v1.3.0")


# -- sources --------------------------------------------------------------------------------------


def test_sources_in_order(database: Database) -> None:
    heard: list[sumdb.SumdbError] = []

    def lying(path: str) -> bytes:
        return b"x" + database(path)

    def broken(path: str) -> bytes:
        raise ConnectionResetError(path)

    def empty(path: str) -> bytes:
        raise sumdb.NotFound(path)

    client = Client(
        database.key,
        [lying, broken, empty, database],
        MemoryState(),
        on_failure=heard.append,
    )
    assert client.lookup("rsc.io/sampler", "v1.3.0")
    assert [type(error) for error in heard] == [
        sumdb.SecurityError,
        sumdb.Unreachable,
        sumdb.NotFound,
    ]
    with pytest.raises(sumdb.Unreachable) as caught:
        Client(database.key, [lying, broken], MemoryState()).lookup("rsc.io/sampler", "v1.3.0")
    assert "SecurityError" in caught.value.__notes__[0]
    with pytest.raises(sumdb.Unreachable, match="no source"):
        Client(database.key, [], MemoryState()).lookup("rsc.io/sampler", "v1.3.0")


def test_missing_tiles_are_not_a_missing_module(database: Database) -> None:
    def without_tiles(path: str) -> bytes:
        if path.startswith("tile/"):
            raise sumdb.NotFound(path)
        return database(path)

    with pytest.raises(sumdb.Unreachable, match=r"tile/8/.* is missing"):
        Client(database.key, without_tiles, MemoryState()).lookup("rsc.io/sampler", "v1.3.0")


# -- bad data -------------------------------------------------------------------------------------


def flipped(fetch: Callable[[str], bytes], what: str) -> Callable[[str], bytes]:
    def damaged(path: str) -> bytes:
        data = fetch(path)
        return bytes(byte ^ 0x80 for byte in data) if what in path else data

    return damaged


def test_bad_tiles(database: Database, state: sumdb.State) -> None:
    for what in ("tile/8/0/002", "tile/8/1", "tile/8/0/001"):
        client = Client(database.key, flipped(database, what), MemoryState())
        with pytest.raises(sumdb.SecurityError, match=r"do(es)? not belong"):
            client.lookup("example.com/filler", "v1.0.300")
    # Nothing bad was kept, so that the same client goes on once the source is good again.
    source = Switch(flipped(database, "tile/"))
    client = Client(database.key, source, state)
    with pytest.raises(sumdb.SecurityError):
        client.lookup("rsc.io/sampler", "v1.3.0")
    source.source = database
    assert client.lookup("rsc.io/sampler", "v1.3.0")
    # Bad tiles after good ones.
    database.fill(1000)
    source.source = flipped(database, "tile/")
    with pytest.raises(sumdb.SecurityError):
        client.lookup("rsc.io/Quote", "v1.5.2")
    assert size_of(state.load_head()) == 703
    source.source = database
    assert client.lookup("rsc.io/Quote", "v1.5.2")


def test_damaged_cache_heals(database: Database, tmp_path: Path) -> None:
    Client(database.key, database, DiskState(tmp_path)).lookup("rsc.io/sampler", "v1.3.0")
    for path in tmp_path.rglob("tile/**/*"):
        if path.is_file():
            path.write_bytes(path.read_bytes()[::-1])
    database.fill(720)
    client = Client(database.key, database, DiskState(tmp_path))
    assert client.lookup("rsc.io/Quote", "v1.5.2")
    offline = Client(database.key, unreachable, DiskState(tmp_path))
    assert offline.tile("tile/8/0/002.p/208") == database("tile/8/0/002.p/208")


def test_damaged_lookup_is_fetched_again(database: Database, state: sumdb.State) -> None:
    state.save("lookup/rsc.io/sampler@v1.3.0", b"")
    assert Client(database.key, database, state).lookup("rsc.io/sampler", "v1.3.0")


@pytest.mark.parametrize(
    "change",
    [
        (b"samplerv1", b"samplerv2"),  # another hash in the record
        (b"701\n", b"700\n"),
        (b"700\n", b"9999999\n"),
        (b"\n\n", b"\n"),
        (b"sampler v1.3.0/go.mod", b"sampler v1.3.0/go.mo"),
    ],
)
def test_changed_record(database: Database, change: tuple[bytes, bytes]) -> None:
    def changed(path: str) -> bytes:
        data = database(path)
        return data.replace(*change, 1) if path.startswith("lookup/") else data

    if change[0] == b"701\n":
        database.records["lookup/rsc.io/sampler@v1.3.0"] = (701, b"rsc.io/sampler v1.3.0 h1:x=\n")
    client = Client(database.key, changed, MemoryState())
    with pytest.raises(sumdb.SecurityError):
        client.lookup("rsc.io/sampler", "v1.3.0")


def test_wrong_signature(database: Database) -> None:
    other = Database(seed=2)
    client = Client(other.key, database, MemoryState())
    with pytest.raises(sumdb.SecurityError, match="no verifiable signatures"):
        client.lookup("rsc.io/sampler", "v1.3.0")
    signed = database.answer("lookup/rsc.io/sampler@v1.3.0")

    def changed(path: str) -> bytes:
        return signed.replace(b"\n703\n", b"\n702\n") if "lookup" in path else database(path)

    with pytest.raises(sumdb.SecurityError, match="invalid signature"):
        Client(database.key, changed, MemoryState()).lookup("rsc.io/sampler", "v1.3.0")


def test_answer_about_another_module(database: Database) -> None:
    def replayed(path: str) -> bytes:
        return database("lookup/rsc.io/!quote@v1.5.2" if "lookup" in path else path)

    with pytest.raises(sumdb.SecurityError, match=r"not about rsc.io/sampler@v1.3.0"):
        Client(database.key, replayed, MemoryState()).lookup("rsc.io/sampler", "v1.3.0")


def test_lines_after_the_tree_head_are_not_the_record(database: Database) -> None:
    # x/mod TestRejectUnauthenticatedLines: signed with the head, but not in the log.
    text = database.head().decode().partition("\n\n")[0] + "\ngolang.org/x/bad v1.0.0 h1:bad=\n"
    number, record = database.records["lookup/rsc.io/sampler@v1.3.0"]
    answer = b"%d\n%s\n" % (number, record) + database.sign(text)

    def mixed(path: str) -> bytes:
        return answer if "lookup" in path else database(path)

    with pytest.raises(sumdb.SecurityError, match=r"not about golang.org/x/bad"):
        Client(database.key, mixed, MemoryState()).lookup("golang.org/x/bad", "v1.0.0")
    assert Client(database.key, mixed, MemoryState()).lookup("rsc.io/sampler", "v1.3.0")


def test_stored_head_that_is_not_signed(database: Database, state: sumdb.State) -> None:
    state.swap_head(b"", database.head().replace(b"703", b"704"))
    with pytest.raises(sumdb.SecurityError, match="stored tree head cannot be trusted"):
        Client(database.key, database, state).lookup("rsc.io/sampler", "v1.3.0")


# -- forks ----------------------------------------------------------------------------------------


def forked(database: Database, common: int, mine: int, theirs: int) -> tuple[Database, Database]:
    database.fill(common)
    other = copy.deepcopy(database)
    while database.size < mine:
        database.add("example.com/mine", f"v1.0.{database.size}")
    while other.size < theirs:
        other.add("example.com/theirs", f"v1.0.{other.size}")
    return database, other


@pytest.mark.parametrize(("mine", "theirs"), [(705, 704), (704, 705), (704, 704), (1300, 900)])
@pytest.mark.parametrize("common", [703, 730])
def test_fork(database: Database, state: sumdb.State, mine: int, theirs: int, common: int) -> None:
    shift = common - 703
    good, bad = forked(database, common, mine + shift, theirs + shift)
    source = Switch(good)
    # The second one is for tiles of the tree we know that the forked database lacks.
    client = Client(good.key, [source, good], state)
    client.lookup("example.com/mine", f"v1.0.{common}")
    before = state.load_head()
    source.source = bad
    with pytest.raises(sumdb.ForkError) as caught:
        client.lookup("example.com/theirs", f"v1.0.{common}")
    proof = caught.value.proof
    assert proof.startswith("SECURITY ERROR")
    assert f"go.sum database tree\n\t{mine + shift}\n" in proof
    assert f"go.sum database tree\n\t{theirs + shift}\n" in proof
    check_fork_proof(proof)
    assert state.load_head() == before
    # Nothing new is verified from now on, not even by the next process; what is known is served.
    source.source = good
    for current in (client, Client(good.key, good, state)):
        assert current.fork == proof
        assert current.lookup("example.com/mine", f"v1.0.{common}")
        with pytest.raises(sumdb.ForkError):
            current.lookup("rsc.io/sampler", "v1.3.0")


def check_fork_proof(proof: str) -> None:
    """Anybody can check the proof without the database: signed heads, and hashes between them."""
    heads = []
    for part in proof.partition("proof of misbehavior")[0].split(" database:\n")[1:]:
        lines = [line for line in part.split("\n") if line.startswith("\t")]
        signed = "".join(line[1:] + "\n" for line in lines)
        opened = note.open_note(signed.encode(), [note.parse_verifier(Database().key)])
        heads.append(tlog.parse_tree(opened.text))
    older, newer = heads
    lines = proof.partition("proof of misbehavior:\n")[2].split()
    if older.size == newer.size:
        assert older.hash != newer.hash
        return
    root, *hashes = (base64.b64decode(line) for line in lines)
    assert root != older.hash
    tlog.check_tree(hashes, newer, tlog.Tree(older.size, root))


def test_a_fork_with_bad_tiles_is_not_taken_for_one(database: Database) -> None:
    good, bad = forked(database, 703, 710, 720)
    source = Switch(good)
    client = Client(good.key, source, MemoryState())
    client.latest()
    source.source = flipped(bad, "tile/")
    with pytest.raises(sumdb.SecurityError) as caught:
        client.latest()
    assert not isinstance(caught.value, sumdb.ForkError)
    assert not client.fork


# -- mirroring ------------------------------------------------------------------------------------


def test_tiles_to_serve(database: Database, state: sumdb.State) -> None:
    client = Client(database.key, database, state)
    for path in ("tile/8/0/000", "tile/8/0/002.p/191", "tile/8/0/002.p/7", "tile/8/1/000.p/2"):
        assert client.tile(path) == database(path)
    offline = Client(database.key, unreachable, state)
    assert offline.tile("tile/8/0/002.p/100") == database("tile/8/0/002.p/100")
    assert offline.head == database.head()
    for path in ("tile/8/0/002", "tile/8/3/000", "tile/8/data/000", "tile/4/0/000"):
        with pytest.raises(sumdb.NotFound):
            client.tile(path)
    with pytest.raises(ValueError, match="malformed"):
        client.tile("tile/8/0/../../x")
    database.fill(800)
    assert client.tile("tile/8/0/002") == database("tile/8/0/002")
    with pytest.raises(sumdb.SecurityError):
        Client(database.key, flipped(database, "tile/8/0/001"), MemoryState()).tile("tile/8/0/001")


def test_state_keeps_the_widest_tile(state: sumdb.State) -> None:
    narrow, wide = Tile(8, 0, 1234, 5), Tile(8, 0, 1234, 9)
    assert state.load_tile(narrow) is None
    state.save_tile(narrow, b"a" * 5 * 32)
    assert state.load_tile(wide) is None
    state.save_tile(wide, b"a" * 9 * 32)
    state.save_tile(narrow, b"a" * 5 * 32)
    assert state.load_tile(wide) == b"a" * 9 * 32
    assert state.load_tile(narrow) == b"a" * 5 * 32
    state.save_tile(wide.full, b"a" * 256 * 32)
    assert state.load_tile(wide) == b"a" * 9 * 32
    state.save_tile(narrow, b"b" * 5 * 32)  # contradicts: what was there was damaged
    assert state.load_tile(narrow) == b"b" * 5 * 32
    assert state.load_tile(wide) is None


def test_disk_layout_is_that_of_the_go_command(database: Database, tmp_path: Path) -> None:
    Client(database.key, database, DiskState(tmp_path)).lookup("rsc.io/Quote", "v1.5.2")
    database.fill(704)
    Client(database.key, database, DiskState(tmp_path)).latest()
    names = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()}
    assert names == {
        ".lock",
        "latest",
        "lookup/rsc.io/!quote@v1.5.2",
        "tile/8/0/002.p/192",
        "tile/8/1/000.p/2",
    }


def test_swap_head_compares(state: sumdb.State) -> None:
    assert state.swap_head(b"", b"1")
    assert not state.swap_head(b"", b"2")
    assert state.swap_head(b"1", b"2")
    assert state.load_head() == b"2"


# -- patterns -------------------------------------------------------------------------------------


# x/mod module_test.go TestMatchPrefixPatterns, and path.Match's tables.
@pytest.mark.parametrize(
    ("patterns", "target", "want"),
    [
        ("", "rsc.io/quote", False),
        ("/", "rsc.io/quote", False),
        ("*/quote", "rsc.io/quote", True),
        ("*/quo", "rsc.io/quote", False),
        ("*/quo??", "rsc.io/quote", True),
        ("*/quo*", "rsc.io/quote", True),
        ("*quo*", "rsc.io/quote", False),
        ("rsc.io", "rsc.io/quote", True),
        ("*.io", "rsc.io/quote", True),
        ("rsc.io/", "rsc.io/quote", True),
        ("rsc", "rsc.io/quote", False),
        ("rsc*", "rsc.io/quote", True),
        ("rsc.io", "rsc.io/quote/v3", True),
        ("*/quote", "rsc.io/quote/v3", True),
        ("*/quote/", "rsc.io/quote/v3", True),
        ("*/quote/*", "rsc.io/quote/v3", True),
        ("*/quote/*/", "rsc.io/quote/v3", True),
        ("*/v3", "rsc.io/quote/v3", False),
        ("*/*/v3", "rsc.io/quote/v3", True),
        ("*/*/*", "rsc.io/quote/v3", True),
        ("*/*/*", "rsc.io/quote", False),
        ("*/*/*,,", "rsc.io/quote", False),
        ("*/*/*,,*/quote", "rsc.io/quote", True),
        (",,*/quote", "rsc.io/quote", True),
        ("rsc.i[,rsc.io", "rsc.io/quote", True),
        ("git.corp.example,*.internal.example", "x.internal.example/a", True),
    ],
)
def test_match_prefix_patterns(patterns: str, target: str, *, want: bool) -> None:
    assert sumdb.match_prefix_patterns(patterns, target) is want


# Go's path/match_test.go; None is a malformed pattern, which matches nothing.
MATCHES = [
    ("abc", "abc", True), ("*", "abc", True), ("*c", "abc", True), ("a*", "a", True),
    ("a*", "abc", True), ("a*", "ab/c", False), ("a*/b", "abc/b", True), ("a*/b", "a/c/b", False),
    ("a*b*c*d*e*/f", "axbxcxdxe/f", True), ("a*b*c*d*e*/f", "axbxcxdxexxx/f", True),
    ("a*b*c*d*e*/f", "axbxcxdxe/xxx/f", False), ("a*b*c*d*e*/f", "axbxcxdxexxx/fff", False),
    ("a*b?c*x", "abxbbxdbxebxczzx", True), ("a*b?c*x", "abxbbxdbxebxczzy", False),
    ("ab[c]", "abc", True), ("ab[b-d]", "abc", True), ("ab[e-g]", "abc", False),
    ("ab[^c]", "abc", False), ("ab[^b-d]", "abc", False), ("ab[^e-g]", "abc", True),
    ("a\\*b", "a*b", True), ("a\\*b", "ab", False), ("a?b", "a☺b", True), ("a[^a]b", "a☺b", True),
    ("a???b", "a☺b", False), ("a[^a][^a][^a]b", "a☺b", False), ("[a-ζ]*", "\u03b1", True),
    ("*[a-ζ]", "A", False), ("a?b", "a/b", False), ("a*b", "a/b", False), ("[\\]a]", "]", True),
    ("[\\-]", "-", True), ("[x\\-]", "x", True), ("[x\\-]", "-", True), ("[x\\-]", "z", False),
    ("[\\-x]", "x", True), ("[\\-x]", "-", True), ("[\\-x]", "a", False), ("[]a]", "]", False),
    ("[-]", "-", False), ("[x-]", "x", False), ("[x-]", "-", False), ("[-x]", "x", False),
    ("\\", "a", False), ("[a-b-c]", "a", False), ("[", "a", False), ("[^", "a", False),
    ("[^bc", "a", False), ("a[", "a", False), ("a[", "ab", False), ("*x", "xxx", True),
    ("[z-a]", "b", False), ("[^z-a]", "b", True), ("[!a]", "!", True), ("[!a]", "b", False),
    ("a.c", "abc", False), ("a+", "aa", False),
]  # fmt: skip


@pytest.mark.parametrize(("pattern", "name", "want"), MATCHES)
def test_match(pattern: str, name: str, *, want: bool) -> None:
    assert globs.match(pattern, name) is want
