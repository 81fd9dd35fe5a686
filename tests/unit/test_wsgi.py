"""The whole app without a server: status codes, headers, error text, staleness, publication."""

from __future__ import annotations

import dataclasses
import io
import json
import os
import threading
import time
import zipfile
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any
from wsgiref.util import FileWrapper, setup_testing_defaults

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.conftest import TEST_SUMDB, FakeUpstream, Reply

from modhaven import config, modzip, serve, sumdb
from modhaven.attempt import Attempt
from modhaven.globs import match_prefix_patterns
from modhaven.response import error_answer
from modhaven.verify import SumLookup, Verifier

if TYPE_CHECKING:
    from pathlib import Path

    from modhaven.wsgi import App

MODULE, VERSION = "example.com/m", "v1.0.0"
BASE = f"{MODULE}/@v/{VERSION}"
INFO = b'{"Version":"v1.0.0","Time":"2020-01-01T00:00:00Z","Origin":{"VCS":"git"}}'
MOD = b"module example.com/m\n"


def make_zip(text: bytes = b"package m\n") -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr(f"{MODULE}@{VERSION}/go.mod", MOD)
        archive.writestr(f"{MODULE}@{VERSION}/m.go", text)
    return out.getvalue()


ZIP = make_zip()


@dataclasses.dataclass
class Response:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def text(self) -> str:
        return self.body.decode()


def call(app: App, path: str, method: str = "GET", **environ: Any) -> Response:
    request: dict[str, Any] = {"wsgi.file_wrapper": FileWrapper}
    setup_testing_defaults(request)
    request.update(REQUEST_METHOD=method, PATH_INFO=path, RAW_URI=path, **environ)
    got: list[Any] = []
    chunks = app(request, lambda status, headers, _info=None: got.extend((status, headers)))  # type: ignore[arg-type]
    body = b"".join(chunks)
    if hasattr(chunks, "close"):
        chunks.close()
    return Response(int(got[0].split()[0]), dict(got[1]), body)


def build(tmp_path: Path, chain: str, **changes: Any) -> App:
    settings: dict[str, Any] = {
        "node": "backend1",
        "store": {"path": str(tmp_path / "store"), "min_free_bytes": 0},
        "upstreams": chain,
        "upstream_timeouts": {"connect_seconds": 0.5, "first_byte_seconds": 0.5},
        "upstream_retries": 0,
        "upstream_rounds": 1,
        "sumdb": "off",
        "drain_file": str(tmp_path / "drain"),
    }
    return serve.build(config.from_mapping({**settings, **changes}))


@pytest.fixture
def app(tmp_path: Path, fake: FakeUpstream) -> App:
    fake.script(f"{BASE}.info", Reply(body=INFO))
    fake.script(f"{BASE}.mod", Reply(body=MOD))
    fake.script(f"{BASE}.zip", Reply(body=ZIP))
    fake.script(f"{MODULE}/@v/list", Reply(body=b"v1.0.0\n"))
    fake.script(f"{MODULE}/@latest", Reply(body=INFO))
    return build(tmp_path, fake.url)


@pytest.mark.parametrize(
    ("extension", "body", "kind"),
    [("info", INFO, "application/json"), ("mod", MOD, "text/plain; charset=utf-8"),
     ("zip", ZIP, "application/zip")],
)  # fmt: skip
def test_immutable_files(
    app: App, fake: FakeUpstream, extension: str, body: bytes, kind: str
) -> None:
    first = call(app, f"/{BASE}.{extension}")
    assert (first.status, first.body) == (200, body)
    assert first.headers["Content-Type"] == kind
    assert first.headers["Content-Length"] == str(len(body))
    assert first.headers["Cache-Control"] == "public, max-age=31536000, immutable"
    assert first.headers["X-Modhaven-Source"] == fake.name
    assert first.headers["X-Modhaven-Backend"] == "backend1"
    second = call(app, f"/{BASE}.{extension}")
    assert (second.body, second.headers["X-Modhaven-Source"]) == (body, "store")
    # Each file for itself: a cold .mod downloads no zip.
    assert fake.counts.total() == 1


