"""What must hold of every answer, written without the app's own parser."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import unquote_to_bytes

from tests.integration.fuzz_requests import SUMDB

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

_ELEMENT = r"(?!\.)(?:[a-z0-9._~-]|![a-z])+(?<!\.)"
_MODULE = rf"{_ELEMENT}(?:/{_ELEMENT})*"
_FILE = r"(?!(?:con|nul|aux|prn)(?:\.|$))(?:[a-z0-9#$&()+,.=@\[\]^_{}~ -]|![a-z])+(?<!\.)"
_RECORD = (
    rf"lookup/{_MODULE}@{_FILE}|tile/8/(?:data|[0-9]+)/(?:x[0-9]{{3}}/)*[0-9]{{3}}(?:\.p/[0-9]+)?"
)
_IMMUTABLE = rf"{_MODULE}/@v/{_FILE}\.(?:info|mod|zip)|sumdb/{SUMDB}/(?:{_RECORD})"
_MUTABLE = rf"{_MODULE}/(?:@latest|@v/list|@v/{_FILE}\.info)|sumdb/{SUMDB}/(?:latest|{_RECORD})"
PROTOCOL = re.compile(f"{_IMMUTABLE}|{_MUTABLE}")
# The upstream is its own checksum database too, below this path.
ITSELF = "itself"
_QUESTION = re.compile(rf"{PROTOCOL.pattern}|{ITSELF}/(?:latest|{_RECORD})")
_LOCAL = re.compile(rf"healthz|readyz|metrics|sumdb/{SUMDB}/supported")
_HOSTILE = re.compile(
    r"%(?:2e|2f|5c|25|0.|1.|7f|(?![0-9a-f]{2}))|\\|(?:^|/)\.\.?(?:/|$)|[\x00-\x1f\x7f]",
    re.IGNORECASE,
)
_TREE = re.compile(
    rf"cache/download/(?:{_IMMUTABLE}|{_MODULE}/@v/list|sumdb/{SUMDB}/latest)|mutable/(?:{_MUTABLE})"
    rf"|(?:unverified|pins)/{_MODULE}/@v/{_FILE}\.(?:mod|zip)"
    r"|quarantine/[0-9a-f]{64}(?:\.reason)?"
    # One file for all locks.
    r"|locks/keys"
)
_CACHE_CONTROL = re.compile(
    r"no-store|public, max-age=(?:31536000, immutable|60, stale-while-revalidate=60|10)"
)
# Sources that fail may be told with these; nothing else above 499 may be said.
OF_SOURCES = frozenset({502, 504})


@dataclass(frozen=True, slots=True)
class Answer:
    """What the application said, and what the upstream was asked for meanwhile."""

    status: int
    headers: Sequence[tuple[str, str]]
    body: bytes
    asked: Sequence[str]


def check(method: str, target: str, request_id: str, answer: Answer) -> None:
    """Raise AssertionError with a sentence for what is wrong about an answer."""
    path = re.sub(r"^[a-z][a-z0-9+.-]*://[^/?#]*", "", target, flags=re.IGNORECASE)
    path = re.split(r"[?#]", path, maxsplit=1)[0]
    decoded = unquote_to_bytes(path.encode("latin-1")).decode("latin-1")
    plain = decoded.removeprefix("/").removeprefix("cached-only/")
    assert answer.status in {200, 400, 404, 405} | OF_SOURCES, f"status {answer.status}"
    _check_headers(answer, method, request_id)
    assert (answer.status == 405) is (method not in ("GET", "HEAD")), "405 is for other methods"
    if answer.status in {200} | OF_SOURCES:
        assert PROTOCOL.fullmatch(plain) or _LOCAL.fullmatch(plain), (
            f"{answer.status} for a non-path"
        )
    if _HOSTILE.search(path) or _HOSTILE.search(decoded):
        assert answer.status in (400, 404, 405), "a hostile path was let in"
    if answer.status in (400, 405) or decoded.startswith("/cached-only/"):
        # A database is asked beside the fetch of a go.mod, and may hear of an earlier one only now.
        late = (f"sumdb/{SUMDB}/", f"{ITSELF}/")
        asked = [question for question in answer.asked if not question.startswith(late)]
        assert not asked, f"asked an upstream for {asked}"
    for question in answer.asked:
        where = unquote_to_bytes(question).decode("latin-1")
        assert is_question(where), f"asked an upstream for {question!r}"
        of_database = where.startswith((f"sumdb/{SUMDB}/", f"{ITSELF}/"))
        assert of_database or where == plain, f"asked for {question!r} in place of {plain!r}"


def is_question(path: str) -> bool:
    """Tell whether ``path``, decoded, is what an upstream may be asked for."""
    return _QUESTION.fullmatch(path) is not None


def _check_headers(answer: Answer, method: str, request_id: str) -> None:
    names = [name for name, _ in answer.headers]
    assert len(set(names)) == len(names), "a header is there twice"
    for name, value in answer.headers:
        assert re.fullmatch(r"[A-Za-z-]+", name), f"header {name!r}"
        # Its tabs stand for the ends of the body's lines (a field may have them: RFC 9110, 5.5).
        text = value.replace("\t", " ") if name == "X-Modhaven-Reason" else value
        assert re.fullmatch(r"[\x20-\x7e]+", text), f"header {name}: {value!r}"
    headers = dict(answer.headers)
    if re.fullmatch(r"[A-Za-z0-9._-]{8,64}", request_id):
        assert headers["X-Request-Id"] == request_id
    else:
        assert re.fullmatch(r"[0-9a-f]{32}", headers["X-Request-Id"])
    if method == "HEAD":
        assert not answer.body
        assert headers["Content-Length"].isdecimal()
    else:
        assert headers["Content-Length"] == str(len(answer.body))
    assert _CACHE_CONTROL.fullmatch(headers["Cache-Control"]), headers["Cache-Control"]
    assert ("Allow" in headers) is (answer.status == 405)
    if answer.status == 200:
        return
    assert headers["Content-Type"] == "text/plain; charset=utf-8"
    assert ("no-store" in headers["Cache-Control"]) or answer.status == 404
    if method != "HEAD":
        lines = answer.body.decode().splitlines()
        assert len(lines) <= 8
        assert all(line.isprintable() for line in lines)
        assert lines[-1] == f"request id: {headers['X-Request-Id']}"


def check_log_line(text: str) -> None:
    """Raise AssertionError unless ``text`` is one line of JSON in ASCII, whatever was asked."""
    assert text.isascii()
    assert text.index("\n") == len(text) - 1
    assert json.loads(text)["status"]


def check_tree(root: Path) -> int:
    """Return how many files the store has; AssertionError names one that may not be there."""
    names = [str(path.relative_to(root)) for path in root.rglob("*") if not path.is_dir()]
    for name in names:
        assert _TREE.fullmatch(name), f"the store has {name!r}"
    folders = {path.name for path in root.iterdir()}
    assert folders <= {"cache", "mutable", "unverified", "pins", "quarantine", "tmp", "locks"}
    return len(names)
