"""What the tests of the pool manager share."""

from __future__ import annotations

from modhaven.pool.settings import Server

TEMPLATE = "templates/nginx/upstream.conf.j2"


def servers(*names: str) -> tuple[Server, ...]:
    """Make servers; a name that ends in ``+`` is a backup's."""
    return tuple(
        Server(
            name=name.rstrip("+"), address=f"10.0.3.{number}", port=8443, backup=name.endswith("+")
        )
        for number, name in enumerate(names, start=1)
    )