def test_head_has_the_headers_of_get_and_no_body(app: App) -> None:
    head = call(app, f"/{BASE}.zip", "HEAD")
    assert (head.status, head.body) == (200, b"")
    assert head.headers["Content-Length"] == str(len(ZIP))


def test_a_web_server_in_front_sends_the_file(tmp_path: Path, fake: FakeUpstream) -> None:
    fake.script(f"{BASE}.zip", Reply(body=ZIP))
    app = build(tmp_path, fake.url, accel_prefix="/-/store")
    for _ in range(2):
        answer = call(app, f"/{BASE}.zip")
        assert (answer.status, answer.body) == (200, b"")
        assert answer.headers["X-Accel-Redirect"] == f"/-/store/{BASE}.zip"
        assert answer.headers["Content-Length"] == "0"
    # Only files: a list is a body as ever.
    fake.script(f"{MODULE}/@v/list", Reply(body=b"v1.0.0\n"))
    assert call(app, f"/{MODULE}/@v/list").text == "v1.0.0\n"


def test_mutable_answers(app: App, fake: FakeUpstream) -> None:
    for path, body in ((f"/{MODULE}/@v/list", b"v1.0.0\n"), (f"/{MODULE}/@latest", INFO)):
        first, second = call(app, path), call(app, path)
        assert first.body == second.body == body
        assert first.headers["Cache-Control"].startswith("public, max-age=60")
        assert second.headers["X-Modhaven-Source"] == "store"
    assert fake.counts.total() == 2


def make_older(tmp_path: Path, key: str, seconds: float) -> None:
    """Make a kept answer older than it is."""
    kept = tmp_path / "store" / "mutable" / key
    head, _, body = kept.read_bytes().partition(b"\n")
    meta = json.loads(head)
    meta["fetched"] -= seconds
    kept.write_bytes(json.dumps(meta).encode() + b"\n" + body)


def test_a_slightly_old_list_is_given_while_a_slow_upstream_is_asked_again(
    tmp_path: Path, fake: FakeUpstream
) -> None:
    timeouts = {"connect_seconds": 5, "first_byte_seconds": 30}
    app = build(tmp_path, fake.url, upstream_timeouts=timeouts)
    path = f"{MODULE}/@v/list"
    fake.script(path, Reply(body=b"v1.0.0\n"), Reply(body=b"v1.0.0\nv1.1.0\n", delay_seconds=2))
    call(app, f"/{path}")
    make_older(tmp_path, path, 90)
    old = call(app, f"/{path}")
    assert (old.text, old.headers["X-Modhaven-Stale"]) == ("v1.0.0\n", "90")
    # The answer that was waited for in vain comes yet, and is kept.
    end = time.monotonic() + 10
    while call(app, f"/cached-only/{path}").text != "v1.0.0\nv1.1.0\n":
        assert time.monotonic() < end
        time.sleep(0.05)


def test_a_slightly_old_list_is_fetched_anew_where_the_upstream_is_quick(
    tmp_path: Path, app: App, fake: FakeUpstream
) -> None:
    path = f"{MODULE}/@v/list"
    call(app, f"/{path}")
    make_older(tmp_path, path, 90)
    fake.script(path, Reply(body=b"v2.0.0\n"))
    new = call(app, f"/{path}")
    assert (new.text, "X-Modhaven-Stale" in new.headers) == ("v2.0.0\n", False)
    make_older(tmp_path, path, 90)
    fake.script(path, Reply(status=404))
    assert call(app, f"/{path}").status == 404


def test_queries_are_not_immutable(app: App, fake: FakeUpstream) -> None:
    fake.script(f"{MODULE}/@v/master.info", Reply(body=INFO))
    answer = call(app, f"/{MODULE}/@v/master.info")
    assert (answer.body, "immutable" in answer.headers["Cache-Control"]) == (INFO, False)


