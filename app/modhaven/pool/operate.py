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
from modhaven.pool.drains import Drains, normal

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Container

    from modhaven.pool.paths import Paths
    from modhaven.pool.status import PoolStatus, ServerStatus

_POLL_SECONDS = 0.2
# How long the manager may take to act on what somebody asked of it, beside the pause of reloads.
_ACT_SECONDS = 15.0
# How long one that died may take to be there again.
_START_SECONDS = 5.0


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
    name, drains = options.backend, Drains(paths.drained)
    told = _told(paths)
    _server(told, name)
    # Two at once, each of the only other one that is ready, would leave nobody.
    with drains.alone():
        marked = drains.all()
        if name not in marked:
            _refuse_the_last(told, name, marked)
        new = drains.add(name, options.reason)
        mark = drains.all().get(name)

    def is_let_in() -> bool:
        return mark is None or drains.all().get(name) != mark

    def is_out(seen: PoolStatus) -> bool:
        return seen.published and not _is_in(seen, name)

    act_seconds = _ACT_SECONDS + told.reload_seconds
    if (new or not is_out(told)) and not _wait(
        paths, act_seconds, lambda seen: is_let_in() or is_out(seen)
    ):
        return failed(
            f"nginx has not got the pool without {name} after {act_seconds:g} s: see modhaven pool "
            f"status; it stays drained, and modhaven pool undrain {name} lets it in again"
        )
    if is_let_in():
        return failed(f"{name} was let in again meanwhile")
    say(f"{name} is {'drained' if new else 'drained already'}: no new requests go there")
    return _wait_until_idle(paths, name, options.wait, is_let_in) if options.wait else 0


def _refuse_the_last(told: PoolStatus, name: str, marked: Container[str]) -> None:
    """Raise ConfigError where nobody would answer without a backend."""
    left = [
        one
        for one in told.servers
        if _is_in(told, one.name) and one.name != name and one.name not in marked
    ]
    # Others that are asked although they are down would not answer.
    if not any(one.ready or not _server(told, name).ready for one in left):
        raise ConfigError(
            f"{name} is the only backend that is ready: nobody would answer without it; "
            "undrain or repair another one first"
        )


def _wait_until_idle(paths: Paths, name: str, seconds: float, is_let_in: Callable[[], bool]) -> int:
    nginx_has_it_at = time.time()

    def is_asked(seen: PoolStatus) -> bool:
        return is_let_in() or _is_in(seen, name)

    def is_over(seen: PoolStatus) -> bool:
        # An older figure knows nothing of requests that came until nginx had the pool.
        server = _server(seen, name)
        works_on_nothing = server.in_flight == 0 or (server.gone and not server.ready)
        return is_asked(seen) or (server.in_flight_at > nginx_has_it_at and works_on_nothing)

    seen = _wait(paths, seconds, is_over)
    if is_let_in() or (seen is not None and is_asked(seen)):
        return failed(f"{name} was let in again meanwhile: it may work on requests")
    server = _server(seen or _told(paths), name)
    why = f" ({server.error})" if server.error and not server.ready else ""
    if seen is None and server.in_flight is None:
        return failed(
            f"{name} is drained, but does not say what it works on{why}: wait for yourself"
        )
    if seen is None:
        return failed(f"{name} still works on {server.in_flight} requests after {seconds:g} s")
    if server.in_flight is None:
        say(f"{name} answers nobody{why}: there is nothing to wait for")
    else:
        say(f"{name} has answered all it was asked")
    return 0


def undrain(options: argparse.Namespace, paths: Paths) -> int:
    """Let a backend in, wait until it is asked and ready; 1 when that is not reached in time."""
    name = options.backend
    told = _told(paths)
    drains = Drains(paths.drained)
    found = drains.all().get(name)
    if options.reason and found is not None and found.reason != normal(options.reason):
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

    def is_asked(seen: PoolStatus) -> bool:
        # Who is asked although it is down does not answer.
        return seen.published and _is_in(seen, name) and _server(seen, name).ready

    if not _wait(paths, options.wait, is_asked):
        return failed(_why_not_asked(_told(paths), name, options.wait))
    say(f"{name} is asked{' again' if removed else ''}")
    return 0


def _why_not_asked(told: PoolStatus, name: str, seconds: float) -> str:
    server = _server(told, name)
    state = f"it is {server.state}" + (f" ({server.error})" if server.error else "")
    if not _is_in(told, name):
        return f"{name} is not asked after {seconds:g} s: {state}"
    if not server.ready:
        return (
            f"{name} is not ready after {seconds:g} s, and asked all the same, since too few would "
            f"be left: {state}"
        )
    return f"nginx has not got the pool with {name}: see modhaven pool status"


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
    end = time.monotonic() + _START_SECONDS
    while (told := status.read(paths.status)) is None or told.is_old:
        if time.monotonic() > end:
            raise ConfigError(
                "the pool manager does not run on this host: see systemctl status modhaven-pool; "
                "nginx goes on with the last pool it had"
            )
        time.sleep(_POLL_SECONDS)
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
