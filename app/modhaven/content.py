"""Is a small answer what was asked for? A login page with status 200 is a mirror's failure.

Source: cmd/go/internal/modfetch (proxyRepo).
"""

from __future__ import annotations

import json

from modhaven import semver
from modhaven.protocol import Kind, Request

# Bytes. cmd/go bounds only zips (codehost.MaxZipFile) and go.mod (MaxGoMod); nothing else is big.
LIMITS = {
    Kind.ZIP: 500 << 20,
    Kind.MOD: 16 << 20,
    Kind.INFO: 1 << 20,
    Kind.QUERY: 1 << 20,
    Kind.LATEST: 1 << 20,
    Kind.LIST: 16 << 20,
}
_MOST_BRACKETS = 200


class RejectedError(ValueError):
    """The answer is not of the kind asked for; the text says why."""


def check(request: Request, body: bytes) -> None:
    """Raise RejectedError unless ``body`` can be the answer to ``request``."""
    match request.kind:
        case Kind.INFO if _info_version(body) != request.version:
            raise RejectedError(f"gave .info of another version than {request.version}")
        case Kind.QUERY | Kind.LATEST if not semver.is_canonical(_info_version(body)):
            raise RejectedError("gave .info without a canonical version")
        case Kind.LIST:
            _check_list(body)
        case _:
            pass


def _info_version(body: bytes) -> str:
    # What opens a thousand brackets is no .info, and would only exhaust the parser's stack.
    if body.count(b"[") + body.count(b"{") > _MOST_BRACKETS:
        raise RejectedError("gave .info that is not JSON")
    try:
        info = json.loads(body)
    except ValueError:
        raise RejectedError("gave .info that is not JSON") from None
    version = info.get("Version") if isinstance(info, dict) else None
    if not isinstance(version, str):
        raise RejectedError("gave .info without a Version")
    return version


def _check_list(body: bytes) -> None:
    # The go command ignores lines that are not versions; a body of nothing else is no list.
    lines = body.decode("utf-8", "replace").split("\n")
    firsts = [fields[0] for line in lines if (fields := line.split())]
    if firsts and not any(semver.is_valid(first) for first in firsts):
        raise RejectedError("gave a list without a single version")