def test_not_found_says_so_briefly_and_is_remembered(app: App, fake: FakeUpstream) -> None:
    for _ in range(3):
        answer = call(app, "/example.com/none/@v/list", HTTP_X_REQUEST_ID="edge-12345678")
        assert answer.status == 404
        assert answer.headers["Cache-Control"].startswith("public, max-age=60")
    lines = answer.text.splitlines()
    assert lines[0].startswith("not found: example.com/none/@v/list")
    assert lines[1].startswith(f"{fake.name}: 404, ")
    assert lines[-1] == "request id: edge-12345678"
    assert answer.headers["X-Request-Id"] == "edge-12345678"
    assert fake.counts.total() == 1


def test_an_error_body_has_at_most_eight_lines(tmp_path: Path, fake: FakeUpstream) -> None:
    fake.default = Reply(status=500)
    chain = "|".join(f"{fake.url}/{number}" for number in range(12))
    answer = call(build(tmp_path, chain), f"/{BASE}.mod", HTTP_X_REQUEST_ID="bad id\n")
    lines = answer.text.splitlines()
    assert (answer.status, len(lines)) == (502, 8)
    assert lines[-2] == "and 7 more upstreams"
    assert lines[-1] == f"request id: {answer.headers['X-Request-Id']}"
    assert answer.headers["Cache-Control"] == "no-store"


def test_the_reason_in_the_header_fits_into_nginxs_buffer() -> None:
    attempt = Attempt(upstream="é" * 600, outcome="500", milliseconds=1)
    answer = error_answer(502, "no upstream had it", [attempt] * 12, "12345678")
    reason = dict(answer.headers)["X-Modhaven-Reason"]
    assert reason.isascii()
    assert len(reason) < 2000
    lines = reason.split("\t")
    assert (len(lines), lines[0], lines[-1]) == (8, "no upstream had it", "request id: 12345678")


def test_timeouts_are_504_other_failures_502(tmp_path: Path, fake: FakeUpstream) -> None:
    app = build(tmp_path, fake.url)
    fake.default = Reply(status=503)
    assert call(app, f"/{BASE}.mod").status == 502
    fake.default = Reply(hang=True)
    assert call(app, f"/{BASE}.zip").status == 504


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("POST", f"/{BASE}.mod", 405),
        ("GET", "/", 404),
        ("GET", "/a.b/../c/@v/list", 400),
        ("GET", "/a.b/%2e%2e/@v/list", 400),
        ("GET", "/a.b/\x00/@v/list", 400),
        ("GET", "/a.b/\xff/@v/list", 404),
        ("GET", "/github.com/Azure/x/@v/list", 404),
        ("GET", "/a.b/c/@v/latest.info", 404),
        ("GET", "/a.b/c/@v/master.zip", 404),
    ],
)
def test_refused(app: App, fake: FakeUpstream, method: str, path: str, status: int) -> None:
    answer = call(app, path, method)
    assert answer.status == status
    assert fake.counts.total() == 0
    assert len(answer.text.splitlines()) == 2
    assert answer.headers.get("Allow") == ("GET, HEAD" if status == 405 else None)


@pytest.mark.parametrize(
    ("name", "body"),
    [
        (f"{BASE}.info", b"<html>login</html>"),
        (f"{BASE}.info", b'{"Version":"v1.0.1"}'),
        (f"{BASE}.info", b"[" * 5000),
        (f"{BASE}.zip", b"no zip at all"),
        (f"{BASE}.zip", ZIP[:-30]),
        (f"{MODULE}/@v/list", b"<html>\nlogin\n</html>"),
        (f"{MODULE}/@latest", b'{"Version":"master"}'),
        (f"{MODULE}/@latest", b"{}"),
    ],
)
def test_rubbish_is_never_published_and_the_next_mirror_asked(
    tmp_path: Path, fake: FakeUpstream, fake2: FakeUpstream, name: str, body: bytes
) -> None:
    app = build(tmp_path, f"{fake.url}|{fake2.url}")
    fake.script(name, Reply(body=body))
    assert call(app, f"/{name}").status == 502
    assert not (tmp_path / "store" / "cache" / "download" / name).exists()
    good = {"info": INFO, "zip": ZIP, "list": b"v1.0.0\n", "latest": INFO}
    fake2.script(name, Reply(body=good[name.rpartition("@")[2].rpartition(".")[2].lstrip("v/")]))
    answer = call(app, f"/{name}")
    assert (answer.status, answer.headers["X-Modhaven-Source"]) == (200, fake2.name)


