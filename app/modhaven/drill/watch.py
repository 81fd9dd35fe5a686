"""Tells what an edge sees of its pool, and whether it has the VIP, at each change.

Standard library only, no import of its own: its text runs on any edge. The plan is the first line
of standard input, and it ends with its input:

    {"vip": "10.0.3.100", "status": "/run/modhaven-pool/status.json", "port": 443,
     "keepalived": "/run/keepalived.pid", "stay_out": "/etc/modhaven/vip-stay-out"}

Each line is ``{"time", "boot", "vip", "can_take_vip", "answers", "published",
"pool": {name: [state, asked]}}``: whether the address is on this host, keepalived runs and nobody
keeps the VIP away, nginx takes connections, and nginx has this pool. ``boot`` is another one after
a reboot.
"""

from __future__ import annotations

import itertools
import json
import socket
import sys
import threading
import time
from pathlib import Path

_EVERY_SECONDS = 0.04


def has_address(address: str) -> bool:
    """Whether an IPv4 or IPv6 address is on this host, without starting a program."""
    if ":" in address:
        wanted = socket.inet_pton(socket.AF_INET6, address).hex()
        return f"{wanted} " in Path("/proc/net/if_inet6").read_text(encoding="ascii")
    lines = Path("/proc/net/fib_trie").read_text(encoding="ascii").splitlines()
    return any(
        line.split()[-1] == address and "host LOCAL" in after
        for line, after in itertools.pairwise(lines)
        if line.strip()
    )


def can_take_vip(pid_file: str, stay_out: str) -> bool:
    """Whether keepalived runs here, and no file keeps the VIP away."""
    try:
        pid = Path(pid_file).read_text(encoding="ascii").strip()
        # The number may be another process's by now.
        runs = Path(f"/proc/{int(pid)}/comm").read_text(encoding="utf-8").strip() == "keepalived"
    except (OSError, ValueError):
        return False
    return runs and not Path(stay_out).exists()


def answers(port: int) -> bool:
    """Whether this host takes connections on a port."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=0.2):
            return True
    except OSError:
        return False


def pool(path: str) -> tuple[bool, dict[str, list[object]]]:
    """Give whether nginx has the pool, and each backend's state and whether it is asked."""
    try:
        told = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False, {}
    servers = {one["name"]: [one["state"], one["asked"]] for one in told["servers"]}
    return bool(told["published"]), servers


def boot() -> str:
    """Give what tells one start of this host from another; a container has its host's boot_id."""
    machine = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    # Field 22 of proc(5), counted from behind the name, which may have spaces: when init began.
    began = Path("/proc/1/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[19]
    return f"{machine}/{began}"


def look(plan: dict[str, object]) -> dict[str, object]:
    """Give what is to be seen now."""
    vip = str(plan["vip"])
    published, servers = pool(str(plan["status"]))
    return {
        "vip": bool(vip) and has_address(vip),
        "can_take_vip": bool(vip) and can_take_vip(str(plan["keepalived"]), str(plan["stay_out"])),
        "answers": answers(int(str(plan["port"]))),
        "published": published,
        "pool": servers,
    }


def main() -> None:
    """Tell until standard input ends."""
    plan = json.loads(sys.stdin.readline())
    ended = threading.Event()

    def wait_for_end() -> None:
        sys.stdin.read()
        ended.set()

    threading.Thread(target=wait_for_end, daemon=True).start()
    last: dict[str, object] | None = None
    started = boot()
    while not ended.wait(_EVERY_SECONDS):
        at = time.time()
        seen = look(plan)
        if seen != last:
            sys.stdout.write(json.dumps({"time": at, "boot": started, **seen}) + "\n")
            sys.stdout.flush()
            last = seen


if __name__ == "__main__":
    main()
