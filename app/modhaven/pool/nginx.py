"""The pool's file of this edge's nginx: rendered, checked as a whole, swapped in, loaded."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING

import jinja2

from modhaven.pool import files, names

if TYPE_CHECKING:
    from modhaven.pool.plan import Plan
    from modhaven.pool.settings import Limits

_CHECK_SECONDS = 10.0
_RELOAD_SECONDS = 10.0
_STATUS_SECONDS = 1.0
_POLL_SECONDS = 0.02
_ACTIVE = re.compile(rb"Active connections: (\d+)")
_WAITING = re.compile(rb"Waiting: (\d+)")


class NginxError(Exception):
    """nginx refused the pool, or did not load it; what it had before is in place."""


def render(template: Path, plan: Plan, limits: Limits) -> str:
    """Return the text of upstream.conf. Raises NginxError when the template is broken."""
    environment = jinja2.Environment(
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,  # noqa: S701 - nginx's configuration, not HTML
    )
    environment.filters["host_of_url"] = names.host_of_url
    try:
        text = template.read_text(encoding="utf-8")
        return environment.from_string(text).render(plan=plan, limits=limits)
    except Exception as error:  # a template may do anything
        raise NginxError(f"{template} cannot be rendered: {error}") from error


class Nginx:
    """nginx of this host, whose configuration is below ``root``."""

    def __init__(self, root: Path, pid_file: Path) -> None:
        """``root`` is /etc/nginx, ``pid_file`` what nginx itself writes."""
        self._root = root
        self._pid_file = pid_file
        self._tree = root / "modhaven"
        self.file = root / "modhaven.pool" / "upstream.conf"
        # There while nginx may not have loaded the file: it did not run, or was starting, or the
        # manager ended between the two steps.
        self._due = root / "modhaven.pool" / "reload-is-due"

    def live(self) -> str:
        """Return the text that is in place, empty where there is none. NginxError."""
        try:
            return self.file.read_text(encoding="utf-8", errors="replace")
        except FileNotFoundError:
            return ""
        except OSError as error:
            raise NginxError(f"{self.file} cannot be read: {error}") from error

    @property
    def reload_is_due(self) -> bool:
        """Whether nginx may not have loaded what is in place."""
        return self._due.exists()

    def publish(self, text: str) -> bool:
        """Check ``text``, swap it in, make nginx load it; tell whether nginx runs.

        Raises NginxError, with what was in place before still, or again, in place.
        """
        before = self.live()
        try:
            self._check(text)
            self._due.parent.mkdir(parents=True, exist_ok=True)
            if self._tree.exists():
                self._due.touch()
            files.replace(self.file, text, durable=True)
        except OSError as error:
            raise NginxError(f"the pool's file cannot be written: {error}") from error
        try:
            return self.reload()
        except NginxError:
            if before:
                files.replace(self.file, before, durable=True)
            raise

    def reload(self) -> bool:
        """Make nginx load what is in place, wait until it has, tell whether it runs. NginxError.

        One that ends meanwhile does not run; who starts it anew has it read the file.
        """
        main = self._main()
        if main is None:
            # It loads the file when it starts.
            return False
        before = self._workers(main)
        try:
            os.kill(main, signal.SIGHUP)
        except ProcessLookupError:
            return False
        except PermissionError:
            raise NginxError(
                f"nginx (process {main}) may not be told to reload: not root"
            ) from None
        end = time.monotonic() + _RELOAD_SECONDS
        while not self._workers(main) - before:
            if self._ends(main, before):
                return False
            if time.monotonic() > end:
                raise NginxError(
                    f"nginx started no new worker within {_RELOAD_SECONDS:g} s of its reload: "
                    "/var/log/nginx/error.log says why"
                )
            time.sleep(_POLL_SECONDS)
        # They accept connections for a moment longer, and ask whom they always asked.
        while any(map(_accepts, before)) and time.monotonic() < end:
            time.sleep(_POLL_SECONDS)
        self._due.unlink(missing_ok=True)
        return True

    def _check(self, text: str) -> None:
        """Let nginx judge the live configuration with ``text`` in the place of the pool's file."""
        if not self._tree.exists():
            # Before the first deployment of the edge there is nothing to judge it with.
            return
        # Includes are relative to the file that -c names: the same tree, seen from another folder.
        stage = self._root / "modhaven.pool.check"
        (stage / "modhaven.pool").mkdir(parents=True, exist_ok=True)
        files.replace(stage / "modhaven.pool" / "upstream.conf", text)
        link = stage / "modhaven"
        if not link.is_symlink():
            link.symlink_to("../modhaven")
        files.replace(stage / "nginx.conf", (self._root / "nginx.conf").read_text(encoding="utf-8"))
        command = ("nginx", "-t", "-q", "-c", str(stage / "nginx.conf"))
        try:
            done = subprocess.run(  # noqa: S603 - fixed words
                command, capture_output=True, text=True, check=False, timeout=_CHECK_SECONDS
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise NginxError(f"{' '.join(command)} did not end: {error}") from error
        if done.returncode != 0:
            raise NginxError(f"nginx -t refused the pool: {' '.join(done.stderr.split())}")

    def _main(self) -> int | None:
        try:
            main = int(self._pid_file.read_text())
            # What a killed nginx left behind may name another process by now.
            name = Path(f"/proc/{main}/comm").read_text()
        except (FileNotFoundError, ProcessLookupError, ValueError):
            return None
        except OSError as error:
            raise NginxError(f"{self._pid_file} cannot be read: {error}") from error
        return main if name == "nginx\n" else None

    def _ends(self, main: int, before: set[str]) -> bool:
        """Tell whether nginx ends, or has, in place of a reload: nobody takes connections."""
        # In a reload the new workers are there before the old ones are told to end.
        accepts = any(map(_accepts, before)) or self._workers(main) - before
        return not accepts or self._main() != main

    @staticmethod
    def _workers(main: int) -> set[str]:
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            return set(Path(f"/proc/{main}/task/{main}/children").read_text().split())
        return set()


def _accepts(worker: str) -> bool:
    """Tell whether a worker takes new connections; nginx writes into its title when it does not."""
    try:
        title = Path(f"/proc/{worker}/cmdline").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return b"worker process" in title and b"shutting down" not in title


def connections(address: tuple[str, int]) -> int | None:
    """Return how many connections nginx works on, from its stub_status; None when it is silent."""
    with contextlib.suppress(OSError), socket.create_connection(address, _STATUS_SECONDS) as asked:
        asked.sendall(b"GET / HTTP/1.0\r\nHost: localhost\r\n\r\n")
        answer = b"".join(iter(lambda: asked.recv(4096), b""))
        return in_flight(answer)
    return None


def in_flight(stub_status: bytes) -> int | None:
    """Return the connections with a request in them, less the one that asks; None: no such page."""
    active, waiting = _ACTIVE.search(stub_status), _WAITING.search(stub_status)
    if active is None or waiting is None:
        return None
    return max(0, int(active[1]) - int(waiting[1]) - 1)