def test_a_list_that_cannot_be_refreshed_is_served_stale_and_says_so(
    tmp_path: Path, fake: FakeUpstream
) -> None:
    app = build(tmp_path, fake.url, freshness={"mutable_seconds": 0})
    fake.script(f"{MODULE}/@v/list", Reply(body=b"v1.0.0\n"), Reply(status=500))
    assert "X-Modhaven-Stale" not in call(app, f"/{MODULE}/@v/list").headers
    stale = call(app, f"/{MODULE}/@v/list")
    assert (stale.status, stale.body) == (200, b"v1.0.0\n")
    assert int(stale.headers["X-Modhaven-Stale"]) < 5
    assert stale.headers["Cache-Control"] == "public, max-age=10"


def test_with_a_stale_list_at_hand_mirrors_that_all_fail_are_asked_once(
    tmp_path: Path, fake: FakeUpstream
) -> None:
    path = f"{MODULE}/@v/list"
    app = build(tmp_path, fake.url, upstream_rounds=3, freshness={"mutable_seconds": 0})
    fake.script(path, Reply(body=b"v1.0.0\n"), Reply(status=500))
    call(app, f"/{path}")
    assert call(app, f"/{path}").body == b"v1.0.0\n"
    assert fake.counts[path] == 2


def test_list_and_latest_are_computed_when_no_source_answers(
    tmp_path: Path, app: App, fake: FakeUpstream
) -> None:
    call(app, f"/{BASE}.info")
    fake.replies.clear()
    fake.default = Reply(status=500)
    for offline in (app, build(tmp_path, "off")):
        listed, latest = call(offline, f"/{MODULE}/@v/list"), call(offline, f"/{MODULE}/@latest")
        assert (listed.status, listed.body) == (200, b"v1.0.0\n")
        assert (latest.status, latest.body) == (200, INFO)
        assert "X-Modhaven-Stale" in listed.headers
    assert call(build(tmp_path, "off"), "/example.com/none/@v/list").status == 404
    assert call(build(tmp_path, "off"), f"/{BASE}.zip").status == 404


def test_cached_only_asks_nobody(app: App, fake: FakeUpstream) -> None:
    assert call(app, f"/cached-only/{BASE}.info").status == 404
    assert call(app, f"/cached-only/{MODULE}/@v/list").status == 404
    assert fake.counts.total() == 0
    call(app, f"/{BASE}.info")
    assert call(app, f"/cached-only/{BASE}.info").body == INFO
    assert call(app, f"/cached-only/{MODULE}/@v/list").body == b"v1.0.0\n"
    assert fake.counts.total() == 1


@pytest.mark.parametrize(
    "path",
    [
        "latest", "lookup/a.b/c@v1.0.0", "tile/8/0/000", "tile/8/0/000.p/7",
        "tile/8/0/000.p/999", "tile/8/0/x000/000", "tile/8/data/000",
    ],
)  # fmt: skip
def test_cached_only_a_database_says_what_it_knows_and_asks_nobody(
    tmp_path: Path, fake: FakeUpstream, path: str
) -> None:
    app = build(tmp_path, fake.url, sumdb=f"{TEST_SUMDB} {fake.url}/itself")
    folder = tmp_path / "store/cache/download/sumdb/localhost.localdev/sumdb"
    asked = f"/cached-only/sumdb/localhost.localdev/sumdb/{path}"
    assert call(app, asked).status == 404
    folder.mkdir(parents=True)
    (folder / "latest").write_text("no signed head")
    assert call(app, asked).status == 404
    assert fake.counts.total() == 0


