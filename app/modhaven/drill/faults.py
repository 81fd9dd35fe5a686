"""Faults that undo themselves, on hosts of the inventory and through the inventory's helper.

A fault is a program that prepares, prints ``{"ready": true}``, and waits for a line: faults that
are on together begin together. It prints ``{"on": <moment>}``, makes the fault, prints
``{"made": <moment>}``, waits for the end of its standard input, and undoes it: it ends with whoever
started it. On a host it then prints ``{"undone": true}``, and a timer of systemd does the same when
nobody else could, because the network or the controller died.
"""

from __future__ import annotations

import json
import secrets
import shlex
from dataclasses import dataclass
from typing import TYPE_CHECKING

from modhaven.drill.hosts import Program

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from modhaven.drill.hosts import Host

# A fault is undone after so long, whatever happened to the drill.
DEADMAN_SECONDS = 120
RELOADS = 20
# Over at once: systemd starts again what was killed, and the host itself.
MOMENTARY = ("kill", "reboot")
# The connection to the host goes with them.
CUTTING = ("link_down", "host_stopped", "reboot")
STAY_OUT = "/etc/modhaven/vip-stay-out"


@dataclass(frozen=True, slots=True, kw_only=True)
class Scripts:
    """How a fault is made and undone, for sh, which ends at the first line that fails.

    ``{units}``, ``{store}``, ``{vip}`` are filled in, and ``{name}``, which no other fault has. An
    undo may come before the fault is made, and twice; systemd reads it too, so it has no ``$``.
    """

    make: str
    undo: str = ":"


HOST_FAULTS = {
    "kill": Scripts(
        make="systemctl kill --signal=SIGKILL {units}",
        # A unit that was killed often counts as failed, and would refuse to start.
        undo="systemctl reset-failed {units} || :; systemctl start {units}",
    ),
    "hang": Scripts(
        make="systemctl kill --signal=SIGSTOP {units}",
        undo="systemctl kill --signal=SIGCONT {units}",
    ),
    "stop": Scripts(make="systemctl stop {units}", undo="systemctl start {units}"),
    # A full file system over the store: what it hides is back when it is taken away. What else is
    # mounted there stays.
    "full_disk": Scripts(
        make="""
mount -t tmpfs -o size=64k,mode=0750,uid=modhaven,gid=modhaven {name} {store}
head -c 1m /dev/zero > {store}/full 2>/dev/null || :
""",
        undo=(
            "! findmnt -n --first-only --direction backward -o SOURCE --mountpoint {store}"
            " | grep -qxF {name} || umount -l {store}"
        ),
    ),
    "leave": Scripts(
        make=f"""
touch {STAY_OUT}
systemctl restart keepalived.service
timeout 30 sh -c 'while ip -oneline address | grep -qF " {{vip}}/"; do sleep 0.1; done' ||
    {{{{ echo "this edge has the VIP still, 30 s later" >&2; exit 1; }}}}
systemctl stop {{units}}
""",
        undo=f"systemctl start {{units}} || {{{{ rm -f {STAY_OUT}; exit 1; }}}}; rm -f {STAY_OUT}",
    ),
    "reload": Scripts(
        make=f"for _ in $(seq {RELOADS}); do systemctl reload nginx.service; sleep 0.5; done"
    ),
    # Returns when the reboot has been ordered.
    "reboot": Scripts(make="systemctl reboot"),
}
_HOLD = """
set -eu
[ {undo_quoted} = : ] || systemd-run --quiet --collect --unit={name} \
    --on-active={seconds} sh -c {undo_quoted}
undo() {{
    sh -c {undo_quoted} || exit 1
    systemctl stop {name}.timer 2>/dev/null || :
    echo '{{"undone": true}}'
}}
trap undo EXIT
trap 'exit 1' HUP TERM INT
echo '{{"ready": true}}'
read -r _ || exit 0
echo '{{"on": '"$(date +%s.%N)"'}}'
{make}
echo '{{"made": '"$(date +%s.%N)"'}}'
cat > /dev/null
"""


def units_of(host: Host, on: str, kind: str) -> str:
    """Give the services that make the host what a fault takes it for."""
    if on in ("vip_master", "edges"):
        return "nginx.service"
    # Its nginx is the edge's too where a host is both; there the socket would start the app again.
    if "edges" in host.groups:
        return "modhaven.socket modhaven.service" if kind == "stop" else "modhaven.service"
    return "nginx.service modhaven.service"


def hold_on(host: Host, kind: str, on: str, *, store: str, vip: str) -> Program:
    """Prepare a fault on a host; see the module. OSError."""
    scripts = HOST_FAULTS[kind]
    filled = {
        "units": units_of(host, on, kind),
        "store": shlex.quote(store),
        "vip": vip,
        "name": f"modhaven-drill-{secrets.token_hex(4)}",
    }
    script = _HOLD.format(
        make=scripts.make.format(**filled),
        undo_quoted=shlex.quote(scripts.undo.format(**filled)),
        name=filled["name"],
        seconds=DEADMAN_SECONDS,
    )
    return Program(f"{kind} on {host.name}", host.command(["sh", "-c", script]))


class Helper:
    """The program that the inventory names for what no host can do to itself.

    ``hold KIND JSON`` is a fault, see the module; ``files`` prints what may be asked for; ``before
    SCENARIO FILES`` makes files ready (see catalogue.Scenario); ``restore`` ends a drill. Each
    prints one object, and ends with its input.
    """

    def __init__(self, command: Sequence[str], cwd: str) -> None:
        """Run ``command`` in the folder ``cwd``; empty where there is none."""
        self._command = list(command)
        self._cwd = cwd

    def __bool__(self) -> bool:
        """Whether there is one."""
        return bool(self._command)

    def hold(self, kind: str, options: Mapping[str, object]) -> Program:
        """Prepare a fault. OSError."""
        words = [*self._command, "hold", kind, json.dumps(dict(options))]
        return Program(f"{kind} by the helper", words, cwd=self._cwd)

    def ask(self, *words: str, timeout: float = 120) -> dict[str, object]:
        """Give the object that the helper prints; raises HostError."""
        program = Program(f"the helper's {words[0]}", [*self._command, *words], cwd=self._cwd)
        try:
            found = program.first(timeout)
            program.end(timeout)
        finally:
            program.kill()
        return found
