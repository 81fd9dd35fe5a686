"""Each row of the table of answers in docs/how-it-works.md, at the level of HTTP."""

from __future__ import annotations

import re
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from tests.conftest import TEST_SUMDB, FakeUpstream, Reply
from tests.unit.test_wsgi import BASE, INFO, MOD, MODULE, ZIP, Response, build, call, make_older

if TYPE_CHECKING:
    from collections.abc import Callable

    Case = Callable[[Path, FakeUpstream], list[Response]]

DOCUMENT = Path(__file__).parents[2] / "docs" / "how-it-works.md"
FRESHNESS = {
    "a year": "public, max-age=31536000, immutable",
    "60 s": "public, max-age=60, stale-while-revalidate=60",
    "10 s": "public, max-age=10",
    "none": "no-store",
}
DATABASE = "localhost.localdev/sumdb"


def rows() -> dict[str, tuple[str, str]]:
    """The table: {case: (status, Cache-Control)}."""
    text = DOCUMENT.read_text(encoding="utf-8")
    table = text.partition("| case | status | Cache-Control |\n|---|---|---|\n")[2].partition(
        "\n\n"
    )[0]
    cells = (re.fullmatch(r"\| (.+) \| (.+) \| (.+) \|", line) for line in table.splitlines())
    return {match[1]: (match[2], match[3]) for match in cells if match}


def serve_all(fake: FakeUpstream) -> None:
    for name, body in (("info", INFO), ("mod", MOD), ("zip", ZIP), ("list", b"v1.0.0\n")):
        path = f"{MODULE}/@v/list" if name == "list" else f"{BASE}.{name}"
        fake.script(path, Reply(body=body))
    fake.script(f"{MODULE}/@latest", Reply(body=INFO))
    fake.script(f"{MODULE}/@v/master.info", Reply(body=INFO))


def immutable(tmp_path: Path, fake: FakeUpstream) -> list[Response]:
    serve_all(fake)
    app = build(tmp_path, fake.url)
    return [call(app, f"/{BASE}.{kind}") for kind in ("info", "mod", "zip", "info", "mod", "zip")]


def mutable(tmp_path: Path, fake: FakeUpstream) -> list[Response]:
    serve_all(fake)
    app = build(tmp_path, fake.url)
    return [call(app, f"/{MODULE}/{path}") for path in ("@v/list", "@latest", "@v/master.info")]


def slow(tmp_path: Path, fake: FakeUpstream) -> list[Response]:
    app = build(tmp_path, fake.url, upstream_timeouts={"first_byte_seconds": 30})
    path = f"{MODULE}/@v/list"
    fake.script(path, Reply(body=b"v1.0.0\n"), Reply(hang=True))
    call(app, f"/{path}")
    make_older(tmp_path, path, 90)
    return [call(app, f"/{path}")]


def stale(tmp_path: Path, fake: FakeUpstream) -> list[Response]:
    serve_all(fake)
    app = build(tmp_path, fake.url, freshness={"mutable_seconds": 0})
    for path in (f"{BASE}.info", f"{MODULE}/@v/list"):
        assert call(app, f"/{path}").status == 200
    fake.replies.clear()
    fake.default = Reply(status=500)
    # The list was kept; @latest is what the store holds.
    return [call(app, f"/{MODULE}/{path}") for path in ("@v/list", "@latest")]


def unverified(tmp_path: Path, fake: FakeUpstream) -> list[Response]:
    serve_all(fake)
    app = build(tmp_path, fake.url, sumdb=f"{TEST_SUMDB} {fake.url}/itself")
    return [call(app, f"/{BASE}.{kind}") for kind in ("mod", "zip", "zip")]


def not_found(tmp_path: Path, fake: FakeUpstream) -> list[Response]:
    app = build(tmp_path, fake.url)
    answers = []
    for status in (404, 410):
        fake.default = Reply(status=status)
        answers += [call(app, f"/x.y/{status}/@v/{name}") for name in ("list", "v1.0.0.zip")]
    assert all(f"{fake.name}: 4" in answer.text for answer in answers)
    return answers


def nobody_to_ask(tmp_path: Path, fake: FakeUpstream) -> list[Response]:
    off = build(tmp_path, "off")
    private = build(tmp_path, fake.url, private="example.com")
    answers = [call(app, f"/{BASE}.zip") for app in (off, private)]
    assert [word in answer.text for word, answer in zip(("off", "private"), answers, strict=True)]
    assert fake.counts.total() == 0
    return answers


def cached_only(tmp_path: Path, fake: FakeUpstream) -> list[Response]:
    serve_all(fake)
    app = build(tmp_path, fake.url, sumdb=f"{TEST_SUMDB} {fake.url}/itself")
    paths = (f"{BASE}.zip", f"{MODULE}/@v/list", f"{MODULE}/@latest", f"{MODULE}/@v/main.info",
             f"sumdb/{DATABASE}/lookup/{MODULE}@v1.0.0", f"sumdb/{DATABASE}/latest")  # fmt: skip
    answers = [call(app, f"/cached-only/{path}") for path in paths]
    assert fake.counts.total() == 0
    return answers


