"""``modhaven pool``: the daemon, and what people and playbooks ask of it."""

from __future__ import annotations

import argparse
import dataclasses
import fcntl
import json
import logging
import os
import shutil
import signal
import socket
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

from modhaven.checks import ConfigError
from modhaven.pool import manager, nginx, status
from modhaven.pool.drains import Drains
from modhaven.pool.manager import Paths

if TYPE_CHECKING:
    from collections.abc import Callable

    from modhaven.pool.status import PoolStatus, ServerStatus

_POLL_SECONDS = 0.2
# How long the manager may take to act on what somebody asked of it: reloads have a pause.
_ACT_SECONDS = 15.0


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add ``pool`` to the command."""
    pool = commands.add_parser(
        "pool",
        help="which backends an edge asks",
        description="The pool of backends of this edge: see it, take backends out, let them in.",
    )
    pool.add_argument(
        "--root", type=Path, default=Path("/"), metavar="FOLDER",
        help="find pool.yml, nginx and the state below this folder (default: /)",
    )  # fmt: skip
    actions = pool.add_subparsers(required=True, metavar="COMMAND")

    def command(
        name: str, run: Callable[[argparse.Namespace, Paths], int], text: str
    ) -> argparse.ArgumentParser:
        parser = actions.add_parser(name, help=text, description=f"{text[0].upper()}{text[1:]}.")
        parser.set_defaults(run=lambda options: _run_command(run, options))
        return parser

    show = command("status", _status, "show every backend's state")
    show.add_argument("--json", action="store_true", help="for programs")
    for name, run, text in (
        ("drain", _drain, "send no new requests to a backend, and wait until it has answered all"),
        ("undrain", _undrain, "let a drained backend in again, and wait until it is asked"),
    ):
        parser = command(name, run, text)
        parser.add_argument("backend", metavar="BACKEND", help="its name in the inventory")
        parser.add_argument(
            "--wait", type=_seconds, default=60.0, metavar="SECONDS",
            help="how long; 0 does not wait for that (default: 60)",
        )  # fmt: skip
        if name == "drain":
            parser.add_argument("--reason", default="by hand", help="what status shows")
    command("render", _render, "give nginx a pool of all backends where it has none yet")
    daemon = command("run", _run, "run the pool manager (systemd does)")
    daemon.add_argument(
        "--nginx-status", type=int, default=8445, metavar="PORT",
        help="port of nginx's stub_status on 127.0.0.1 (default: 8445)",
    )  # fmt: skip


def _run_command(
    run: Callable[[argparse.Namespace, Paths], int], options: argparse.Namespace
) -> int:
    try:
        return run(options, Paths.below(options.root))
    except nginx.NginxError as error:
        return _failed(str(error))
    except PermissionError as error:
        return _failed(f"{error.filename} may not be written: run this as root")
    except OSError as error:
        return _failed(f"{error.filename}: {error.strerror}")


def _status(options: argparse.Namespace, paths: Paths) -> int:
    told = _told(paths)
    if options.json:
        _say(json.dumps(dataclasses.asdict(told), indent=2))
    else:
        width = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
        _say(status.table(told, now=time.time(), width=width).rstrip())
    return 0


def _drain(options: argparse.Namespace, paths: Paths) -> int:
    name = options.backend
    told = _told(paths)
    known = _server(told, name)
    others = [one for one in told.servers if one.asked and one.name != name]
    # Others that are asked although they are down would not answer.
    if known.state != "drained" and not any(one.ready or not known.ready for one in others):
        raise ConfigError(
            f"{name} is the only backend that is ready: nobody would answer without it; "
            "undrain or repair another one first"
        )
    new = Drains(paths.drained).add(name, options.reason)
    without = _wait(paths, _ACT_SECONDS, lambda seen: seen.published and not _asked(seen, name))
    if without is None:
        return _failed(f"nginx has not got the pool without {name}: see modhaven pool status")
    _say(f"{name} is {'drained' if new else 'drained already'}: no new requests go there")
    if not options.wait:
        return 0

    def is_idle(seen: PoolStatus) -> bool:
        # An older figure knows nothing of requests that came until nginx had the pool.
        server = _server(seen, name)
        return server.in_flight_at > without.time and not server.in_flight

    idle = _wait(paths, options.wait, is_idle)
    if idle is None:
        left = _server(_told(paths), name).in_flight
        return _failed(f"{name} still works on {left} requests after {options.wait:g} s")
    if _server(idle, name).in_flight is None:
        _say(f"{name} does not say what it works on ({_server(idle, name).error or 'no status'})")
    else:
        _say(f"{name} has answered all it was asked")
    return 0


def _undrain(options: argparse.Namespace, paths: Paths) -> int:
    name = options.backend
    told = _told(paths)
    removed = Drains(paths.drained).remove(name)
    if removed and told.server(name) is None:
        _say(f"{name} is in this pool no more; that it was drained is forgotten")
        return 0
    _server(told, name)
    _say(f"{name} is no longer drained" if removed else f"{name} was not drained")
    if not options.wait:
        return 0
    if not _wait(paths, options.wait, lambda seen: seen.published and _asked(seen, name)):
        told = _told(paths)
        if _asked(told, name):
            return _failed(f"nginx has not got the pool with {name}: see modhaven pool status")
        server = _server(told, name)
        why = f" ({server.error})" if server.error else ""
        return _failed(f"{name} is not asked after {options.wait:g} s: it is {server.state}{why}")
    _say(f"{name} is asked again")
    return 0


def _render(_options: argparse.Namespace, paths: Paths) -> int:
    new = manager.initial(paths)
    _say("the pool has all backends now" if new else "nginx has a pool already")
    return 0


def _run(options: argparse.Namespace, paths: Paths) -> int:
    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(levelname)s %(message)s")
    address = ("127.0.0.1", options.nginx_status)
    paths.status.parent.mkdir(parents=True, exist_ok=True)
    with (paths.status.parent / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ConfigError("another pool manager runs on this host already") from None
        daemon = manager.Manager(paths, connections=lambda: nginx.connections(address))
        stopped = threading.Event()

        def stop(_signal: int, _frame: object) -> None:
            stopped.set()

        signal.signal(signal.SIGTERM, stop)
        signal.signal(signal.SIGINT, stop)
        _notify("READY=1")
        daemon.run(stopped=stopped, alive=lambda: _notify("WATCHDOG=1"))
    return 0


def _told(paths: Paths) -> PoolStatus:
    told = status.read(paths.status)
    if told is None or told.is_old:
        raise ConfigError(
            "the pool manager does not run on this host: see systemctl status modhaven-pool; "
            "nginx goes on with the last pool it had"
        )
    return told


def _server(told: PoolStatus, name: str) -> ServerStatus:
    server = told.server(name)
    if server is None:
        known = ", ".join(one.name for one in told.servers)
        raise ConfigError(f"{name} is no backend of this pool; these are {known}")
    return server


def _asked(told: PoolStatus, name: str) -> bool:
    return _server(told, name).asked


def _wait(paths: Paths, seconds: float, reached: Callable[[PoolStatus], bool]) -> PoolStatus | None:
    end = time.monotonic() + seconds
    # What is told now may have been written before the manager looked.
    asked_at = time.time()
    while True:
        told = _told(paths)
        if told.time > asked_at and reached(told):
            return told
        if time.monotonic() > end:
            return None
        time.sleep(_POLL_SECONDS)


def _seconds(text: str) -> float:
    seconds = float(text)
    if not 0 <= seconds < float("inf"):
        raise argparse.ArgumentTypeError(f"must be a number of seconds, not {text}")
    return seconds


def _notify(message: str) -> None:
    """Tell systemd (sd_notify(3)); nothing where it does not listen."""
    path = os.environ.get("NOTIFY_SOCKET", "")
    if path:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as told:
            told.sendto(message.encode(), "\0" + path[1:] if path.startswith("@") else path)


def _say(text: str) -> None:
    print(text, flush=True)  # noqa: T201 - a command's output


def _failed(text: str) -> int:
    print(f"modhaven: {text}", file=sys.stderr)  # noqa: T201 - a command's output
    return 1
