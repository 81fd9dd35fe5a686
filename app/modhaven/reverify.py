"""Files that are already published, judged again; in the background those that are marked."""

from __future__ import annotations

import logging
import random
import threading
from typing import TYPE_CHECKING

from modhaven import content, protocol
from modhaven.protocol import Kind
from modhaven.recent import Recent
from modhaven.store.base import LockTimeoutError, StoreError
from modhaven.verify import MismatchError, StoppedError, Verdict

if TYPE_CHECKING:
    from modhaven.protocol import Request
    from modhaven.store.base import Store, Stored
    from modhaven.verify import Verifier

log = logging.getLogger(__name__)

# No request's path: who holds it is the one process of the node that works in the background.
_WORKER = "unverified/"
_KEY_SECONDS = 60.0
# While the database is silent the pause doubles, up to this many times its length.
_MAX_SLOWDOWN = 16


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

    Each worker process has one; the one that gets the lock works, and when its process ends
    another takes over. What is to be done is in the store, so nothing is lost with a process.
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
        self._pause_seconds = pause_seconds
        self._file_seconds = 1 / files_per_second
        self._unknown: Recent[bool] = Recent(seconds=unknown_seconds)
        self._failed: set[str] = set()
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="reverifier", daemon=True)

    def start(self) -> None:
        """Begin, in a thread of this process."""
        self._thread.start()

    def stop(self) -> None:
        """End after the file at hand."""
        self._stopped.set()
        self._thread.join()

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
            if self._stopped.wait(self._file_seconds):
                break
        return True

    def _run(self) -> None:
        while self._pause():
            try:
                with self._store.lock(_WORKER, wait_seconds=0):
                    self._work()
            except LockTimeoutError:
                continue
            except StoreError as error:
                log.warning("nothing is verified in the background: %s", error)

    def _work(self) -> None:
        slowdown = 1
        while self._pause(slowdown):
            slowdown = 1 if self._sweep_safely() else min(2 * slowdown, _MAX_SLOWDOWN)

    def _sweep_safely(self) -> bool:
        try:
            return self.sweep()
        except StoreError as error:
            log.warning("a file that is not verified cannot be judged: %s", error)
        except Exception:
            # This thread is the only one that takes the marks away: it must outlive a bad file.
            log.exception("a file that is not verified cannot be judged")
        return False

    def _pause(self, times: int = 1) -> bool:
        """Wait, unevenly so that processes spread; tell whether to go on."""
        spread = 0.5 + random.random()  # noqa: S311 - only spreads
        return not self._stopped.wait(self._pause_seconds * times * spread)
