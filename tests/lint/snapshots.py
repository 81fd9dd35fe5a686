"""What nginx is given in every variant, as it was when somebody looked at it last.

``check ROOT VARIANT`` compares what was published below ROOT/etc/nginx with the committed snapshot,
``write`` replaces that. Of other variants than `default` only what differs from it is kept.
"""

from __future__ import annotations

import difflib
import re
import shutil
import sys
from pathlib import Path

SNAPSHOTS = Path(__file__).parent / "snapshots"
BASE = "default"
# What the default has and a variant has not.
ABSENT = "ABSENT"
# A certificate is a new one in every run.
_HASH = re.compile(r"\b[0-9a-f]{64}\b")

Tree = dict[str, str]


def published(root: Path) -> Tree:
    """Return the files below ROOT/etc/nginx that the roles and the pool manager wrote."""
    found = {}
    for name in ("modhaven", "modhaven.pool"):
        # The first one is a link.
        folder = (root / "etc/nginx" / name).resolve()
        for path in sorted(folder.rglob("*.conf")):
            text = _HASH.sub("(SHA-256)", path.read_text())
            found[f"{name}/{path.relative_to(folder)}"] = text
    return found


def read(variant: str) -> Tree:
    """Return a variant's snapshot as a whole; empty where there is none."""
    own = _files(SNAPSHOTS / variant)
    absent = own.pop(ABSENT, "").split()
    base = {} if variant == BASE else _files(SNAPSHOTS / BASE)
    return {name: text for name, text in (base | own).items() if name not in absent}


def write(variant: str, tree: Tree) -> None:
    """Replace a variant's snapshot; the base has to be written before the others."""
    folder = SNAPSHOTS / variant
    base = {} if variant == BASE else _files(SNAPSHOTS / BASE)
    own = {name: text for name, text in tree.items() if base.get(name) != text}
    if absent := sorted(base.keys() - tree.keys()):
        own[ABSENT] = "".join(f"{name}\n" for name in absent)
    shutil.rmtree(folder, ignore_errors=True)
    for name, text in own.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)


def difference(variant: str, tree: Tree) -> str:
    """Return a unified diff from the snapshot to ``tree``; empty when they are the same."""
    seen = read(variant)
    return "".join(
        line
        for name in sorted(seen.keys() | tree.keys())
        for line in difflib.unified_diff(
            seen.get(name, "").splitlines(keepends=True),
            tree.get(name, "").splitlines(keepends=True),
            f"tests/lint/snapshots/{variant}/{name}",
            f"rendered now: {name}",
        )
    )


def _files(folder: Path) -> Tree:
    paths = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {str(path.relative_to(folder)): path.read_text() for path in paths}


def main(action: str, root: str, variant: str) -> int:
    """Check or write one variant's snapshot; 1 when they differ."""
    tree = published(Path(root))
    if action == "write":
        write(variant, tree)
        return 0
    found = difference(variant, tree)
    if not found:
        return 0
    sys.stdout.write(
        f"{found}\nWhat nginx is given in the variant '{variant}' is not what its snapshot says. "
        "Is that what you meant? Then: make snapshots\n"
    )
    return 1


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
