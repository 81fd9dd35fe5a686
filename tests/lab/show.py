#!/usr/bin/env python3
"""Shows a person what `make up` made: a real download through the VIP, and where to look next."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tests.lab import remote
from tests.lab.inventory import Host, Inventory, lab
from tests.lab.web import get

MODULE = "rsc.io/quote"
VERSION = "v1.5.2"
PROGRAM = """\
package main

import (
	"fmt"

	"rsc.io/quote"
)

func main() { fmt.Println(quote.Hello()) }
"""
# As a login shell of an ordinary user, whose go environment is the machine's.
SCRIPT = f"""
set -eu
work=$(mktemp -d); trap 'chmod -R u+w "$work"; rm -rf "$work"' EXIT; cd "$work"
export GOMODCACHE="$work/modcache" LANG=en
cat > main.go <<'PROGRAM'
{PROGRAM}
PROGRAM
echo "GOPROXY=$(go env GOPROXY)"
go mod init example.com/hello 2>/dev/null
go get {MODULE}@{VERSION}
go build -o hello .
echo "./hello: $(./hello)"
echo "checked against $(go env GOSUMDB | cut -d+ -f1): $(grep -c . go.sum) lines in go.sum"
"""


def say(text: str = "") -> None:
    sys.stdout.write(text + "\n")


def proof(client: Host) -> str:
    """Download and build on the client; raises CalledProcessError with what go said."""
    done = subprocess.run(
        [
            *("lxc-attach", "--name", client.name, "--clear-env", "--"),
            *("su", "--login", "vagrant", "--command", f"bash -c '{quoted(SCRIPT)}'"),
        ],
        check=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=120,
    )
    return done.stdout


def quoted(script: str) -> str:
    return script.replace("'", "'\\''")


def roles_of(host: Host) -> str:
    known = {"edges", "backends", "clients", "mirrors", "git_servers", "monitors"}
    words = sorted(host.groups & known)
    text = ", ".join(word.removesuffix("s").replace("_", " ") for word in words)
    if host.variables.get("backend_backup"):
        text += ", backup"
    if host.variables.get("backend_weight"):
        text += f", weight {host.variables['backend_weight']}"
    if "mirror_names" in host.variables:
        text += f" ({', '.join(host.variables['mirror_names'])})"
    if "git_https_name" in host.variables:
        own = host.variables
        text += f" ({own['git_https_name']} over HTTPS, {own['git_ssh_name']} over SSH)"
    return text


def holds_vip(host: Host, vip: str) -> bool:
    return f" {vip}/" in remote.run(host.name, "ip", "-4", "-oneline", "address").stdout


def show(inventory: Inventory) -> None:
    client = inventory.group("clients")[0]
    vip = str(inventory.group("edges")[0].variables["vip_address"])
    say(f"On {client.name}, with an empty module cache:")
    for line in proof(client).splitlines():
        say(f"    {line}")
    marks = get(vip, f"/{MODULE}/@v/{VERSION}.zip").headers
    source, backend = marks["x-modhaven-source"], marks["x-modhaven-backend"]
    origin = f"the store of {backend}" if source == "store" else f"{source}, fetched by {backend}"
    say()
    say(f"{MODULE}@{VERSION} came from {origin}.")
    say(f"Asked again, the edge says X-Modhaven-Cache: {marks['x-modhaven-cache']}.")
    say()
    say(f"{'host':<10}{'address':<13}what it is")
    say(f"{'VIP':<10}{vip:<13}the address that clients use")
    for group in ("edges", "backends", "mirrors", "git_servers", "clients"):
        for host in inventory.group(group):
            mark = "; holds the VIP" if group == "edges" and holds_vip(host, vip) else ""
            say(f"{host.name:<10}{host.address:<13}{roles_of(host)}{mark}")
    say()
    say("Where to look next:")
    for command, meaning in (
        (f"vagrant ssh {client.name}", "a machine whose builds come through here"),
        (f"curl -i http://{vip}/{MODULE}/@v/list", "what an answer says about itself"),
        ("vagrant ssh edge1 -c 'sudo nginx -T'", "the pool and the caches, as rendered"),
        ("vagrant ssh backend1 -c 'sudo journalctl -u modhaven'", "who asked which mirror"),
        ("make test", "what is promised, proven"),
        ("make down", "removes all of it"),
    ):
        say(f"    {command:<56}{meaning}")


if __name__ == "__main__":
    try:
        show(lab())
    except subprocess.CalledProcessError as error:
        sys.exit(f"The proof failed: {error.output or error.stderr or error}")
