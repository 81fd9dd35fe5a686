"""What stores alone can say about a list or @latest, labelled with its age: ours, or siblings'."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import time
from typing import TYPE_CHECKING

from modhaven import content, semver
from modhaven.answers import FROM_STORE, Found
from modhaven.modpath import escape_version
from modhaven.protocol import MAX_ELEMENT, Kind, Request
from modhaven.store.base import StoreError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from modhaven.peers import Peers
    from modhaven.store.base import Mutable, Store


# Of an age in seconds: three years have eight.
_MOST_DIGITS = 10


def as_it_is(known: Mutable) -> Found:
    """Return what was kept, with its age."""
    return Found(source=FROM_STORE, body=known.body, stale_seconds=round(known.age))


def stale(store: Store, request: Request, known: Mutable | None, *, max_age: float) -> Found | None:
    """Return ``known`` unless it is older than ``max_age`` seconds, else what the files say.

    The files have something to say of lists and @latest only. None: nothing can be said.
    """
    if known is not None and known.age <= max_age:
        return as_it_is(known)
    return _from_files(store, request)


def anywhere(store: Store, peers: Peers, request: Request) -> Found | None:
    """Return what the stores of all backends say together; None: nothing. StoreError.

    A list has every version that one of them knows, @latest is the newest of theirs, the answer to
    another query the youngest. The age is that of the youngest answer.
    """
    own = _from_files(store, request)
    told = [] if own is None else [(own.source, own.body, str(own.stale_seconds))]
    told += peers.say(request.path, limit=content.LIMITS[request.kind])
    answers = []
    for name, body, age in told:
        with contextlib.suppress(content.RejectedError):
            content.check(request, body)
            # One that is fresh there tells no age.
            seconds = int(age) if age.isdecimal() and len(age) < _MOST_DIGITS else 0
            answers.append(Found(source=name, body=body, stale_seconds=seconds))
    answers.sort(key=lambda one: one.stale_seconds or 0, reverse=True)
    if len(answers) > 1 and request.kind is Kind.LIST:
        return dataclasses.replace(answers[-1], body=_list(_versions(answers)))
    if request.kind is Kind.LATEST:
        # Of two that name the same, the younger.
        by_version = {json.loads(one.body)["Version"]: one for one in answers}
        best = semver.latest([version for version in by_version if len(version) <= MAX_ELEMENT])
        return by_version[best] if best is not None else None
    return answers[-1] if answers else None


def _versions(lists: Sequence[Found]) -> set[str]:
    # A line may tell more than its version; the go command reads that alone.
    lines = b"\n".join(one.body for one in lists).decode(errors="replace").split("\n")
    firsts = {fields[0] for line in lines if (fields := line.split())}
    return {version for version in firsts if len(version) <= MAX_ELEMENT}


def _from_files(store: Store, request: Request) -> Found | None:
    """Return what the published files say of a list or @latest; None: nothing. StoreError."""
    if request.kind not in (Kind.LIST, Kind.LATEST):
        return None
    versions = store.versions(request.escaped_module)
    best = semver.latest(versions)
    if best is None:
        return None
    newest = store.find(f"{request.escaped_module}/@v/{escape_version(best)}.info")
    if newest is None:
        return None
    try:
        age = round(max(0.0, time.time() - newest.path.stat().st_mtime))
        info = newest.path.read_bytes()
    except FileNotFoundError:
        # Withdrawn since it was found.
        return None
    except OSError as error:
        raise StoreError(f"{newest.path} cannot be read: {error.strerror or error}") from error
    if request.kind is Kind.LATEST:
        return Found(source=FROM_STORE, body=info, stale_seconds=age)
    tagged = [version for version in versions if not semver.is_pseudo(version)]
    return Found(source=FROM_STORE, body=_list(tagged), stale_seconds=age)


def _list(versions: Iterable[str]) -> bytes:
    return "".join(f"{version}\n" for version in sorted(versions, key=semver.sort_key)).encode()