def test_an_old_file_keeps_nobody_from_waiting_for_a_slow_mirror(
    tmp_path: Path, app: App, fake: FakeUpstream
) -> None:
    assert call(app, f"/{BASE}.info").status == 200
    info = tmp_path / f"store/cache/download/{BASE}.info"
    os.utime(info, (time.time() - 90 * 86400,) * 2)
    slow = build(
        tmp_path,
        fake.url,
        upstream_timeouts={"connect_seconds": 5, "first_byte_seconds": 5, "patience_seconds": 0.3},
    )
    path = f"{MODULE}/@v/list"
    fake.script(path, *[Reply(status=503)] * 3, Reply(body=b"v1.0.0\nv1.9.0\n", delay_seconds=0.7))
    for _ in range(3):
        assert call(slow, f"/{path}").headers["X-Modhaven-Stale"]
    answer = call(slow, f"/{path}")
    assert (answer.text, "X-Modhaven-Stale" in answer.headers) == ("v1.0.0\nv1.9.0\n", False)


def test_a_crowd_is_one_fetch(app: App, fake: FakeUpstream) -> None:
    fake.script(f"{BASE}.zip", Reply(body=ZIP, delay_seconds=0.2))
    with ThreadPoolExecutor(30) as pool:
        answers = list(pool.map(lambda _: call(app, f"/{BASE}.zip"), range(30)))
    assert {(answer.status, answer.body) for answer in answers} == {(200, ZIP)}
    assert fake.counts[f"{BASE}.zip"] == 1


def test_a_crowd_shares_one_failure(tmp_path: Path, fake: FakeUpstream) -> None:
    app = build(tmp_path, fake.url)
    fake.script(f"{BASE}.zip", Reply(status=500, delay_seconds=0.3))
    barrier = threading.Barrier(10)

    def ask(_: int) -> int:
        barrier.wait()
        return call(app, f"/{BASE}.zip").status

    with ThreadPoolExecutor(10) as pool:
        assert set(pool.map(ask, range(10))) == {502}
    assert fake.counts[f"{BASE}.zip"] == 1


class Sums(SumLookup):
    def __init__(self, lines: tuple[str, ...], error: sumdb.SumdbError, nosumdb: str = "") -> None:
        self.lines = lines
        self.error = error
        self.nosumdb = nosumdb

    def for_module(self, module: str) -> Sums | None:
        return None if match_prefix_patterns(self.nosumdb, module) else self

    def lookup_hash(self, module: str, version: str, suffix: str = "") -> str:
        for line in self.lines:
            if line.startswith(f"{module} {version}{suffix} "):
                return line.split()[2]
        raise self.error


def set_sums(
    app: App,
    *lines: str,
    nosumdb: str = "",
    error: sumdb.SumdbError = sumdb.Unreachable("no database answers"),  # noqa: B008 - only raised
) -> None:
    app._gateway._verifier = Verifier(Sums(lines, error, nosumdb).for_module)


GOOD_SUMS = (
    f"{MODULE} {VERSION} {modzip.check_and_hash(io.BytesIO(ZIP), MODULE, VERSION)}",
    f"{MODULE} {VERSION}/go.mod {modzip.hash_go_mod(MOD)}",
)


def test_wrong_bytes_are_quarantined_and_the_next_mirror_asked(
    tmp_path: Path, fake: FakeUpstream, fake2: FakeUpstream, caplog: pytest.LogCaptureFixture
) -> None:
    app = build(tmp_path, f"{fake.url}|{fake2.url}")
    set_sums(app, *GOOD_SUMS)
    for extension, evil, good in (("zip", make_zip(b"evil"), ZIP), ("mod", MOD + b"//", MOD)):
        fake.script(f"{BASE}.{extension}", Reply(body=evil))
        fake2.script(f"{BASE}.{extension}", Reply(body=good))
        answer = call(app, f"/{BASE}.{extension}")
        assert (answer.body, answer.headers["X-Modhaven-Source"]) == (good, fake2.name)
        assert "X-Modhaven-Unverified" not in answer.headers
    assert len(list((tmp_path / "store" / "quarantine").glob("*.reason"))) == 2
    assert GOOD_SUMS[0].split()[2] in caplog.text
    assert caplog.text.count("h1:") == 4


def test_without_the_database_files_are_published_and_marked(tmp_path: Path, app: App) -> None:
    set_sums(app)
    for _ in range(2):
        answer = call(app, f"/{BASE}.zip")
        assert answer.headers["X-Modhaven-Unverified"] == "1"
        assert "immutable" not in answer.headers["Cache-Control"]
    assert (tmp_path / "store" / "unverified" / f"{BASE}.zip").exists()


