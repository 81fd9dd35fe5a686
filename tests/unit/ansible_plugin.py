"""Loads Ansible's plugins, which belong to no package, by their path."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from types import ModuleType

ROOT = Path(__file__).parents[2]


def load(relative: str) -> ModuleType:
    """A fresh module from plugins/`relative`, such as "filter/host.py"."""
    path = ROOT / "plugins" / relative
    spec = importlib.util.spec_from_file_location(f"tested_{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def is_one_sentence(text: str) -> bool:
    """Whether `text` is one line with one full stop, at its end (not those inside addresses)."""
    return "\n" not in text and text.endswith(".") and not re.search(r"[.!?]\s", text)
