"""``modhaven verify``: every file of the store judged again, and a summary for the operator."""

from __future__ import annotations

import contextlib
import os
import pwd
import sys
import time
from collections import Counter
from typing import TYPE_CHECKING, TextIO

from modhaven.attempt import Deadline
from modhaven.config import ConfigError
from modhaven.databases import asking
from modhaven.reverify import judge
from modhaven.store.base import LockTimeoutError, StoreError
from modhaven.verify import MismatchError, StoppedError, Verdict

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from modhaven.store.base import Store
    from modhaven.verify import Verifier

_PROGRESS_SECONDS = 5.0
_LOOKUP_SECONDS = 30.0
# So many lookups without an answer, and for the rest only what is kept of the database counts:
# a thousand timeouts would take hours.
_SILENT_LOOKUPS = 3
_BUSY = "busy"
_CONTRADICTED = "contradicted"
_FAILED = "failed"
_MEANINGS = (
    (Verdict.VERIFIED.value, "the checksum database has the same hash"),
    (Verdict.PINNED.value, "the same as at first use; no database is asked about them"),
    (Verdict.EXEMPT.value, ".info files in good form; nothing authenticates them"),
    (Verdict.UNVERIFIED.value, "the database could not be asked; marked"),
    (Verdict.UNKNOWN.value, "the database gave no proof; marked"),
    (_BUSY, "being fetched by a server; run again"),
    (_FAILED, "could not be read or moved, see above"),
    (_CONTRADICTED, "moved to quarantine"),
)


def check_user(store: Path) -> None:
    """Refuse to write files that the server could not read or replace; ConfigError."""
    with contextlib.suppress(FileNotFoundError):
        owner = store.stat().st_uid
        if owner != os.geteuid():
            with contextlib.suppress(KeyError):
                name = pwd.getpwuid(owner).pw_name
                raise ConfigError(
                    f"{store} belongs to {name}: run this as that user (sudo -u {name} modhaven …)"
                )
            raise ConfigError(f"{store} belongs to user {owner}: run this as that user")


def run(
    *,
    store: Store,
    verifier: Verifier,
    out: TextIO | None = None,
    progress: TextIO | None = None,
    progress_seconds: float = _PROGRESS_SECONDS,
) -> int:
    """Judge every file; print progress and a summary.

    Return 1 when a file was contradicted, else 2 when one could not be judged, else 0.
    Raises StoreError when a list cannot be written.
    """
    out, progress = out or sys.stdout, progress or sys.stderr
    counts: Counter[str] = Counter()
    modules = set()
    said = time.monotonic()
    for key in store.published():
        modules.add(key.rpartition("/@v/")[0])
        with _within_reach(counts):
            outcome, message = _judge(store, verifier, key)
        if outcome is not None:
            counts[outcome] += 1
        if message:
            print(message, file=progress)
        if time.monotonic() - said >= progress_seconds:
            said = time.monotonic()
            line = f"{counts.total()} files checked, {counts[_CONTRADICTED]} contradicted"
            print(line, file=progress, flush=True)
    for module in sorted(modules):
        store.refresh_list(module)
    out.write(_table(counts))
    if counts[_CONTRADICTED]:
        return 1
    return 2 if counts[_FAILED] else 0


def _judge(store: Store, verifier: Verifier, key: str) -> tuple[str | None, str]:
    """Return the row a file counts in, None when there is none any more, and what to say of it."""
    try:
        verdict = judge(store, verifier, key)
    except MismatchError:
        # The log has said it, with both hashes.
        return _CONTRADICTED, ""
    except LockTimeoutError:
        return _BUSY, ""
    except StoppedError as error:
        return Verdict.UNVERIFIED.value, str(error)
    except StoreError as error:
        # A damaged disk is what this command is for: the other files are of interest too.
        return _FAILED, str(error)
    return (verdict.value if verdict else None), ""


@contextlib.contextmanager
def _within_reach(counts: Counter[str]) -> Iterator[None]:
    """Bound a lookup; where nobody has answered, to what is kept of the database."""
    silent = counts[Verdict.UNVERIFIED.value] >= _SILENT_LOOKUPS
    with asking(Deadline.after(0 if silent else _LOOKUP_SECONDS)):
        yield


def _table(counts: Counter[str]) -> str:
    rows = [("checked", counts.total(), "files of modules")]
    rows += [(name, counts[name], meaning) for name, meaning in _MEANINGS]
    return "".join(f"{name:<13}{count:>9}  {meaning}\n" for name, count, meaning in rows)
