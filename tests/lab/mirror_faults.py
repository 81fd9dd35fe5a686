"""What can be wrong with a lab mirror: the fault table, and the damage done to a body.

Pure but for the table's lock. One name (a host name that the mirror answers to) has at most one
fault at a time. Kinds:

=============  ======================================================================
``down``       connections are refused, or reset where another name shares the address
``blackhole``  connections are accepted and never answered
``delay``      the answer comes ``seconds`` late
``status``     the answer is ``code``
``truncate``   the body ends half-way, though Content-Length promised all of it
``wrong_bytes``  the body has its length and its form, and other content
=============  ======================================================================

``match`` (a regular expression searched in the path) limits a fault to some requests, ``count`` to
the next so many.
"""

from __future__ import annotations

import io
import re
import threading
import zipfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

KINDS = ("down", "blackhole", "delay", "status", "truncate", "wrong_bytes")
_ZIP_END = 22  # octets of the end-of-central-directory record without its comment (APPNOTE 4.3.16)
_TIME = (1980, 1, 1, 0, 0, 0)


@dataclass(kw_only=True)
class Fault:
    """One switched-on fault; ``remaining`` counts down to 0 where a count was given."""

    kind: str
    seconds: float = 0.0
    code: int = 503
    match: str = ""
    remaining: int | None = None

    @classmethod
    def from_json(cls, data: object) -> Fault:
        """Read the control API's ``{"kind": …, "seconds", "code", "match", "count"}``.

        Raises ValueError with one sentence that names the key and what it may be.
        """
        if not isinstance(data, Mapping):
            raise ValueError("a fault is a JSON object with at least a kind")
        unknown = set(data) - {"kind", "seconds", "code", "match", "count"}
        if unknown:
            raise ValueError(f"unknown key {min(unknown)!r} in a fault")
        kind, code = data.get("kind"), data.get("code", 503)
        seconds, count, match = data.get("seconds", 0), data.get("count"), data.get("match", "")
        if kind not in KINDS:
            raise ValueError(f"kind is {kind!r}; it must be one of {', '.join(KINDS)}")
        if not isinstance(seconds, int | float) or not 0 <= seconds <= 600:
            raise ValueError(f"seconds is {seconds!r}; it must be a number from 0 to 600")
        if not isinstance(code, int) or not 200 <= code <= 599:
            raise ValueError(f"code is {code!r}; it must be a status code from 200 to 599")
        if count is not None and (not isinstance(count, int) or count < 1):
            raise ValueError(f"count is {count!r}; it must be a whole number above 0")
        if not isinstance(match, str):
            raise ValueError(f"match is {match!r}; it must be a regular expression")
        try:
            re.compile(match)
        except re.error as error:
            raise ValueError(
                f"match {match!r} is no regular expression Python knows: {error}"
            ) from None
        return cls(kind=str(kind), seconds=float(seconds), code=code, match=match, remaining=count)

    def to_json(self) -> dict[str, object]:
        """Give the fault in the form that ``from_json`` reads."""
        return {
            "kind": self.kind,
            "seconds": self.seconds,
            "code": self.code,
            "match": self.match,
            "count": self.remaining,
        }


class FaultTable:
    """The faults that are on, by name; safe for many threads."""

    def __init__(self, names: Iterable[str]) -> None:
        self.names = tuple(names)
        self._faults: dict[str, Fault] = {}
        self._lock = threading.Lock()

    def put(self, name: str, fault: Fault) -> None:
        """Switch a fault on, in place of the name's earlier one. Raises KeyError: no such name."""
        if name not in self.names:
            raise KeyError(name)
        with self._lock:
            self._faults[name] = fault

    def remove(self, name: str) -> None:
        """Switch the name's fault off; no error where there is none."""
        with self._lock:
            self._faults.pop(name, None)

    def snapshot(self) -> dict[str, dict[str, object]]:
        """Give every fault that is on, as JSON-ready objects."""
        with self._lock:
            return {name: fault.to_json() for name, fault in self._faults.items()}

    def on_connection(self, name: str) -> Fault | None:
        """Take the fault that hits a connection before any request is read, if there is one."""
        return self._take(name, None)

    def on_request(self, name: str, path: str) -> Fault | None:
        """Take the fault that hits this request, counting it."""
        return self._take(name, path)

    def refused(self) -> bool:
        """Tell whether every name is down without condition: then the port itself is closed."""
        with self._lock:
            found = [self._faults.get(name) for name in self.names]
        return all(
            fault is not None
            and fault.kind == "down"
            and not fault.match
            and fault.remaining is None
            for fault in found
        )

    def _take(self, name: str, path: str | None) -> Fault | None:
        with self._lock:
            fault = self._faults.get(name)
            if fault is None:
                return None
            if path is None and (fault.match or fault.kind not in ("down", "blackhole")):
                return None
            if path is not None and not re.search(fault.match, path):
                return None
            if fault.remaining is not None:
                fault.remaining -= 1
                if fault.remaining <= 0:
                    del self._faults[name]
            return fault


def wrong_bytes(body: bytes) -> bytes:
    """Give a body of the same length and other content, as a broken or hostile mirror would.

    A zip stays a zip that opens, with one file's content changed (its h1: hash differs, its CRCs
    fit); a text keeps its form, its last letter or digit changed; anything else has a bit flipped.
    """
    if body.startswith(b"PK"):
        changed = _wrong_zip(body)
        if changed is not None:
            return changed
    return _flip_last(body)


def _flip_last(body: bytes) -> bytes:
    changed = bytearray(body)
    is_text = re.search(rb"[^\t\n\r -~]", body) is None
    found = re.search(rb"[0-9A-Za-z](?=[^0-9A-Za-z]*\Z)", body) if is_text else None
    if found is None:
        if changed:
            changed[-1] ^= 1
        return bytes(changed)
    old = body[found.start()]
    # The neighbour, but never out of its class: 9 and z go down.
    changed[found.start()] = old - 1 if old in b"9zZ" else old + 1
    return bytes(changed)


def _wrong_zip(body: bytes) -> bytes | None:
    out = io.BytesIO()
    done = False
    try:
        with (
            zipfile.ZipFile(io.BytesIO(body)) as source,
            zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as target,
        ):
            for item in source.infolist():
                data = source.read(item)
                # go.mod is left alone: it has a hash of its own and would be noticed sooner.
                if not done and data and not item.filename.endswith("/go.mod"):
                    data, done = _flip_last(data), True
                entry = zipfile.ZipInfo(item.filename, _TIME)
                entry.compress_type = zipfile.ZIP_DEFLATED
                target.writestr(entry, data)
    except zipfile.BadZipFile:
        return None
    room = len(body) - len(out.getvalue())
    if not done or not 0 <= room <= 0xFFFF:
        return None
    # The archive's comment, which no hash covers, fills up to the same length.
    with zipfile.ZipFile(out, "a") as target:
        target.comment = b"\n" * room
    result = out.getvalue()
    return result if len(result) == len(body) and len(result) > _ZIP_END else None
