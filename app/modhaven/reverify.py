"""Files that are already published, judged again; in the background those that are marked."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from modhaven import content, protocol
from modhaven.chore import Chore
from modhaven.protocol import Kind
from modhaven.recent import Recent
from modhaven.store.base import LockTimeoutError, StoreError
from modhaven.verify import MismatchError, StoppedError, Verdict

if TYPE_CHECKING:
    from modhaven.protocol import Request
    from modhaven.store.base import Store, Stored
    from modhaven.verify import Verifier

log = logging.getLogger(__name__)

# No request's path.
_WORKER = "unverified/"
_KEY_SECONDS = 60.0


def judge(store: Store, verifier: Verifier, key: str) -> Verdict | None:
    """Judge the published file ``key`` and act on it: what is wrong goes to quarantine.

    A proven file loses its mark, an unproven one gets it. None: there is no such file (any more).
    Raises MismatchError when it was quarantined, StoppedError, StoreError, and LockTimeoutError
    when it is being fetched.
    """
    try:
        request = protocol.parse(f"/{key}")
    except (protocol.MalformedError, protocol.NoSuchResourceError):
        return None
    with store.lock(key, wait_seconds=_KEY_SECONDS):
        stored = store.find(key)
        if stored is None:
            # The key is locked, so nobody is between writing the mark and publishing the file.
            store.mark(key, unverified=False)
            return None
        try:
            verdict = _verdict(verifier, request, stored)
        except MismatchError as error:
            kept = store.withdraw(key, f"{key} from the store: {error}")
            log.error(  # noqa: TRY400 - an operator needs the hashes, not the stack
                "%s is withdrawn from the store and quarantined as %s: %s", key, kept, error
            )
            raise
        if verdict.unproven or stored.unverified:
            store.mark(key, unverified=verdict.unproven)
    return verdict


def _verdict(verifier: Verifier, request: Request, stored: Stored) -> Verdict:
    try:
        with stored.path.open("rb") as file:
            if request.kind is Kind.INFO:
                content.check(request, file.read(content.LIMITS[Kind.INFO]))
            return verifier.verify(request, file)
    except content.RejectedError as error:
        raise MismatchError(str(error)) from error
    except OSError as error:
        raise StoreError(f"{stored.path} cannot be read: {error.strerror or error}") from error


class Reverifier:
    """Verifies the marked files as soon as their checksum database answers.

    Each worker process has one, and one of them works (Chore).
    """

    def __init__(
        self,
        *,
        store: Store,
        verifier: Verifier,
        pause_seconds: float = 2.0,
        files_per_second: float = 10.0,
        unknown_seconds: float = 600.0,
    ) -> None:
        """Look for marked files every ``pause_seconds``; nothing runs until ``start``.

        What the database does not know is asked about again after ``unknown_seconds``.
        """
        self._store = store
        self._verifier = verifier
        self._file_seconds = 1 / files_per_second
        self._unknown: Recent[bool] = Recent(seconds=unknown_seconds)
        self._failed: set[str] = set()
        self._chore = Chore(_WORKER, store=store, turn=self.sweep, pause_seconds=pause_seconds)

    def start(self) -> None:
        """Begin, in a thread of this process."""
        self._chore.start()

    def stop(self) -> None:
        """End after the file at hand."""
        self._chore.stop()

    def sweep(self) -> bool:
        """Judge every marked file once; False as soon as one shows that nobody answers."""
        keys = sorted(self._store.unverified())
        self._failed.intersection_update(keys)
        # Whatever ended the last sweep comes last: one file must not hold up the others.
        for key in sorted(keys, key=self._failed.__contains__):
            if self._unknown.get(key):
                continue
            self._failed.add(key)
            try:
                verdict = judge(self._store, self._verifier, key)
            except (MismatchError, LockTimeoutError):
                verdict = None
            except StoppedError:
                # Every request that is stopped says why: it need not be said here.
                return False
            if verdict is Verdict.UNVERIFIED:
                return False
            self._failed.discard(key)
            if verdict is Verdict.UNKNOWN:
                self._unknown.put(key, value=True)
            elif verdict is not None:
                log.info("%s is %s now", key, verdict.value)
            if not self._chore.wait(self._file_seconds):
                break
        return True
