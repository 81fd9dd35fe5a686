"""What people and playbooks ask of the pool manager; they meet in files, not on a socket."""

from __future__ import annotations

import dataclasses
import json
import shutil
import sys
import time
from typing import TYPE_CHECKING

from modhaven.checks import ConfigError
from modhaven.pool import settings, status
from modhaven.pool.drains import Drains

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable

    from modhaven.pool.paths import Paths
    from modhaven.pool.status import PoolStatus, ServerStatus

_POLL_SECONDS = 0.2
# How long the manager may take to act on what somebody asked of it: reloads have a pause.
_ACT_SECONDS = 15.0


def show(options: argparse.Namespace, paths: Paths) -> int:
    """Print the table, or JSON."""
    told = _told(paths)
    if options.json:
        say(json.dumps(dataclasses.asdict(told), indent=2))
    else:
        width = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
        say(status.table(told, now=time.time(), width=width).rstrip())
    return 0


def drain(options: argparse.Namespace, paths: Paths) -> int:
    """Take a backend out and wait until it is idle; 1 when that is not reached in time."""
    name = options.backend
    told = _told(paths)
    known = _server(told, name)
    others = [one for one in told.servers if _is_in(told, one.name) and one.name != name]
    # Others that are asked although they are down would not answer.
    if known.state != "drained" and not any(one.ready or not known.ready for one in others):
        raise ConfigError(
            f"{name} is the only backend that is ready: nobody would answer without it; "
            "undrain or repair another one first"
        )
    new = Drains(paths.drained).add(name, options.reason)

    def is_out(seen: PoolStatus) -> bool:
        return seen.published and not _is_in(seen, name)

    if (new or not is_out(told)) and not _wait(paths, _ACT_SECONDS, is_out):
        return failed(f"nginx has not got the pool without {name}: see modhaven pool status")
    nginx_has_it_at = time.time()
    say(f"{name} is {'drained' if new else 'drained already'}: no new requests go there")
    if not options.wait:
        return 0

    def is_idle(seen: PoolStatus) -> bool:
        # An older figure knows nothing of requests that came until nginx had the pool.
        server = _server(seen, name)
        return server.in_flight_at > nginx_has_it_at and not server.in_flight

    idle = _wait(paths, options.wait, is_idle)
    if idle is None:
        left = _server(_told(paths), name).in_flight
        return failed(f"{name} still works on {left} requests after {options.wait:g} s")
    server = _server(idle, name)
    if server.in_flight is None and server.ready:
        return failed(f"{name} is drained, but does not say what it works on: wait for yourself")
    if server.in_flight is None:
        say(f"{name} does not say what it works on ({server.error or 'no status'})")
    else:
        say(f"{name} has answered all it was asked")
    return 0


def undrain(options: argparse.Namespace, paths: Paths) -> int:
    """Let a backend in and wait until it is asked; 1 when that is not reached in time."""
    name = options.backend
    told = _told(paths)
    drains = Drains(paths.drained)
    found = drains.all().get(name)
    if options.reason and found is not None and found.reason != options.reason:
        say(f"{name} stays drained: {found.reason}")
        return 0
    removed = drains.remove(name)
    if removed and told.server(name) is None:
        say(f"{name} is in this pool no more; that it was drained is forgotten")
        return 0
    _server(told, name)
    say(f"{name} is no longer drained" if removed else f"{name} was not drained")
    if not options.wait:
        return 0
    if not _wait(paths, options.wait, lambda seen: seen.published and _is_in(seen, name)):
        told = _told(paths)
        if _is_in(told, name):
            return failed(f"nginx has not got the pool with {name}: see modhaven pool status")
        server = _server(told, name)
        why = f" ({server.error})" if server.error else ""
        return failed(f"{name} is not asked after {options.wait:g} s: it is {server.state}{why}")
    say(f"{name} is asked{' again' if removed else ''}")
    return 0


def settle(options: argparse.Namespace, paths: Paths) -> int:
    """Wait until nginx has the pool of pool.yml; 1 when it has not in time."""
    names = [server.name for server in settings.load(paths.config).servers]

    def settled(told: PoolStatus) -> bool:
        # Who joins and has not answered yet may be asked in a moment.
        waiting = [one for one in told.servers if one.state == "joining" and not one.error]
        return told.published and not waiting and [one.name for one in told.servers] == names

    if not _wait(paths, options.wait, settled):
        say(status.table(_told(paths), now=time.time()).rstrip())
        return failed(f"nginx has not got the pool of {paths.config} after {options.wait:g} s")
    say("nginx has the pool of the inventory")
    return 0


def say(text: str) -> None:
    """Print a command's output."""
    print(text, flush=True)  # noqa: T201 - a command's output


def failed(text: str) -> int:
    """Say what went wrong; return the exit status for it."""
    print(f"modhaven: {text}", file=sys.stderr)  # noqa: T201 - a command's output
    return 1


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


def _is_in(told: PoolStatus, name: str) -> bool:
    """Tell whether nginx asks a backend, or would when it is needed."""
    server = _server(told, name)
    return server.asked or server.state == "resting"


def _wait(paths: Paths, seconds: float, reached: Callable[[PoolStatus], bool]) -> PoolStatus | None:
    end = time.monotonic() + seconds
    # Until then the manager may not have seen what was done before this was called.
    asked_at = time.time()
    while True:
        told = status.read(paths.status)
        # While it is started anew, the manager has nothing to tell.
        if told is not None and not told.is_old and told.time > asked_at and reached(told):
            return told
        if time.monotonic() > end:
            return None
        time.sleep(_POLL_SECONDS)
