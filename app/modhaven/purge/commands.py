"""``modhaven purge``: what a person or a playbook asks for, done on this host and written down."""

from __future__ import annotations

import json
import os
import pwd
import socket
import sys
import syslog
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from modhaven import config
from modhaven.checks import ConfigError
from modhaven.purge import backend, edge, host
from modhaven.purge.removed import Removed
from modhaven.selection import NEGATIVE, Selection
from modhaven.store.base import LockTimeoutError, StoreError
from modhaven.store.disk import DiskStore

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable

_ROLES = ("backend", "edge")
# As the server's: nginx reads through the store's group, others not at all.
_UMASK = 0o027
_TAG = "modhaven-purge"


def add(commands: argparse._SubParsersAction[Any]) -> None:
    """Add ``purge`` to the command."""
    parser = commands.add_parser(
        "purge",
        help="remove modules from this host's store and caches",
        usage="modhaven purge [OPTION]... MODULE[@VERSION] | --prefix PREFIX | --negative",
        description="Remove what this host keeps of one module version, one module, or all modules "
        "below a prefix, or every remembered 'not found', as if it had never been asked for: on a "
        "backend from the store and from what its workers remember, on an edge from nginx's cache "
        "zones. The next request fetches it anew. Run it as root on every backend, then on every "
        "edge (playbooks/purge.yml does): an edge that is first gets it from a backend again.",
        epilog="A version goes with its module's list, @latest, branches and commits, since they "
        "name it. A module goes without the modules below its path; a prefix covers whole path "
        "elements. Records of checksum databases and the quarantine stay. What was done, and who "
        f"did it: journalctl -t {_TAG}. Exit status 1 or 2, and a sentence, when it could not be "
        "done. Example: modhaven purge github.com/corp/lib@v1.2.3",
        allow_abbrev=False,
    )
    parser.set_defaults(run=_run)
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument(
        "module", nargs="?", metavar="MODULE[@VERSION]",
        help="a module as in go.mod, all its versions or one: github.com/corp/lib@v1.2.3",
    )  # fmt: skip
    what.add_argument(
        "--prefix", metavar="PREFIX",
        help="all modules whose paths begin with these elements: github.com/corp",
    )  # fmt: skip
    what.add_argument("--negative", action="store_true", help="every remembered 'not found'")
    parser.add_argument(
        "--pins", action="store_true",
        help="also what pins modules that no checksum database knows to their first use: other "
        "bytes are let in then",
    )  # fmt: skip
    parser.add_argument(
        "--dry-run", action="store_true", help="list what would be removed, and remove nothing"
    )
    parser.add_argument("--json", action="store_true", help="for programs")
    parser.add_argument("--only", choices=_ROLES, help="on a host that is both, one of them alone")
    parser.add_argument(
        "--config", type=Path, metavar="FILE",
        help=f"the backend's configuration file (default: /{host.BACKEND})",
    )  # fmt: skip
    parser.add_argument(
        "--root", type=Path, default=Path("/"), metavar="FOLDER",
        help="find the configurations below this folder (default: /)",
    )  # fmt: skip


def _run(options: argparse.Namespace) -> int:
    selection = _selection(options)
    if options.pins and selection.negative:
        raise ConfigError("--pins is for modules, and does not go with --negative")
    if os.geteuid() != 0 and options.config is None and options.root == Path("/"):
        raise ConfigError("a purge removes other users' files: run this as root (sudo)")
    parts = _parts(options, selection)
    removed = Removed(dry_run=options.dry_run)
    failure = None
    try:
        for part in parts:
            part(removed)
    except OSError as error:
        failure = f"{error.filename or 'a file'} cannot be purged: {error.strerror or error}"
    except (ConfigError, StoreError, LockTimeoutError) as error:
        failure = str(error)
    _write_down(selection, removed, failure)
    if options.json:
        said = {"host": socket.gethostname(), "purge": str(selection)} | removed.as_mapping()
        _say(json.dumps(said))
    else:
        verb = "would be removed" if options.dry_run else "removed"
        _say(f"{selection}: {verb} on {socket.gethostname()}\n{removed.table()}".rstrip())
    if failure is None:
        return 0
    begun = "; this host is purged in part, run it again" if removed.files else ""
    print(f"modhaven: {failure}{begun}", file=sys.stderr)  # noqa: T201 - a command's output
    return 1


def _selection(options: argparse.Namespace) -> Selection:
    if options.negative:
        return NEGATIVE
    if options.prefix is not None:
        return Selection.of_prefix(options.prefix)
    return Selection.of_module(options.module)


def _parts(options: argparse.Namespace, selection: Selection) -> list[Callable[[Removed], None]]:
    """Return what is to be done on this host, the backend first; ConfigError when nothing is."""
    parts: list[Callable[[Removed], None]] = []
    path = options.config or options.root / host.BACKEND
    if options.only != "edge" and (options.config is not None or path.exists()):
        parts.append(_backend(path, options, selection))
    zones = edge.zones(host.nginx_text(options.root, "edge"))
    if options.only != "backend" and zones:
        parts.append(_edge(zones, options, selection))
    if parts:
        return parts
    places = {"backend": f"{path}", "edge": f"cache zones in {options.root / host.NGINX}/edge"}
    wanted = [options.only] if options.only else _ROLES
    raise ConfigError(
        f"there is nothing to purge on {socket.gethostname()}: it has no "
        + " and no ".join(f"{role} ({places[role]})" for role in wanted)
        + "; run this on a host that has"
    )


def _backend(
    path: Path, options: argparse.Namespace, selection: Selection
) -> Callable[[Removed], None]:
    settings = config.load(path).store
    seconds = host.open_seconds_of(options.root, "backend")

    def purge(removed: Removed) -> None:
        before = os.umask(_UMASK)
        try:
            with host.as_owner(settings.path):
                store = DiskStore(settings.path, min_free_bytes=0)
                backend.purge(store, selection, removed, pins=options.pins)
        finally:
            os.umask(before)
        _wait_for_nginx(seconds, removed)

    return purge


def _edge(
    zones: list[edge.Zone], options: argparse.Namespace, selection: Selection
) -> Callable[[Removed], None]:
    seconds = host.open_seconds_of(options.root, "edge")

    def purge(removed: Removed) -> None:
        for zone in zones:
            with host.as_owner(zone.path):
                edge.purge(zone, selection, removed)
        _wait_for_nginx(seconds, removed)

    return purge


def _wait_for_nginx(seconds: int, removed: Removed) -> None:
    """Wait until nginx looks again at files that it has open: there is nothing else to see."""
    if removed.files and not removed.dry_run:
        time.sleep(seconds)


def _write_down(selection: Selection, removed: Removed, failure: str | None) -> None:
    """Tell the system's journal who purged what."""
    if removed.dry_run:
        return
    who = os.environ.get("SUDO_USER") or pwd.getpwuid(os.getuid()).pw_name
    end = f"failed: {failure}" if failure else "done"
    syslog.openlog(_TAG, facility=syslog.LOG_DAEMON)
    syslog.syslog(
        syslog.LOG_ERR if failure else syslog.LOG_NOTICE,
        f"{who} purged {selection}: {removed.files} files, {removed.size} bytes removed, {end}",
    )
    syslog.closelog()


def _say(text: str) -> None:
    print(text, flush=True)  # noqa: T201 - a command's output
