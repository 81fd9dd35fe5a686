"""What the store alone can say about a list or @latest, labelled with its age."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from modhaven import semver
from modhaven.answers import FROM_STORE, Found
from modhaven.modpath import escape_version
from modhaven.protocol import Kind, Request
from modhaven.store.base import StoreError

if TYPE_CHECKING:
    from modhaven.store.base import Mutable, Store


def as_it_is(known: Mutable) -> Found:
    """Return what was kept, with its age."""
    return Found(source=FROM_STORE, body=known.body, stale_seconds=round(known.age))


def stale(store: Store, request: Request, known: Mutable | None, *, max_age: float) -> Found | None:
    """Return ``known`` unless it is older than ``max_age`` seconds, else what the files say.

    The files have something to say of lists and @latest only. None: nothing can be said.
    """
    if known is not None and known.age <= max_age:
        return as_it_is(known)
    return _from_files(store, request) if request.kind in (Kind.LIST, Kind.LATEST) else None


def _from_files(store: Store, request: Request) -> Found | None:
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
    tagged = sorted((v for v in versions if not semver.is_pseudo(v)), key=semver.sort_key)
    body = "".join(f"{version}\n" for version in tagged).encode()
    return Found(source=FROM_STORE, body=body, stale_seconds=age)
