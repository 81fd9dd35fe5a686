"""``direct``: modules from where their path says they are, by the go command with git.

Each call has a GOMODCACHE of its own, so that what it finds is what the origin has now; only the
repositories are shared (direct_cache.py): one that was cloned once is not cloned again, whatever is
asked about it. A canonical .info or .mod makes no zip.
"""

from __future__ import annotations

import os
import random
import re
import shutil
import time
from typing import TYPE_CHECKING, BinaryIO

from modhaven import direct_answers, direct_env, direct_sandbox, protocol
from modhaven.attempt import AttemptError, Deadline
from modhaven.breaker import Breaker
from modhaven.direct_answers import DamagedCloneError
from modhaven.latency import Latencies
from modhaven.protocol import Kind
from modhaven.store.files import disk_errors

if TYPE_CHECKING:
    from pathlib import Path

    from modhaven.chain_spec import UpstreamSpec
    from modhaven.direct_cache import Repositories
    from modhaven.direct_shared import Shared
    from modhaven.protocol import Request

_BACKOFF_SECONDS = 0.3
_CLONE = re.compile(rb"/cache/vcs/([0-9a-f]{64})")


class Direct:
    """A ``direct`` of the chain."""

    def __init__(self, spec: UpstreamSpec, shared: Shared) -> None:
        """Fetch as ``spec`` says; ``shared`` is for every ``direct`` of this process."""
        config = shared.config
        self.name = spec.name
        self.url = spec.url
        self.falls_through = spec.falls_through
        self.is_off = False
        self.is_direct = True
        self.breaker: Breaker = _NeverOpen(failures=1, open_seconds=0)
        self.latencies = Latencies()
        self._spec = spec
        self._shared = shared
        self._settings = direct_env.Settings(
            common=config.direct,
            ca_file=spec.ca_file or config.ca_file,
            proxy=spec.proxy,
            private=config.private,
        )
        self._total_seconds = spec.total_seconds or config.upstream_timeouts.total_seconds
        self._hurried_seconds = config.upstream_timeouts.first_byte_seconds
        self._retries = config.upstream_retries

    @property
    def serves_all(self) -> bool:
        """Tell that no checksum database is to be had here."""
        return False

    def is_for(self, module: str, *, private: bool) -> bool:
        """Tell whether ``module`` may be asked for here (UpstreamSpec.is_for)."""
        return self._spec.is_for(module, private=private)

    def probe_while_open(self) -> None:
        """Do nothing: it is never left out."""

    def recovers(self, *, seconds: float) -> bool:  # noqa: ARG002 - Source's
        """Tell that it was not left out."""
        return True

    def fetch(
        self, path: str, sink: BinaryIO, *, limit: int, deadline: Deadline, hurried: bool = False
    ) -> None:
        """Write what ``path`` is to ``sink``, at most ``limit`` bytes.

        A failure that may pass is tried again after a jittered pause, and so is one that lies in a
        clone, without it. ``hurried``: there is a stale answer, and nobody waits for long. Raises
        AttemptError, StoreError.
        """
        request = protocol.parse(f"/{path}")
        if "..." in request.module:
            raise AttemptError("not found: the go command takes ... for a pattern", not_found=True)
        seconds = self._hurried_seconds if hurried else self._total_seconds
        end = Deadline.after(min(deadline.left, seconds))
        try:
            with self._shared.place(end), disk_errors():
                self._fetch(request, sink, limit, end)
        except OSError as error:
            raise AttemptError(f"{self._shared.folder}: {error.strerror or error}") from error

    def _fetch(self, request: Request, sink: BinaryIO, limit: int, end: Deadline) -> None:
        healed = False
        for attempt in range(self._retries + 2):
            sink.seek(0)
            sink.truncate()
            try:
                self._fetch_once(request, sink, limit, end)
            except DamagedCloneError as error:
                if healed or not self._shared.repositories.remove(error.clones, seconds=end.left):
                    raise
                healed = True
            except AttemptError as error:
                pause = _BACKOFF_SECONDS * 2**attempt * _jitter()
                if not error.transient or attempt >= self._retries or pause > end.left:
                    raise
                time.sleep(pause)
            else:
                return

    def _fetch_once(self, request: Request, sink: BinaryIO, limit: int, end: Deadline) -> None:
        hosts = direct_env.netrc_hosts(self._settings.common.netrc_file)
        with self._shared.call() as folder:
            env = direct_env.prepare(folder, self._settings)
            self._shared.repositories.link(folder / "mod/cache/vcs")
            clones: set[str] = set()
            ended = direct_sandbox.run(
                [direct_env.find_go(self._settings.common.go), *direct_answers.arguments(request)],
                env=env,
                cwd=folder / "work",
                seconds=end.left,
                # No single file of a repository can be larger than all of them may be.
                max_file_bytes=self._settings.common.cache_max_bytes,
                on_stderr=_Trace(self._shared.repositories, clones),
            )
            answer = direct_answers.read(ended, clones, hosts)
            if request.kind is Kind.LIST:
                versions = answer.get("Versions", ())
                sink.write("".join(f"{version}\n" for version in versions).encode())
                return
            _copy(direct_answers.file_of(folder / "mod", request, answer), sink, limit)


class _NeverOpen(Breaker):
    """One origin that fails says nothing of the others."""

    def failed(self, reason: str = "", *, timed_out: bool) -> None:
        """Leave nothing out."""


class _Trace:
    """Learns from what -x writes which repositories are in use."""

    def __init__(self, repositories: Repositories, clones: set[str]) -> None:
        self._repositories = repositories
        self._clones = clones
        self._tail = b""

    def __call__(self, data: bytes) -> None:
        text = self._tail + data
        for found in _CLONE.findall(text):
            if (ident := found.decode()) not in self._clones:
                self._clones.add(ident)
                self._repositories.use(ident)
        self._tail = text[-100:]


def _copy(path: Path, sink: BinaryIO, limit: int) -> None:
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        if size > limit:
            raise AttemptError(f"the file has {size} bytes, more than {limit}")
        shutil.copyfileobj(file, sink)


def _jitter() -> float:
    return 0.5 + random.random()  # noqa: S311 - spreads retries, protects nothing
