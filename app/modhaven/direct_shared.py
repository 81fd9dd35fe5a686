"""What every ``direct`` of a process shares: places for children, calls' folders, repositories."""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import secrets
import shutil
import threading
from typing import TYPE_CHECKING

from modhaven.attempt import AttemptError
from modhaven.direct_cache import Repositories

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from modhaven.attempt import Deadline
    from modhaven.config import Config

log = logging.getLogger(__name__)
# How long a request waits for others' go commands to end.
_PLACE_SECONDS = 15.0


class Shared:
    """The places, and the folder ``direct`` of the store."""

    def __init__(self, config: Config) -> None:
        """Make nothing before the first call."""
        self.config = config
        self.folder = config.store.path / "direct"
        longest = max(
            [config.upstream_timeouts.total_seconds]
            + [spec.total_seconds or 0 for spec in config.upstreams if spec.is_direct]
        )
        self.repositories = Repositories(
            self.folder / "vcs",
            max_bytes=config.direct.cache_max_bytes,
            busy_seconds=longest,
        )
        self._calls = self.folder / "calls"
        self._places = threading.BoundedSemaphore(config.direct.processes)
        self._swept = False

    @contextlib.contextmanager
    def place(self, end: Deadline) -> Iterator[None]:
        """Hold one of the places for a child; AttemptError when none is free in time."""
        wait = min(_PLACE_SECONDS, end.left)
        if not self._places.acquire(timeout=wait):
            count = self.config.direct.processes
            raise AttemptError(
                f"no free place in {wait:.0f} s: all {count} go commands of this process are at"
                " work (direct.processes)"
            )
        try:
            yield
        finally:
            self._places.release()

    @contextlib.contextmanager
    def call(self) -> Iterator[Path]:
        """Make a folder for one call, and remove it; OSError."""
        self._calls.mkdir(parents=True, exist_ok=True)
        folder = self._calls / secrets.token_hex(8)
        with _locked(self._calls):
            if not self._swept:
                self._swept = True
                self._remove_leftovers()
            folder.mkdir()
            # Held as long as the call: whoever can get it may remove the folder.
            lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            fcntl.flock(lock, fcntl.LOCK_EX)
        try:
            yield folder
        finally:
            try:
                shutil.rmtree(folder)
                self.repositories.trim_if_due()
            except OSError as error:
                # The answer is good all the same; what is left is removed by the next process.
                log.warning("%s cannot be cleaned up: %s", folder, error)
            finally:
                os.close(lock)

    def _remove_leftovers(self) -> None:
        """Remove the folders of calls whose process died."""
        for folder in self._calls.iterdir():
            # A call of another process may end just now, and remove its own.
            with contextlib.suppress(FileNotFoundError):
                lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
                try:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    shutil.rmtree(folder)
                except BlockingIOError:
                    continue
                finally:
                    os.close(lock)


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
    finally:
        os.close(lock)