def no_database(tmp_path: Path, fake: FakeUpstream) -> list[Response]:
    app = build(tmp_path, fake.url, sumdb=f"{TEST_SUMDB} {fake.url}", private="example.com")
    paths = ("sum.golang.org/latest", "a.b/tile/8/0/000", "a.b/lookup/x.y@v1.0.0",
             f"{DATABASE}/lookup/{MODULE}@v1.0.0")  # fmt: skip
    answers = [call(app, f"/sumdb/{path}") for path in paths]
    assert fake.counts.total() == 0
    return answers


def supported(tmp_path: Path, fake: FakeUpstream) -> list[Response]:
    app = build(tmp_path, fake.url, sumdb=TEST_SUMDB)
    return [call(app, f"/sumdb/{name}/supported") for name in (DATABASE, "sum.golang.org")]


def no_such_path(tmp_path: Path, fake: FakeUpstream) -> list[Response]:
    app = build(tmp_path, fake.url)
    paths = ("/", "/x.y/z", "/x.y/@v/list.txt", "/x.y/@v/v1.0.0.tar", "/nodot/@v/list",
             "/x.y//z/@v/list", "/x.y/con/@v/list", "/x.y/@v/master.zip", "/x.y/@v/v1..info",
             "/x.y/Azure/@v/list", "/x.y/!A/@v/list", "/x.y/é/@v/list", "/x.y/@v/latest.info",
             "/sumdb/a.b/tile/9/0/000", "/sumdb/a.b/lookup/x.y@master")  # fmt: skip
    answers = [call(app, path.encode().decode("latin-1")) for path in paths]
    assert fake.counts.total() == 0
    return answers


def hostile(tmp_path: Path, fake: FakeUpstream) -> list[Response]:
    app = build(tmp_path, fake.url)
    elements = ("..", ".", "%2e%2e", "%2E", "%2f", "%2F", "%5c", "%25", "\\", "\0", "%00", "\n",
                "%0a", "\x7f", "%7F", "%zz", "%", "x" * 201, "y/" * 1100, "z/" * 100)  # fmt: skip
    answers = [call(app, f"/x.y/{element}/@v/list") for element in elements]
    assert fake.counts.total() == 0
    return answers


def other_method(tmp_path: Path, fake: FakeUpstream) -> list[Response]:
    app = build(tmp_path, fake.url)
    methods = ("POST", "PUT", "DELETE", "OPTIONS", "PATCH", "get", "")
    return [call(app, f"/{BASE}.mod", method) for method in methods]


def failed(tmp_path: Path, fake: FakeUpstream) -> list[Response]:
    app = build(tmp_path, f"{fake.url}/a|{fake.url}/b", sumdb=f"{TEST_SUMDB} {fake.url}")
    fake.default = Reply(status=500)
    fake.script(f"b/{BASE}.info", Reply(status=404))
    paths = (f"{BASE}.zip", f"{BASE}.info", f"{MODULE}/@v/list", f"sumdb/{DATABASE}/latest")
    answers = [call(app, f"/{path}") for path in paths]
    for answer in answers:
        # In its time out after three failures, an upstream is named as one that was not asked.
        assert re.search(rf"^{fake.name}: (500|skipped, .+), \d+ ms$", answer.text, re.MULTILINE)
        assert re.search(r": 500, \d+ ms$", answer.text, re.MULTILINE)
    return answers


def timed_out(tmp_path: Path, fake: FakeUpstream) -> list[Response]:
    fake.default = Reply(hang=True)
    seconds = {"connect_seconds": 0.2, "first_byte_seconds": 0.2}
    app = build(tmp_path, fake.url, upstream_timeouts=seconds)
    answer = call(app, f"/{BASE}.zip")
    assert f"{fake.name}: timed out" in answer.text
    return [answer]


def refused_unverified(tmp_path: Path, fake: FakeUpstream) -> list[Response]:
    serve_all(fake)
    sumdb = f"{TEST_SUMDB} {fake.url}/itself"
    app = build(tmp_path, fake.url, sumdb=sumdb, require_verified=True)
    answers = [call(app, f"/{BASE}.{kind}") for kind in ("mod", "zip")]
    assert all(DATABASE in answer.text for answer in answers)
    return answers


def store_failed(tmp_path: Path, fake: FakeUpstream) -> list[Response]:
    serve_all(fake)
    app = build(tmp_path, fake.url)
    call(app, f"/{BASE}.info")
    published = tmp_path / "store/cache/download" / f"{BASE}.info"
    published.unlink()
    # What open() refuses to whoever asks, root too.
    published.mkdir()
    (tmp_path / "store/tmp").rmdir()
    return [call(app, f"/{BASE}.info"), call(app, f"/{BASE}.zip")]