def test_private_modules_are_not_asked_about(app: App) -> None:
    set_sums(app, nosumdb="example.com")
    assert "X-Modhaven-Unverified" not in call(app, f"/{BASE}.zip").headers


def test_require_verified_refuses_what_nobody_vouches_for(
    tmp_path: Path, fake: FakeUpstream
) -> None:
    fake.script(f"{BASE}.zip", Reply(body=ZIP))
    app = build(tmp_path, fake.url, require_verified=True, sumdb=f"{TEST_SUMDB} {fake.url}/500")
    fake.default = Reply(status=500)
    answer = call(app, f"/{BASE}.zip")
    assert (answer.status, answer.headers["Cache-Control"]) == (502, "no-store")
    assert "is not published: require_verified is set" in answer.text
    assert not (tmp_path / "store" / "cache" / "download" / f"{BASE}.zip").exists()
    assert not (tmp_path / "store" / "unverified").exists()


def test_other_bytes_than_at_first_use_are_wrong_and_the_next_mirror_is_asked(
    tmp_path: Path, fake: FakeUpstream, fake2: FakeUpstream
) -> None:
    app = build(tmp_path, f"{fake.url}|{fake2.url}", nosumdb="example.com")
    published = tmp_path / "store" / "cache" / "download"
    for extension, evil, good in (("zip", make_zip(b"evil"), ZIP), ("mod", MOD + b"//", MOD)):
        fake.script(f"{BASE}.{extension}", Reply(body=good), Reply(body=evil))
        fake2.script(f"{BASE}.{extension}", Reply(body=good))
        assert call(app, f"/{BASE}.{extension}").headers["X-Modhaven-Source"] == fake.name
        (published / f"{BASE}.{extension}").unlink()
        answer = call(app, f"/{BASE}.{extension}")
        assert (answer.body, answer.headers["X-Modhaven-Source"]) == (good, fake2.name)
    reasons = [path.read_text() for path in (tmp_path / "store/quarantine").glob("*.reason")]
    assert len(reasons) == 2
    assert all("first used here" in reason for reason in reasons)


def test_a_mirror_that_stays_wrong_fills_no_disk(tmp_path: Path, fake: FakeUpstream) -> None:
    app = build(tmp_path, fake.url)
    set_sums(app, *GOOD_SUMS)
    fake.script(f"{BASE}.zip", Reply(body=make_zip(b"evil")))
    for _ in range(5):
        assert call(app, f"/{BASE}.zip").status == 502
    assert len(list((tmp_path / "store" / "quarantine").iterdir())) == 2


def test_checksum_database_is_mirrored(tmp_path: Path, fake: FakeUpstream) -> None:
    name = "localhost.localdev/sumdb"
    app = build(tmp_path, fake.url, sumdb=f"{TEST_SUMDB} {fake.url}/itself")
    assert call(app, f"/sumdb/{name}/supported").status == 200
    assert call(app, "/sumdb/sum.golang.org/supported").status == 404
    assert call(app, "/sumdb/sum.golang.org/latest").status == 404
    assert fake.counts.total() == 0
    # What no signature proves is not passed on, whoever gave it.
    fake.default = Reply(body=b"rubbish")
    for path in ("latest", "lookup/example.com/m@v1.0.0", "tile/8/0/000"):
        assert call(app, f"/sumdb/{name}/{path}").status == 502
    fake.default = Reply(status=404)
    assert call(app, f"/sumdb/{name}/lookup/example.com/none@v1.0.0").status == 404


def test_a_fork_of_the_database_stops_publication(tmp_path: Path, app: App) -> None:
    set_sums(app, error=sumdb.ForkError("two histories", "proof"))
    answer = call(app, f"/{BASE}.zip")
    assert (answer.status, "two histories" in answer.text) == (502, True)
    assert not (tmp_path / "store" / "cache" / "download" / f"{BASE}.zip").exists()


