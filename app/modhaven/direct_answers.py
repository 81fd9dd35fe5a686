"""What the go command is asked for each request, and what its answer means."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

from modhaven import direct_errors, modpath
from modhaven.attempt import AttemptError
from modhaven.protocol import Kind

if TYPE_CHECKING:
    from pathlib import Path

    from modhaven.direct_sandbox import Ended
    from modhaven.protocol import Request

# Of -x: commands and addresses, which are no cause of anything.
_TRACED = re.compile(r"# |mkdir -p |cd /|[0-9.]+s # ")


class DamagedCloneError(AttemptError):
    """A cached repository cannot be used; ``clones`` are those that the call used."""

    def __init__(self, outcome: str, clones: set[str]) -> None:
        """Keep the failure and the repositories' ids."""
        super().__init__(outcome)
        self.clones = clones


def arguments(request: Request) -> list[str]:
    """Return the go command's arguments. -x names the repositories, -v why none was found."""
    look = ["list", "-m", "-e", "-json", "-v", "-x"]
    match request.kind:
        case Kind.LIST:
            # The client applies retractions itself: it has to see what was retracted.
            return [*look, "-versions", "-retracted", f"{request.module}@latest"]
        case Kind.LATEST:
            return [*look, f"{request.module}@latest"]
        case Kind.ZIP:
            return ["mod", "download", "-json", "-x", f"{request.module}@{request.version}"]
        case _:
            return [*look, f"{request.module}@{request.version}"]


def read(ended: Ended, clones: set[str], hosts: frozenset[str]) -> dict[str, Any]:
    """Return what the go command says of a module; AttemptError for what it could not do."""
    if ended.cut == "time":
        raise AttemptError("timed out: the go command or git was killed", timed_out=True)
    if ended.cut == "output":
        raise AttemptError("the go command wrote more than it may, and was killed")
    details = "\n".join(
        line
        for line in ended.stderr.decode("utf-8", "replace").splitlines()
        if not _TRACED.match(line)
    )
    try:
        answer = json.loads(ended.stdout)
    except (ValueError, RecursionError):
        answer = None
    if not isinstance(answer, dict):
        raise direct_errors.explain(
            details or f"the go command ended with status {ended.status} and said nothing",
            "",
            hosts=hosts,
        )
    error = answer.get("Error")
    if error is None:
        return answer
    text = str(error.get("Err", "")) if isinstance(error, dict) else str(error)
    failure = direct_errors.explain(text, details, hosts=hosts)
    if clones and direct_errors.is_damaged_clone(text):
        raise DamagedCloneError(f"a cached repository is damaged: {failure}", clones)
    raise failure


def file_of(mod: Path, request: Request, answer: dict[str, Any]) -> Path:
    """Return the file of the module cache that answers ``request``."""
    version = answer.get("Version")
    asks = request.kind in (Kind.LATEST, Kind.QUERY)
    if not isinstance(version, str) or not (asks or version == request.version):
        raise AttemptError(f"not found: the origin has {version} in its place", not_found=True)
    extension = request.kind.value if request.kind in (Kind.MOD, Kind.ZIP) else "info"
    name = f"{modpath.escape_version(version)}.{extension}"
    return mod / "cache/download" / request.escaped_module / "@v" / name
