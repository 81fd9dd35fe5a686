"""What the figures were made on: machines, versions, the shape of the inventory."""

from __future__ import annotations

import platform
import subprocess
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from modhaven import __version__
from modhaven.drill.hosts import Host, HostError

if TYPE_CHECKING:
    from modhaven.drill.plan import Plan

_LOOK = """
echo "cores=$(nproc)"
echo "CPU=$(sed -n 's/^model name[^:]*: //p' /proc/cpuinfo | head -n 1)"
echo "memory=$(awk '/^MemTotal/ {printf "%.0f GiB", $2 / 1048576}' /proc/meminfo)"
echo "system=$(. /etc/os-release; echo "$PRETTY_NAME")"
echo "kernel=$(uname -r)"
echo "load=$(cut -d ' ' -f 1 /proc/loadavg)"
echo "nginx=$(nginx -v 2>&1 | sed -n 's,.*nginx/,,p')"
echo "keepalived=$(keepalived --version 2>&1 | sed -n 's/^Keepalived v\\([^ ]*\\).*/\\1/p')"
echo "Python=$(python3 -c 'import platform; print(platform.python_version())')"
"""


def describe(plan: Plan) -> dict[str, object]:
    """Give the environment by name; HostError for a host that cannot be reached."""
    groups = {name: len(plan.group(name)) for name in ("edges", "backends", "clients")}
    return {
        "date": datetime.now(tz=UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "inventory": plan.inventory,
        "shape": ", ".join(f"{count} {name}" for name, count in groups.items())
        + f", {len(plan.group('backends')) - len(plan.primaries)} of the backends backup"
        + (f", VIP {plan.vip}" if plan.vip else ", no VIP"),
        "modhaven": f"{__version__} ({_commit(plan.root)})",
        "controller": f"Python {platform.python_version()}",
        "load": f"{plan.rate:g} requests/s from each of {len(plan.clients)}: "
        + ", ".join(client.name for client in plan.clients),
        "builds": _go(plan.clients[0]),
        "hosts": {host.name: of_host(host) for host in _one_of_each(plan)},
    }


def of_host(host: Host) -> dict[str, str]:
    """Give a host's own part."""
    lines = host.run("sh", "-c", _LOOK, root=host.is_node).splitlines()
    pairs = (line.partition("=") for line in lines)
    return {name: value for name, _, value in pairs if value}


def _go(client: Host) -> str:
    """Give the go command of a login shell, and its GOPROXY."""
    try:
        version, proxy = client.run("go", "env", "GOVERSION", "GOPROXY", root=False).split()
    except (HostError, ValueError, OSError):
        return f"no go command on {client.name}"
    return f"{version} on {client.name}, GOPROXY={proxy}"


def _one_of_each(plan: Plan) -> list[Host]:
    found = [plan.group("edges")[0], plan.group("backends")[0], plan.clients[0]]
    return list(dict.fromkeys(found))


def _commit(root: str) -> str:
    words = ["git", "-c", "safe.directory=*", "describe", "--always", "--dirty"]
    try:
        done = subprocess.run(  # noqa: S603 - no word of it comes from outside
            words, cwd=root, check=False, capture_output=True, text=True
        )
    except OSError:
        return "no git here"
    return done.stdout.strip() or "no git repository"
