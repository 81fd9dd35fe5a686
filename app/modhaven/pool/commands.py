"""``modhaven pool``: the daemon, and what people and playbooks ask of it."""

from __future__ import annotations

import argparse
import fcntl
import itertools
import logging
import os
import signal
import socket
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

from modhaven.checks import ConfigError
from modhaven.pool import nginx, operate, settings
from modhaven.pool.paths import Paths

if TYPE_CHECKING:
    from collections.abc import Callable


def add(commands: argparse._SubParsersAction[Any]) -> None:
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
        parser: argparse.ArgumentParser = actions.add_parser(
            name, help=text, description=f"{text[0].upper()}{text[1:]}."
        )
        parser.set_defaults(run=lambda options: _run_command(run, options))
        return parser

    show = command("status", operate.show, "show every backend's state")
    show.add_argument("--json", action="store_true", help="for programs")
    for name, run, text in (
        (
            "drain",
            operate.drain,
            "send no new requests to a backend, and wait until it has answered all",
        ),
        (
            "undrain",
            operate.undrain,
            "let a drained backend in again, and wait until it is asked and ready",
        ),
    ):
        parser = command(name, run, text)
        parser.add_argument("backend", metavar="BACKEND", help="its name in the inventory")
        parser.add_argument(
            "--wait", type=_seconds, default=60.0, metavar="SECONDS",
            help="how long; 0 does not wait for that (default: 60)",
        )  # fmt: skip
        parser.add_argument(
            "--reason",
            default="by hand" if name == "drain" else "",
            help="what status shows" if name == "drain" else "only if it was drained for this",
        )
    settle = command("settle", operate.settle, "wait until nginx has the pool of pool.yml")
    settle.add_argument(
        "--wait", type=_seconds, default=30.0, metavar="SECONDS", help="how long (default: 30)"
    )
    check = command("check", _check, "check a pool.yml")
    check.add_argument("file", type=Path, metavar="FILE")
    command("render", _render, "give nginx a pool where it has none yet")
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
        return operate.failed(str(error))
    except PermissionError as error:
        return operate.failed(f"{error.filename} may not be written: run this as root")
    except OSError as error:
        return operate.failed(
            f"{error.filename}: {error.strerror}" if error.filename else str(error)
        )


def _render(_options: argparse.Namespace, paths: Paths) -> int:
    # It loads prometheus-client, which decides then whether the workers of `serve` share counters.
    from modhaven.pool import manager  # noqa: PLC0415 - as above

    new = manager.initial(paths)
    operate.say("nginx has a pool now" if new else "nginx has a pool already")
    return 0


def _check(options: argparse.Namespace, _paths: Paths) -> int:
    settings.load(options.file)
    return 0


def _run(options: argparse.Namespace, paths: Paths) -> int:
    from modhaven.pool import manager  # noqa: PLC0415 - as above

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
        # Ready when it has told how the pool is: whoever waited for it asks that next.
        messages = itertools.chain(["READY=1"], itertools.repeat("WATCHDOG=1"))
        daemon.run(stopped=stopped, alive=lambda: _notify(next(messages)))
    return 0


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds < float("inf"):
        raise argparse.ArgumentTypeError(f"must be a number of seconds, not {text}")
    return seconds


def _notify(message: str) -> None:
    """Tell systemd (sd_notify(3)); nothing where it does not listen."""
    path = os.environ.get("NOTIFY_SOCKET", "")
    if path:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as told:
            told.sendto(message.encode(), "\0" + path[1:] if path.startswith("@") else path)