def test_health_and_readiness_are_two_things(tmp_path: Path, app: App) -> None:
    assert call(app, "/healthz").status == call(app, "/readyz").status == 200
    (tmp_path / "drain").touch()
    assert call(app, "/healthz").status == 200
    assert "draining" in call(app, "/readyz").text
    (tmp_path / "drain").unlink()
    (tmp_path / "store" / "tmp").rmdir()
    assert call(app, "/readyz").status == 503
    assert call(app, f"/{BASE}.mod").status == 503


def test_readiness_over_the_watermark(tmp_path: Path) -> None:
    store = {"path": str(tmp_path / "store"), "min_free_bytes": 1 << 60}
    answer = call(build(tmp_path, "off", store=store), "/readyz")
    assert (answer.status, "min_free_bytes" in answer.text) == (503, True)


@pytest.fixture(scope="module")
def quiet_app(tmp_path_factory: pytest.TempPathFactory) -> App:
    return build(tmp_path_factory.mktemp("fuzz"), "off")


PIECES = st.sampled_from(
    ["rsc.io", "quote", "@v", "@latest", "list", "v1.0.0", "v1.0.0.zip", "v1.0.0.info", "x.mod",
     "..", ".", "sumdb", "tile/8/0", "000", "lookup", "a.b@v1.0.0", "cached-only", "!a", "!", "\0",
     "%2e%2e", "%2f", "\xff", "", "A", "healthz", "-", "~1", "v2", "+incompatible", "x" * 250]
)  # fmt: skip


@given(st.one_of(st.text(), st.lists(PIECES, max_size=9).map("/".join)))
def test_no_path_breaks_the_app(quiet_app: App, path: str) -> None:
    raw = "/" + path.encode().decode("latin-1")
    answer = call(quiet_app, raw)
    assert answer.status in (200, 400, 404)
    assert len(answer.body.splitlines()) <= 8


def test_one_json_line_a_request(app: App, capsys: pytest.CaptureFixture[str]) -> None:
    call(app, f"/{BASE}.mod", HTTP_X_REQUEST_ID="edge-12345678")
    (line,) = capsys.readouterr().out.splitlines()
    record = json.loads(line)
    assert record["request_id"] == "edge-12345678"
    assert (record["path"], record["status"], record["class"]) == (f"/{BASE}.mod", 200, "immutable")


def test_a_list_that_is_slow_to_come_is_refreshed_all_the_same(
    tmp_path: Path, fake: FakeUpstream, fake2: FakeUpstream
) -> None:
    timeouts = {"connect_seconds": 0.5, "patience_seconds": 0.2, "first_byte_seconds": 3}
    app = build(
        tmp_path,
        f"{fake.url}|{fake2.url}",
        upstream_timeouts=timeouts,
        freshness={"mutable_seconds": 0},
    )
    for body in (b"v1.0.0\n", b"v1.0.0\nv1.1.0\n"):
        for mirror in (fake, fake2):
            mirror.script(f"{MODULE}/@v/list", Reply(body=body, delay_seconds=0.5))
        answer = call(app, f"/{MODULE}/@v/list")
        assert (answer.body, "X-Modhaven-Stale" in answer.headers) == (body, False)


def test_while_all_are_known_to_be_down_a_stale_list_comes_soon(
    tmp_path: Path, fake: FakeUpstream
) -> None:
    timeouts = {"connect_seconds": 0.5, "patience_seconds": 0.2, "first_byte_seconds": 2}
    app = build(tmp_path, fake.url, upstream_timeouts=timeouts, freshness={"mutable_seconds": 0})
    fake.script(f"{MODULE}/@v/list", Reply(body=b"v1.0.0\n"))
    assert call(app, f"/{MODULE}/@v/list").status == 200
    fake.default = Reply(hang=True)
    fake.script(f"{MODULE}/@v/list", Reply(hang=True))
    assert "X-Modhaven-Stale" in call(app, f"/{MODULE}/@v/list").headers
    start = time.monotonic()
    assert "X-Modhaven-Stale" in call(app, f"/{MODULE}/@v/list").headers
    assert time.monotonic() - start < 1