def busy(tmp_path: Path, fake: FakeUpstream) -> list[Response]:
    limits = {"zip_requests": 1}
    seconds = {"first_byte_seconds": 30}
    app = build(tmp_path, fake.url, limits=limits, upstream_timeouts=seconds)
    fake.script(f"{BASE}.zip", Reply(hang=True))
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(call, app, f"/{BASE}.zip")
        end = time.monotonic() + 10
        while not fake.counts[f"{BASE}.zip"]:
            assert time.monotonic() < end
            time.sleep(0.01)
        answer = call(app, "/x.y/@v/v1.0.0.zip")
        fake.released.set()
        waiting.result()
    assert fake.counts.total() == 1
    return [answer]


def well(tmp_path: Path, fake: FakeUpstream) -> list[Response]:
    app = build(tmp_path, fake.url)
    return [call(app, path) for path in ("/healthz", "/metrics", "/readyz")]


def not_ready(tmp_path: Path, fake: FakeUpstream) -> list[Response]:
    full = {"path": str(tmp_path / "store"), "min_free_bytes": 1 << 60}
    answers = [call(build(tmp_path, fake.url, store=full), "/readyz")]
    app = build(tmp_path, fake.url)
    (tmp_path / "drain").touch()
    answers.append(call(app, "/readyz"))
    (tmp_path / "drain").unlink()
    (tmp_path / "store/tmp").rmdir()
    return [*answers, call(app, "/readyz")]


def head(tmp_path: Path, fake: FakeUpstream) -> list[Response]:
    serve_all(fake)
    app = build(tmp_path, fake.url)
    answers = []
    for path in (f"/{BASE}.zip", f"/{MODULE}/@v/list", "/x.y/@v/list", "/x.y/../z", "/healthz"):
        get, answer = call(app, path), call(app, path, "HEAD")
        assert answer.status == get.status
        assert answer.body == b""
        own = {"X-Request-Id", "Content-Length", "X-Modhaven-Source"}
        assert {k: v for k, v in answer.headers.items() if k not in own} == {
            k: v for k, v in get.headers.items() if k not in own
        }
        assert answer.headers["Content-Length"].isdecimal()
        answers.append(answer)
    return answers


CASES: dict[str, Case] = {
    "found, immutable": immutable,
    "found, mutable": mutable,
    "mutable, up to 120 s old, and a new one does not come within 0.5 s": slow,
    "mutable, no upstream answers": stale,
    "the file is there, the checksum database could not be asked": unverified,
    "every upstream that was asked said 404 or 410": not_found,
    "not in the store, and no upstream may be asked": nobody_to_ask,
    "below `/cached-only/`, and not in the store": cached_only,
    "a checksum database that is not configured; a lookup of a private module": no_database,
    "`/sumdb/NAME/supported` of a database that is configured, and of another one": supported,
    "no path of the protocol": no_such_path,
    "a path that hides what it asks for": hostile,
    "a method other than GET and HEAD": other_method,
    "an upstream failed and none had it": failed,
    "an upstream timed out and none had it": timed_out,
    "the file is there, the checksum database could not be asked, `require_verified` is set": (
        refused_unverified
    ),
    "the store failed": store_failed,
    "too many requests of this kind wait for upstreams": busy,
    "`/healthz`, `/metrics`, `/readyz` while all is well": well,
    "`/readyz` while draining, over the watermark, or while the store cannot be written": not_ready,
    "HEAD": head,
}


def test_every_row_is_tested() -> None:
    assert [case.partition(": ")[0] for case in rows()] == list(CASES)


@pytest.mark.parametrize(("case", "promise"), rows().items())
def test_row(tmp_path: Path, fake: FakeUpstream, case: str, promise: tuple[str, str]) -> None:
    status, freshness = promise
    statuses = [int(number) for number in re.findall(r"\b[2-5][0-9][0-9]\b", status)]
    answers = CASES[case.partition(": ")[0]](tmp_path, fake)
    if statuses:
        assert [a.status for a in answers] == (
            statuses if len(statuses) > 1 else statuses * len(answers)
        ), [a.text for a in answers]
    for answer in answers:
        for header in re.findall(r"`([A-Z][A-Za-z-]+)`", status):
            assert header in answer.headers
        if freshness in FRESHNESS:
            assert answer.headers["Cache-Control"] == FRESHNESS[freshness]
        if answer.status >= 400 and answer.body:
            assert answer.headers["Content-Type"].startswith("text/plain")
            lines = answer.text.splitlines()
            assert len(lines) <= 8
            assert lines[-1] == f"request id: {answer.headers['X-Request-Id']}"
            # Edges say it again when they had to let go of the body.
            reason = "\t".join(lines) if answer.status in (502, 503, 504) else None
            assert answer.headers.get("X-Modhaven-Reason") == reason
