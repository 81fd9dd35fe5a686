"""The lab's helper of the drill: faults that no host can make itself, and files nobody has yet.

The inventory names it in drill_helper; what it is asked for: app/modhaven/drill/faults.py.
"""

from __future__ import annotations

import contextlib
import json
import sys
import time
from typing import TYPE_CHECKING, Any

from tests.e2e import cluster, origin
from tests.lab import faults, remote
from tests.lab.inventory import lab

from modhaven import modpath

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

# What the load asks for; builds ask for the modules after them.
LOAD_FILES = 420
POOL_MANAGER = "modhaven-pool.service"
STORE = "/var/lib/modhaven/store"
_BEFORE = "-before"
_MIRROR_SERVICE = "modhaven-lab-mirror.service"


def tell(**line: object) -> None:
    """Print one line of JSON, now."""
    sys.stdout.write(json.dumps(line) + "\n")
    sys.stdout.flush()


def files() -> None:
    """Print what the load may ask for, and module versions that it does not."""
    known = origin.files()
    builds = [file.path for file in known[LOAD_FILES:] if file.path.endswith(".zip")]
    tell(
        files=[{"path": file.path, "sha256": file.sha256} for file in known[:LOAD_FILES]],
        modules=[module_at_version(path) for path in builds],
    )


def module_at_version(path: str) -> str:
    """Give MODULE@VERSION of a zip's path."""
    escaped, _, name = path.removeprefix("/").partition("/@v/")
    version = modpath.unescape_version(name.removesuffix(".zip"))
    return f"{modpath.unescape_path(escaped)}@{version}"


def before(scenario: str, state: str) -> None:
    """Make files cold, known or uncached, and what else the scenario wants to find."""
    if state in ("cold", "known"):
        # An earlier fault may have left a mirror out, or a list is still being fetched; new
        # processes know nothing of it.
        for name in cluster.names("backends"):
            remote.run(name, "systemctl", "restart", "modhaven.service")
    if state == "cold":
        cluster.forget(origin.files())
    if state == "known":
        # What was kept of lists: the store itself must say what it holds.
        for name in cluster.names("backends"):
            remote.run(name, "rm", "-rf", f"{STORE}/mutable")
    cluster.forget_edge_caches()
    if scenario == "rollback":
        give_an_earlier_release()
    if scenario == "rolling_update":
        # So that the playbook has something to roll out.
        for name in cluster.nodes():
            remote.run(name, "rm", "-f", "/etc/modhaven/applied", "/etc/modhaven/pool.applied")
    tell(ready=True)


def give_an_earlier_release() -> None:
    """Another release, though of the same program."""
    for name in cluster.nodes():
        now = remote.run(name, "readlink", "/opt/modhaven/current").stdout.strip()
        remote.run(name, "cp", "-a", "--no-target-directory", now, now + _BEFORE)
        remote.run(name, "ln", "-sfn", now + _BEFORE, "/opt/modhaven/previous")


def restore() -> None:
    """Leave the release that was there, and no other of the drill's making."""
    for name in cluster.nodes():
        now = remote.run(name, "readlink", "/opt/modhaven/current").stdout.strip()
        if now.endswith(_BEFORE):
            remote.run(name, "ln", "-sfn", now.removesuffix(_BEFORE), "/opt/modhaven/current")
            remote.run(name, "systemctl", "try-restart", "modhaven.service", POOL_MANAGER)
        remote.run(name, "sh", "-c", f"rm -rf /opt/modhaven/releases/*{_BEFORE}")
        previous = remote.run(name, "readlink", "/opt/modhaven/previous", check=False).stdout
        if previous.strip().endswith(_BEFORE):
            remote.run(name, "rm", "-f", "/opt/modhaven/previous")
    tell(restored=True)


@contextlib.contextmanager
def mirror(names: list[str], fault: str, **options: object) -> Iterator[None]:
    """Make mirrors, by their public names, fail: see faults.mirror_fault."""
    with contextlib.ExitStack() as stack:
        for name in names:
            stack.enter_context(faults.mirror_fault(name, fault, **options))
        yield


@contextlib.contextmanager
def wrong_dns(names: list[str]) -> Iterator[None]:
    """Lead a mirror's name to an address of the network that nobody has, on every backend."""
    with contextlib.ExitStack() as stack:
        for backend in cluster.names("backends"):
            stack.enter_context(faults.wrong_dns(backend, names[0], "10.0.3.250"))
        # Connections that are open already would not notice.
        remote.run(lab().mirror_of(names[0]).name, "systemctl", "restart", _MIRROR_SERVICE)
        yield


@contextlib.contextmanager
def every_mirror(names: list[str]) -> Iterator[None]:
    """Make every name of every mirror refuse connections: the checksum database too."""
    del names
    every = [name for host in lab().group("mirrors") for name in host.variables["mirror_names"]]
    with mirror(every, "down"):
        yield


KINDS: dict[str, Callable[..., contextlib.AbstractContextManager[None]]] = {
    "host_stopped": faults.host_stopped,
    "link_down": faults.link_down,
    "mirror": mirror,
    "wrong_dns": wrong_dns,
    "every_mirror": every_mirror,
}


def hold(kind: str, options: str) -> None:
    """Make a fault when told to, and undo it when standard input ends."""
    told: dict[str, Any] = json.loads(options)
    lab()  # Ansible takes seconds to read it: not within the fault's time.
    tell(ready=True)
    if not sys.stdin.readline():
        return
    begun = time.time()
    with KINDS[kind](**told):
        tell(on=begun)
        tell(made=time.time())
        sys.stdin.read()


if __name__ == "__main__":
    VERBS: dict[str, Callable[..., None]] = {
        "files": files,
        "before": before,
        "restore": restore,
        "hold": hold,
    }
    VERBS[sys.argv[1]](*sys.argv[2:])
