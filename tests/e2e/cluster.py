"""The deployed cluster as the tests see it from outside, and the load they put on it."""

from __future__ import annotations

import json
import time
from collections import Counter
from typing import TYPE_CHECKING, Any

from tests.lab import remote
from tests.lab.inventory import lab
from tests.lab.web import get

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from tests.e2e.origin import File
    from tests.lab.inventory import Host
    from tests.lab.web import Answer

# open_file_cache_valid, and a little.
_OPEN_FILE_SECONDS = 1.1
CA_FILE = "/etc/ssl/certs/ca-certificates.crt"


def vip() -> str:
    """Give the VIP of the lab's inventory."""
    return str(lab().group("edges")[0].variables["vip_address"])


def client() -> str:
    """Give the name of the client the builds run on."""
    return lab().group("clients")[0].name


def names(group: str) -> tuple[str, ...]:
    """Give the host names of a group, in the inventory's order."""
    return tuple(host.name for host in lab().group(group))


def primaries() -> list[Host]:
    """Give the backends that are no backup."""
    return [host for host in lab().group("backends") if not host.variables.get("backend_backup")]


def backups() -> list[Host]:
    """Give the backends that only serve when no other one does."""
    return [host for host in lab().group("backends") if host.variables.get("backend_backup")]


def nodes() -> list[str]:
    """Give the names of the edges and the backends."""
    return [*names("edges"), *names("backends")]


def vip_master() -> str:
    """Give the edge that has the VIP, once exactly one has it. TimeoutError after 30 s."""
    found: list[str] = []

    def is_one() -> bool:
        found[:] = vip_holders()
        return len(found) == 1

    remote.wait_until("one edge to hold the VIP", is_one, 30)
    return found[0]


def vip_holders() -> list[str]:
    """Give the edges that have the VIP on an interface; one that is switched off has none."""
    return [
        name
        for name in names("edges")
        if f" {vip()}/" in remote.run(name, "ip", "-4", "-oneline", "address", check=False).stdout
    ]


def backends_answering(address: str, count: int) -> Counter[str]:
    """Ask an edge `count` times what no cache keeps; give how often each backend answered.

    What no backend answered counts under what it said.
    """
    return Counter(_who_answered(get(address, "/readyz")) for _ in range(count))


def _who_answered(answer: Answer) -> str:
    said = answer.body.decode(errors="replace").partition("\n")[0]
    return answer.headers.get("x-modhaven-backend") or f"{answer.status} {said}"


def wait_until_kept(address: str, path: str) -> None:
    """Ask an edge for what it was just given until it has it.

    nginx ends an answer a moment before its file has its name, and fetches it anew just then.
    """
    remote.wait_until(
        f"{path} in the cache",
        lambda: get(address, path).headers["x-modhaven-cache"] == "HIT",
        10,
    )


def pool_status(edge: str) -> dict[str, Any]:
    """Give what the pool manager of an edge tells."""
    told: dict[str, Any] = json.loads(
        remote.run(edge, "cat", "/run/modhaven-pool/status.json").stdout
    )
    return told


def wait_until_whole() -> None:
    """Wait until every backend that is no backup answers through every edge, and no backup does."""
    expected = {host.name for host in primaries()}
    try:
        wait_until_ready(expected, timeout=60)
    except TimeoutError:
        if not any(pool_status(edge)["promoted"] for edge in names("edges")):
            raise
        # After a surge the backups serve for edge_pool_surge_quiet_seconds.
        wait_until_ready(expected, timeout=150)


def wait_until_ready(backends: set[str], *, timeout: float) -> None:
    """Wait until these backends, and no others, answer through every edge; else TimeoutError."""
    last: dict[str, Counter[str]] = {}

    def are_ready() -> bool:
        for edge in lab().group("edges"):
            last[edge.name] = backends_answering(edge.address, 12)
        return all(set(answering) == backends for answering in last.values())

    what = f"{', '.join(sorted(backends))} alone to answer"
    try:
        remote.wait_until(what, are_ready, timeout, every=0.5)
    except TimeoutError as late:
        raise TimeoutError(f"{late}; the last answers: {last}") from None


def forget(files: Iterable[File] = ()) -> None:
    """Empty every edge's cache, and remove `files` from every store: the chain is asked anew."""
    paths = "".join(f"/var/lib/modhaven/store/cache/download{file.path}\n" for file in files)
    for backend in names("backends"):
        remote.run(backend, "xargs", "--no-run-if-empty", "rm", "-f", stdin=paths)
    forget_edge_caches()


def forget_edge_caches() -> None:
    """Empty the cache zones of every edge; nginx takes a file that is gone for a miss."""
    for edge in names("edges"):
        remote.run(
            edge, "find", "/var/cache", "-path", "/var/cache/modhaven/*", "-type", "f", "-delete"
        )
    # For so long it may serve one that it has open, and nothing tells when that is over.
    time.sleep(_OPEN_FILE_SECONDS)


def load_plan(files: Iterable[File], *, rate: float, address: str = "") -> dict[str, Any]:
    """Plan one request for each file, `rate` a second, each on a connection of its own."""
    targets = [
        {"url": f"https://{address or vip()}{file.path}", "sha256": file.sha256} for file in files
    ]
    return {
        "targets": targets,
        "allowed": [vip(), *(edge.address for edge in lab().group("edges"))],
        "rate": rate,
        "seconds": len(targets) / rate,
        "timeout_seconds": 30,
        "ca_file": CA_FILE,
    }


def figures(result: Mapping[str, Any]) -> str:
    """Give a load's result in one line."""
    return (
        f"{result['sent']} requests, {result['failed']} failed,"
        f" {result['wrong_bytes']} wrong bytes,"
        f" longest gap {result['longest_gap_seconds']} s"
        f" (after {result['longest_gap_at_seconds']:.1f} s),"
        f" p50 {result['p50_ms']} ms, p99 {result['p99_ms']} ms, slowest {result['max_ms']} ms"
    )
