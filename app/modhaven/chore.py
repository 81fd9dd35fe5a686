"""Work in the background that one process of a node does for all: whoever gets the lock."""

from __future__ import annotations

import logging
import random
import threading
from typing import TYPE_CHECKING

from modhaven.store.base import LockTimeoutError, StoreError

if TYPE_CHECKING:
    from collections.abc import Callable

    from modhaven.store.base import Store

log = logging.getLogger(__name__)
_MAX_SLOWDOWN = 16


class Chore:
    """Calls ``turn`` again and again; when the process that does it ends, another takes over.

    What is to be done is in the store, so nothing is lost with a process.
    """

    def __init__(
        self,
        name: str,
        *,
        store: Store,
        turn: Callable[[], bool],
        pause_seconds: float,
    ) -> None:
        """Nothing runs until ``start``. Between two turns ``pause_seconds`` pass.

        While ``turn`` returns False, or fails, the pause doubles, up to sixteen times its length.
        ``name`` is the lock's, and no request's path.
        """
        self._name = name
        self._store = store
        self._turn = turn
        self._pause_seconds = pause_seconds
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        """Begin, in a thread of this process."""
        self._thread.start()

    def stop(self) -> None:
        """End after the turn at hand."""
        self._stopped.set()
        self._thread.join()

    def wait(self, seconds: float) -> bool:
        """Wait inside a turn; tell whether to go on."""
        return not self._stopped.wait(seconds)

    def _run(self) -> None:
        while True:
            try:
                with self._store.lock(self._name, wait_seconds=0):
                    self._work()
            except LockTimeoutError:
                pass
            except StoreError as error:
                log.warning("%s: nothing is done in the background: %s", self._name, error)
            if not self._pause(1):
                return

    def _work(self) -> None:
        slowdown = 1
        while True:
            slowdown = 1 if self._turn_safely() else min(2 * slowdown, _MAX_SLOWDOWN)
            if not self._pause(slowdown):
                return

    def _turn_safely(self) -> bool:
        try:
            return self._turn()
        except StoreError as error:
            log.warning("%s: %s", self._name, error)
        except Exception:
            # Nobody else does this work while this thread holds the lock: it must go on.
            log.exception("%s", self._name)
        return False

    def _pause(self, times: int) -> bool:
        """Wait, unevenly so that processes spread; tell whether to go on."""
        spread = 0.5 + random.random()  # noqa: S311 - only spreads
        return self.wait(self._pause_seconds * times * spread)
