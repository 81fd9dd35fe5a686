"""What a purge is about: one version, one module, all modules below a prefix, or every "not found".

A key is a request's path as stores and caches have it: escaped with ``!``, no leading slash
(protocol.Request.path). Prefixes match whole path elements: ``a/b`` covers ``a/b`` and ``a/b/c``,
not ``a/bc``; the module ``a/b`` covers neither.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from modhaven import modpath, protocol
from modhaven.checks import ConfigError
from modhaven.protocol import Kind

if TYPE_CHECKING:
    from typing import Self

CACHED_ONLY = "cached-only/"
_FILES = (".info", ".mod", ".zip")
# What a go command keeps beside them, in a store that was seeded from its cache.
_SEEDED = (".ziphash", ".lock")
_FIELDS = frozenset({"module", "version", "prefix", "negative"})


@dataclass(frozen=True, kw_only=True)
class Selection:
    """Exactly one of ``module`` (with or without ``version``), ``prefix`` and ``negative``."""

    module: str = ""
    version: str = ""
    prefix: str = ""
    negative: bool = False

    @classmethod
    def of_module(cls, text: str) -> Self:
        """Read ``module`` or ``module@version``; ConfigError says what is wrong with it."""
        module, at, version = text.partition("@")
        try:
            modpath.check_path(module)
            if at:
                # Refuses branches, commits, and v2.0.0 of a module without /v2.
                protocol.parse(f"/{_folder(module)}/@v/{_name(version)}.zip")
        except ValueError as error:
            raise ConfigError(
                f"{text} cannot be purged: {error}; name a module as in go.mod, with or without a"
                " whole version, as in github.com/corp/lib@v1.2.3"
            ) from None
        return cls(module=module, version=version)

    @classmethod
    def of_prefix(cls, text: str) -> Self:
        """Read the beginning of module paths, whole elements; ConfigError."""
        prefix = text.removesuffix("/...").removesuffix("/")
        try:
            # As a module below it would be written: a prefix alone may end like a major version.
            modpath.check_path(f"{prefix}/x")
        except modpath.InvalidPathError as error:
            raise ConfigError(
                f"the prefix {text} cannot be purged: {error}; name whole elements of module"
                " paths, as in github.com/corp"
            ) from None
        return cls(prefix=prefix)

    @classmethod
    def from_mapping(cls, data: dict[str, object]) -> Self:
        """Read what ``as_mapping`` wrote; ValueError."""
        if not set(data) <= _FIELDS:
            raise ValueError(f"not a selection: {data!r}")
        texts = {name: str(data.get(name, "")) for name in ("module", "version", "prefix")}
        return cls(**texts, negative=data.get("negative") is True)

    def as_mapping(self) -> dict[str, object]:
        """Return the fields that are set."""
        return {name: value for name, value in asdict(self).items() if value}

    def __str__(self) -> str:
        """Say what it is about, for people."""
        if self.negative:
            return 'every "not found"'
        if self.prefix:
            return f"all modules below {self.prefix}"
        return f"{self.module}@{self.version}" if self.version else self.module

    @cached_property
    def folder(self) -> str:
        """The escaped path of the module, or of the prefix."""
        return _folder(self.module) if self.module else _escape_prefix(self.prefix)

    @cached_property
    def files(self) -> tuple[str, ...]:
        """The keys of the version's files; with ``version`` only."""
        return tuple(f"{self.folder}/@v/{_name(self.version)}{suffix}" for suffix in _FILES)

    @cached_property
    def namesakes(self) -> tuple[str, ...]:
        """The keys of queries that look like versions: v2.0.0 may name v2.0.0+incompatible."""
        bare = self.version.removesuffix("+incompatible")
        return () if bare == self.version else (f"{self.folder}/@v/{_name(bare)}.info",)

    @cached_property
    def _names(self) -> frozenset[str]:
        return frozenset(f"{_name(self.version)}{suffix}" for suffix in _FILES + _SEEDED)

    def covers(self, key: str) -> bool:
        """Tell whether ``key`` belongs to it.

        Records of a checksum database never do: they are authenticated, and stay right. A version
        also covers what names it: its module's list, @latest, branches and commits.
        """
        if self.negative:
            return False
        key = key.removeprefix(CACHED_ONLY)
        if not key.startswith(self.folder):
            return False
        folder, found, name = key.partition("/@v/")
        if not found:
            folder, found, rest = key.rpartition("/@latest")
            if not found or rest:
                return False
        if self.prefix:
            return folder == self.folder or folder.startswith(f"{self.folder}/")
        if folder != self.folder:
            return False
        return not self.version or name in ("", "list") or self._names_it(key, name)

    def _names_it(self, key: str, name: str) -> bool:
        if name in self._names:
            return True
        try:
            return protocol.parse(f"/{key}").kind is Kind.QUERY
        except (protocol.MalformedError, protocol.NoSuchResourceError):
            return False


NEGATIVE = Selection(negative=True)


def _folder(module: str) -> str:
    return modpath.escape_path(module)


def _name(version: str) -> str:
    return modpath.escape_version(version)


def _escape_prefix(prefix: str) -> str:
    return modpath.escape_path(f"{prefix}/x").removesuffix("/x")
