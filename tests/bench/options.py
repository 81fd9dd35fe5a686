"""What every benchmark is given."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from tests.bench.loopback import Tools
    from tests.bench.other import Other


@dataclass(frozen=True, kw_only=True)
class Options:
    """``seconds`` is the length of one run of wrk; ``scratch`` is removed at the end."""

    tools: Tools
    scratch: Path
    rounds: int
    hit_rounds: int
    memory_rounds: int
    seconds: int
    others: tuple[Other, ...] = ()

    def say(self, text: str) -> None:
        """Show progress, apart from the results."""
        sys.stderr.write(f"-- {text}\n")
