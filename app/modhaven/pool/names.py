"""Backends that the inventory has by name: nginx is given their addresses.

nginx looks names up while it loads its configuration, and loads nothing where one of them has no
address: no change of the pool, and after a restart not even the rest.
"""

from __future__ import annotations

import functools
import ipaddress
import socket
from dataclasses import replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from modhaven.pool.settings import Server


@functools.lru_cache(maxsize=4096)  # the pool manager asks for each backend, four times a second
def is_name(address: str) -> bool:
    """Tell whether ``address`` has to be looked up."""
    try:
        ipaddress.ip_address(address)
    except ValueError:
        return True
    return False


def host_of_url(address: str) -> str:
    """Return ``address`` as it is written before a port."""
    return f"[{address}]" if ":" in address else address


def located(server: Server, address: str) -> Server:
    """Return the server at ``address``, empty where that is not known yet; its name is kept."""
    if not address or not is_name(server.address):
        return server
    return replace(server, address=address, looked_up=server.address)


def addresses(server: Server) -> list[str]:
    """Look the server up: its addresses, best first, none where that fails. May take long."""
    try:
        found = socket.getaddrinfo(server.address, server.port, type=socket.SOCK_STREAM)
    # A name with a label that is empty or too long is no Unicode that IDNA takes.
    except (OSError, UnicodeError):
        return []
    return list(dict.fromkeys(str(one[4][0]) for one in found))
