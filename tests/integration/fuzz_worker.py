"""One process of the fuzz run: ``python -m tests.integration.fuzz_worker SEED COUNT FOLDER``.

Requests go through gunicorn's own parser into the real application, which has a scripted upstream
on loopback and a store in FOLDER/store. An audit hook sees every file that is touched.
"""

from __future__ import annotations

import http.server
import io
import json
import logging
import os
import random
import re
import sys
import threading
import zipfile
import zlib
from collections import Counter
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from gunicorn.http import wsgi as gunicorn_wsgi
from gunicorn.http.errors import ParseException
from gunicorn.http.message import Request
from gunicorn.http.unreader import IterUnreader
from gunicorn.util import split_request_uri, unquote_to_wsgi_str
from tests.conftest import TEST_SUMDB
from tests.integration import fuzz_rules
from tests.integration.fuzz_requests import Hostile, make_request
from tests.integration.fuzz_watch import Watch

from modhaven import config, modpath, serve

_PEER = ("127.0.0.1", 4000)
_WSGI = {"wsgi.version": (1, 0), "wsgi.url_scheme": "http", "wsgi.input": io.BytesIO()}


class Upstream(http.server.ThreadingHTTPServer):
    """Answers by the path's checksum: half of all is not found, some of it rubbish or an error."""

    daemon_threads = True

    def __init__(self) -> None:
        self.asked: list[str] = []
        super().__init__(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def handle_error(self, request: object, client_address: object) -> None:
        """Say nothing of connections that are closed in the middle of an answer."""


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: Upstream

    def do_GET(self) -> None:
        self.server.asked.append(self.path.removeprefix("/"))
        path = unquote(self.path.removeprefix("/"))
        chance = zlib.crc32(path.encode()) % 20
        status = 500 if chance == 0 else 404 if chance < 10 else 200
        body = b"<html>login</html>" if chance == 10 else content(path)
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body if chance != 11 else body[:-1])
        self.close_connection = chance == 11

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - its name
        pass


def content(path: str) -> bytes:
    """Return what a mirror that has everything would answer."""
    match = re.fullmatch(r"(.+)/@v/(.+)\.(info|mod|zip)", path)
    if match is None:
        return b'{"Version": "v1.0.0"}' if path.endswith("/@latest") else b"v1.0.0\n"
    module, version = modpath.unescape_path(match[1]), modpath.unescape_version(match[2])
    if match[3] == "info":
        canonical = version if re.match(r"v\d+\.\d+\.\d+", version) else "v1.0.0"
        return json.dumps({"Version": canonical}).encode()
    if match[3] == "mod":
        return f"module {module}\n".encode()
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr(f"{module}@{version}/go.mod", f"module {module}\n")
    return out.getvalue()


class Log:
    """Standard output of the application: one line of JSON a request, whatever was in its path."""

    def write(self, text: str) -> None:
        fuzz_rules.check_log_line(text)

    def flush(self) -> None:
        """Nothing is held back."""


def make_environ(hostile: Hostile, settings: Any) -> tuple[dict[str, Any], bool]:
    """Return the environ, and whether gunicorn let the request through.

    What it refuses is handed on all the same, decoded as it would have been: the application must
    not lean on one version of one server.
    """
    try:
        request = Request(settings, IterUnreader(iter([hostile.wire])), _PEER, 1)
        return gunicorn_wsgi.create(request, None, _PEER, _PEER, settings)[1], True
    except (ParseException, StopIteration):
        pass
    target = hostile.target.decode("latin-1")
    try:
        path = split_request_uri(target).path
    except ValueError:
        path = target
    names = [line.partition(":") for line in hostile.headers]
    headers = {f"HTTP_{name.upper().replace('-', '_')}": value.strip() for name, _, value in names}
    return {
        **_WSGI,
        **headers,
        "REQUEST_METHOD": hostile.method,
        "RAW_URI": target,
        "PATH_INFO": unquote_to_wsgi_str(path),
    }, False


def run(seed: str, count: int, folder: Path) -> dict[str, int]:
    upstream = Upstream()
    url = f"http://127.0.0.1:{upstream.server_port}"
    drain = folder / "drain"
    loaded = config.from_mapping({
        "node": "fuzz",
        "store": {"path": str(folder / "store"), "min_free_bytes": 0},
        "upstreams": url,
        "upstream_retries": 0,
        "upstream_rounds": 1,
        # Every answer counts here: none is spared because others failed.
        "breaker": {"failures": 100},
        "sumdb": f"{TEST_SUMDB} {url}/{fuzz_rules.ITSELF}",
        "nosumdb": "private.corp",
        "drain_file": str(drain),
    })  # fmt: skip
    app = serve.build(loaded)
    # What `modhaven serve` sets is what parses here.
    settings = serve.Server(lambda: loaded).cfg
    rng = random.Random(seed)  # noqa: S311 - to be repeated, not secret
    counts: Counter[str] = Counter()
    watch = Watch(
        root=folder / "store",
        # Readiness looks for the one; requests looks for the other before each connection.
        may_look_at={drain, config.system_ca_file()},
        port=upstream.server_port,
    )

    def ask(hostile: Hostile) -> None:
        environ, passed = make_environ(hostile, settings)
        before = len(upstream.asked)
        got: list[Any] = []
        chunks = app(environ, lambda status, headers, _info=None: got.extend((status, headers)))  # type: ignore[arg-type] # no write()
        body = b"".join(chunks)
        if hasattr(chunks, "close"):
            chunks.close()
        answer = fuzz_rules.Answer(int(got[0][:3]), got[1], body, upstream.asked[before:])
        request_id = environ.get("HTTP_X_REQUEST_ID", "")
        fuzz_rules.check(environ["REQUEST_METHOD"], environ["RAW_URI"], request_id, answer)
        assert not watch.seen, f"touched {watch.seen}"
        counts[f"{answer.status}"] += 1
        counts["refused by gunicorn"] += not passed
        counts["asked of the upstream"] += len(answer.asked)

    def ask_and_tell(hostile: Hostile, what: str) -> None:
        try:
            ask(hostile)
        except Exception as error:
            error.add_note(f"{what}: {hostile.wire!r}")
            raise

    # What is imported or opened at the first use only is so before the watch begins.
    for number in range(500):
        hostile = make_request(random.Random(number))  # noqa: S311 - to be repeated
        ask_and_tell(hostile, f"warming up, request {number}")
    counts.clear()
    watch.begin()
    for number in range(count):
        ask_and_tell(make_request(rng), f"seed {seed}, request {number}")
    watch.end()
    counts["files in the store"] = fuzz_rules.check_tree(folder / "store")
    assert [entry.name for entry in folder.iterdir()] == ["store"]
    return dict(counts)


def main() -> None:
    seed, count, folder = sys.argv[1:]
    out, sys.stdout = sys.stdout, Log()
    # A mirror that cannot be believed is no news here, a hundred times a second.
    logging.disable(logging.WARNING)
    logging.getLogger("modhaven.databases").disabled = True
    os.umask(serve.UMASK)
    counts = run(seed, int(count), Path(folder))
    out.write(json.dumps(counts) + "\n")


if __name__ == "__main__":
    main()
