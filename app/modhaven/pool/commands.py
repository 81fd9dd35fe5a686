"""``modhaven pool``: the daemon, and what people and playbooks ask of it."""

from __future__ import annotations

import dataclasses
import json
import logging
import os
import signal
import socket
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from modhaven.checks import ConfigError
from modhaven.pool import manager, nginx, settings, status
from modhaven.pool.drains import Drains

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable

    from modhaven.pool.status import PoolStatus, ServerStatus

_PATHS = manager.Paths()
_POLL_SECONDS = 0.2
# How long the manager may take to act on what somebody asked of it: reloads have a pause.
_ACT_SECONDS = 15.0


def add(commands: argparse._SubParsersAction[Any]) -> None:
    """Add ``pool`` to the command."""
    pool = commands.add_parser(
        "pool",
        help="which backends an edge asks",
        description="The pool of backends of this edge: see it, take backends out, let them in.",
    ).add_subparsers(required=True, metavar="COMMAND")

    def command(
        name: str, run: Callable[[argparse.Namespace], int], text: str
    ) -> argparse.ArgumentParser:
        parser: argparse.ArgumentParser = pool.add_parser(
            name, help=text, description=f"{text[0].upper()}{text[1:]}."
        )
        parser.set_defaults(run=run)
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
            "--wait", type=float, default=60.0, metavar="SECONDS", help="how long (default: 60)"
        )
        if name == "drain":
            parser.add_argument("--reason", default="by hand", help="what status shows")
    settle = command("settle", _settle, "wait until nginx has the pool of pool.yml")
    settle.add_argument(
        "--wait", type=float, default=30.0, metavar="SECONDS", help="how long (default: 30)"
    )
    check = command("check", _check, "check a pool.yml")
    check.add_argument("file", type=Path, metavar="FILE")
    command("render", _render, "give nginx a pool of all backends where it has none yet")
    daemon = command("run", _run, "run the pool manager (systemd does)")
    daemon.add_argument(
        "--nginx-status", type=int, default=8445, metavar="PORT",
        help="port of nginx's stub_status on 127.0.0.1 (default: 8445)",
    )  # fmt: skip


def _status(options: argparse.Namespace) -> int:
    told = _told()
    if options.json:
        _say(json.dumps(dataclasses.asdict(told), indent=2))
    else:
        _say(status.table(told, now=time.time()).rstrip())
    return 0


def _drain(options: argparse.Namespace) -> int:
    name = options.backend
    known = _server(_told(), name)
    asked = [server.name for server in _told().servers if server.asked and server.name != name]
    if not asked:
        raise ConfigError(
            f"{name} is the only backend that is asked: nobody would answer without it; "
            "undrain another one first"
        )
    new = Drains(_PATHS.drained).add(name, options.reason)
    _say(f"{name} is {'drained' if new else 'drained already'}: no new requests go there")
    if not _wait(_ACT_SECONDS, lambda told: told.published and not _server(told, name).asked):
        return _failed(f"nginx has not got the pool without {name}: see modhaven pool status")
    if known.state == "down" or _server(_told(), name).in_flight is None:
        _say(f"{name} does not answer, so nothing is waited for")
        return 0
    if not _wait(options.wait, lambda told: not _server(told, name).in_flight):
        left = _server(_told(), name).in_flight
        return _failed(f"{name} still works on {left} requests after {options.wait:g} s")
    _say(f"{name} has answered all it was asked")
    return 0


def _undrain(options: argparse.Namespace) -> int:
    name = options.backend
    _server(_told(), name)
    if not Drains(_PATHS.drained).remove(name):
        _say(f"{name} was not drained")
    if not _wait(options.wait, lambda told: told.published and _server(told, name).asked):
        server = _server(_told(), name)
        return _failed(f"{name} is not asked: it is {server.state}, {server.error}")
    _say(f"{name} is asked again")
    return 0


def _settle(options: argparse.Namespace) -> int:
    names = [server.name for server in settings.load(_PATHS.config).servers]

    def settled(told: PoolStatus) -> bool:
        # Who joins and has not answered yet may be asked in a moment.
        waiting = [one for one in told.servers if one.state == "joining" and not one.error]
        return told.published and not waiting and [one.name for one in told.servers] == names

    if not _wait(options.wait, settled):
        _say(status.table(_told(), now=time.time()).rstrip())
        return _failed(f"nginx has not got the pool of {_PATHS.config} after {options.wait:g} s")
    _say("nginx has the pool of the inventory")
    return 0


def _check(options: argparse.Namespace) -> int:
    settings.load(options.file)
    return 0


def _render(_options: argparse.Namespace) -> int:
    try:
        new = manager.initial(_PATHS)
    except nginx.NginxError as error:
        return _failed(str(error))
    _say("the pool has all backends now" if new else "nginx has a pool already")
    return 0


def _run(options: argparse.Namespace) -> int:
    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(levelname)s %(message)s")
    address = ("127.0.0.1", options.nginx_status)
    daemon = manager.Manager(_PATHS, connections=lambda: nginx.connections(address))
    stopped = threading.Event()

    def stop(_signal: int, _frame: object) -> None:
        stopped.set()
        daemon.wake()

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    _notify("READY=1")
    daemon.run(stopped=stopped, alive=lambda: _notify("WATCHDOG=1"))
    return 0


def _told() -> PoolStatus:
    told = status.read(_PATHS.status)
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


def _wait(seconds: float, reached: Callable[[PoolStatus], bool]) -> bool:
    end = time.monotonic() + seconds
    # What is told now may have been written before the manager looked.
    asked_at = time.time()
    while True:
        told = _told()
        if told.time > asked_at and reached(told):
            return True
        if time.monotonic() > end:
            return False
        time.sleep(_POLL_SECONDS)


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
