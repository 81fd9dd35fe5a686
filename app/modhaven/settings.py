"""The parts of the configuration: what each section holds, and its defaults."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


@dataclass(frozen=True, slots=True, kw_only=True)
class SumDB:
    """A checksum database: its name, its verifier key ``name+hash+key``, and where it answers.

    ``modules`` are patterns of the only modules it verifies, none: of all that no other names.
    ``proxy``, ``ca_file`` and ``credentials_file`` are as an upstream's.
    """

    name: str
    key: str
    url: str
    modules: str = ""
    proxy: str = ""
    ca_file: Path | None = None
    credentials_file: Path | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Timeouts:
    """Bounds of one request to an upstream.

    ``patience_seconds`` bounds connecting and the wait for the first byte together, as long as
    there is another upstream to ask; ``first_byte_seconds`` when none has answered in time.
    """

    connect_seconds: float = 2.0
    patience_seconds: float = 1.5
    first_byte_seconds: float = 15.0
    total_seconds: float = 300.0


@dataclass(frozen=True, slots=True, kw_only=True)
class BreakerConfig:
    """When an upstream is left out: after ``failures`` in a row, probed every ``open_seconds``."""

    failures: int = 3
    open_seconds: float = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Hedge:
    """When the next upstream is asked too, for a small answer that may change.

    After the time in which the first one usually answers, within these bounds.
    """

    enabled: bool = True
    min_seconds: float = 0.3
    max_seconds: float = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Freshness:
    """How long answers that may change are kept."""

    mutable_seconds: int = 60
    not_found_seconds: int = 60
    stale_max_seconds: int = 604800

    @property
    def usable_seconds(self) -> int:
        """Seconds for which an answer is fresh or may be given while it is fetched anew."""
        return self.mutable_seconds + min(self.mutable_seconds, self.stale_max_seconds)


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreConfig:
    """Where modules are kept, what stays free of the file system, and the quarantine's bound."""

    path: Path
    min_free_bytes: int = 1 << 30
    quarantine_max_bytes: int = 1 << 30


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """How many requests of a kind one process lets wait for upstreams; further ones are refused."""

    zip_requests: int = 256
    file_requests: int = 96
    mutable_requests: int = 96

    @property
    def threads(self) -> int:
        """Threads of a process: one for each place, and some for what needs none."""
        return self.zip_requests + self.file_requests + self.mutable_requests + 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Peer:
    """A sibling backend, asked for what its store holds when every upstream has failed."""

    name: str
    url: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PeerTLS:
    """What peers are checked against, and what we show them: PEM files."""

    ca_file: Path
    certificate_file: Path
    key_file: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class SSHHost:
    """A host whose repositories are fetched over SSH, with the private key in ``key_file``."""

    host: str
    key_file: Path
    user: str = "git"
    port: int = 22


@dataclass(frozen=True, slots=True, kw_only=True)
class DirectConfig:
    """How modules are fetched from their origins: the go command, and what it may use.

    ``vcs`` has the syntax of GOVCS, ``insecure`` that of GOINSECURE. ``processes`` bounds the go
    commands of one worker process.
    """

    go: str = "go"
    processes: int = 4
    vcs: str = "*:git"
    insecure: str = ""
    netrc_file: Path | None = None
    ssh: tuple[SSHHost, ...] = ()
    known_hosts_file: Path | None = None
    cache_max_bytes: int = 10 << 30
