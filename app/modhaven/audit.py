"""``modhaven verify``: every file of the store judged again, and a summary for the operator."""

from __future__ import annotations

import contextlib
import os
import pwd
import sys
import time
from collections import Counter
from typing import TYPE_CHECKING, TextIO

from modhaven.config import ConfigError
from modhaven.databases import asking
from modhaven.reverify import judge
from modhaven.store.base import LockTimeoutError
from modhaven.upstream import Deadline
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
_MEANINGS = (
    (Verdict.VERIFIED.value, "the checksum database has the same hash"),
    (Verdict.PINNED.value, "the same as at first use; no database is asked about them"),
    (Verdict.EXEMPT.value, ".info files in good form; nothing authenticates them"),
    (Verdict.UNVERIFIED.value, "the database could not be asked; marked"),
    (Verdict.UNKNOWN.value, "the database gave no proof; marked"),
    (_BUSY, "being fetched by a server; run again"),
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
    """Judge every file; print progress and a summary. Return 1 when one was contradicted.

    Raises StoreError.
    """
    out, progress = out or sys.stdout, progress or sys.stderr
    counts: Counter[str] = Counter()
    modules = set()
    stopped = ""
    said = time.monotonic()
    for key in store.published():
        modules.add(key.rpartition("/@v/")[0])
        try:
            with _within_reach(counts):
                verdict = judge(store, verifier, key)
            if verdict is not None:
                counts[verdict.value] += 1
        except MismatchError:
            counts[_CONTRADICTED] += 1
        except LockTimeoutError:
            counts[_BUSY] += 1
        except StoppedError as error:
            counts[Verdict.UNVERIFIED.value] += 1
            stopped = str(error)
        if time.monotonic() - said >= progress_seconds:
            said = time.monotonic()
            line = f"{counts.total()} files checked, {counts[_CONTRADICTED]} contradicted"
            print(line, file=progress, flush=True)
    for module in sorted(modules):
        store.refresh_list(module)
    if stopped:
        print(stopped, file=progress)
    out.write(_table(counts))
    return 1 if counts[_CONTRADICTED] else 0


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
