"""Sees every file and every connection that this process touches, by CPython's audit events."""

from __future__ import annotations

import functools
import os
import sys
from pathlib import Path
from typing import Any

# How many of an event's first arguments are paths. An event of these families that is not here is
# not expected of the application at all.
_PATHS = {
    "open": 1, "os.mkdir": 1, "os.rename": 2, "os.remove": 1, "os.rmdir": 1, "os.listdir": 1,
    "os.scandir": 1, "os.utime": 1, "os.walk": 1, "os.fwalk": 1, "pathlib.Path.glob": 1,
    "pathlib.Path.rglob": 1,
}  # fmt: skip
_FAMILIES = ("open", "os.", "pathlib.", "shutil.", "tempfile.", "subprocess.", "pty.", "ctypes.")
# What looks at a file without an audit event.
_SILENT = ("stat", "lstat", "access", "readlink", "statvfs")


class Watch:
    """Keeps in ``seen`` what was touched that is not below ``root``.

    Files of ``may_look_at`` may be looked at, not opened; connections may go to ``port`` of
    loopback.
    """

    def __init__(self, *, root: Path, may_look_at: set[Path], port: int) -> None:
        self.seen: list[str] = []
        self._root = str(root)
        self._may_look_at = may_look_at
        self._port = port
        self._on = False
        sys.addaudithook(self._hook)
        for name in _SILENT:
            setattr(os, name, self._watched(name))

    def begin(self) -> None:
        self._on = True

    def end(self) -> None:
        self._on = False

    def _hook(self, event: str, args: tuple[Any, ...]) -> None:
        if not self._on:
            return
        if event == "socket.connect":
            if args[1] != ("127.0.0.1", self._port):
                self.seen.append(f"{event} {args[1]!r}")
        elif event.startswith(_FAMILIES):
            for path in args[: _PATHS.get(event, 0)]:
                self._check(event, path)
            if event not in _PATHS:
                self.seen.append(f"{event} {args!r}")

    def _watched(self, name: str) -> Any:
        real = getattr(os, name)

        @functools.wraps(real)
        def watched(path: Any, *args: Any, **options: Any) -> Any:
            if self._on and not (isinstance(path, (str, Path)) and Path(path) in self._may_look_at):
                self._check(name, path)
            return real(path, *args, **options)

        return watched

    def _check(self, event: str, path: Any) -> None:
        if isinstance(path, int):
            return
        text = os.fsdecode(path)
        # As the kernel resolves it; the store has no links.
        inside = text == self._root or text.startswith(self._root + "/")
        if not inside or os.path.normpath(text) != text or "\0" in text:
            self.seen.append(f"{event} {text!r}")
