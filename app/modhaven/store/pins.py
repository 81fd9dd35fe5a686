"""First use is what counts where no checksum database is asked: the hash a file had then."""

from __future__ import annotations

from typing import TYPE_CHECKING

from modhaven.store.files import store_error

if TYPE_CHECKING:
    from pathlib import Path

    from modhaven.store.files import Writer


class Pins:
    """One small file a key below ``folder``, which outlives the file it speaks of."""

    def __init__(self, folder: Path, writer: Writer) -> None:
        """Keep hashes in ``folder``."""
        self._folder = folder
        self._writer = writer

    def hash_of(self, key: str, actual: str) -> str:
        """Return the h1: hash that ``key`` is pinned to; ``actual``, from now, if it had none.

        The caller holds the key's lock. StoreError.
        """
        path = self.where(key)
        try:
            known = path.read_text(encoding="ascii", errors="replace").strip()
        except (FileNotFoundError, NotADirectoryError):
            self._writer.write(path, f"{actual}\n".encode())
            return actual
        except OSError as error:
            raise store_error(error) from error
        return known

    def where(self, key: str) -> Path:
        """Return the file that an operator removes to let other bytes in."""
        return self._folder / key
