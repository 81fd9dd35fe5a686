"""Where the pool manager and those who ask it find everything."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from typing import Self


@dataclass(frozen=True, slots=True, kw_only=True)
class Paths:
    """Where everything is; the defaults are a deployed edge's."""

    config: Path = Path("/etc/modhaven/pool.yml")
    template: Path = Path("/etc/modhaven/upstream.conf.j2")
    nginx: Path = Path("/etc/nginx")
    nginx_pid: Path = Path("/run/nginx.pid")
    drained: Path = Path("/var/lib/modhaven-pool/drained")
    status: Path = Path("/run/modhaven-pool/status.json")
    metrics: Path = Path("/run/modhaven-pool/metrics.prom")

    @classmethod
    def below(cls, root: Path) -> Self:
        """Return the same places below another root than /."""
        places = cls()
        return cls(
            **{one.name: root / getattr(places, one.name).relative_to("/") for one in fields(cls)}
        )
