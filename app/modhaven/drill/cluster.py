"""The cluster that is drilled: its clocks, its files, and the loads that ask for them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from modhaven import modpath
from modhaven.drill import targets
from modhaven.drill.hosts import HostError
from modhaven.drill.observe import MUTABLE, Builds, Clocks, Loads
from modhaven.drill.plan import LOAD_SECONDS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from modhaven.drill.faults import Helper
    from modhaven.drill.plan import Plan


class Cluster:
    """The cluster that is drilled, and what is asked of it."""

    def __init__(self, plan: Plan, helper: Helper, still_broken: list[str]) -> None:
        """Reach every host, and learn what files look like; HostError.

        ``still_broken`` gets the faults that nobody knows to be undone, in words.
        """
        self.plan = plan
        self.helper = helper
        self.still_broken = still_broken
        self.clocks = Clocks(list(dict.fromkeys([*plan.hosts, *plan.clients])))
        self.targets = targets.read(plan.targets)
        self.ready_sha256 = ""
        self.files: list[tuple[str, str]] = []
        self.cold_modules: list[list[str]] = []
        self.builds_why_not = "" if plan.group("clients") else "the inventory has no clients"
        self._learn()

    def load_plan(self, files: Sequence[tuple[str, str]], number: int = 0) -> dict[str, Any]:
        """Plan a load of files, each after another client's, with what only backends answer."""
        start = number * len(files) // max(1, len(self.plan.clients))
        ready = {"url": f"{self.plan.url}/readyz", "sha256": self.ready_sha256}
        pairs = [
            ({"url": self.plan.url + path, "sha256": sha256}, ready)
            for path, sha256 in [*files[start:], *files[:start]]
        ]
        return self.one_each([target for pair in pairs for target in pair]) | {
            "seconds": LOAD_SECONDS
        }

    def one_each(self, targets: Sequence[dict[str, str]], rate: float = 0.0) -> dict[str, Any]:
        """Plan a load that asks for each target once."""
        rate = rate or self.plan.rate
        return {
            "targets": list(targets),
            "allowed": self.plan.allowed,
            "addresses": dict(self.plan.addresses),
            "ca_file": self.plan.ca_file or None,
            "rate": rate,
            "seconds": len(targets) / rate,
            "timeout_seconds": 15,
        }

    def mutable(self, times: int = 6) -> list[dict[str, str]]:
        """Give lists and @latest of the plan's modules as targets, so many times."""
        paths = sorted(
            f"/{modpath.escape_path(module.partition('@')[0])}{end}"
            for module in self.plan.modules
            for end in MUTABLE
        )
        return [{"url": self.plan.url + path, "sha256": ""} for path in paths] * times

    def make_known(self) -> None:
        """Ask for everything once, so that the stores have it."""
        paths = [*self.files, *self._files_of_modules()]
        targets = [{"url": self.plan.url + path, "sha256": ""} for path, _ in paths]
        self._ask([*targets, *self.mutable(1)])
        if not self.builds_why_not:
            builds = Builds(self.plan.clients[0], self.clocks, [list(self.plan.modules)])
            try:
                builds.end()
            finally:
                builds.close()

    def _learn(self) -> None:
        ready = self._ask([{"url": f"{self.plan.url}/readyz", "sha256": ""}])
        (self.ready_sha256,) = ready.values()
        if self.helper:
            told: dict[str, Any] = self.helper.ask("files")
            self.files = [(one["path"], one["sha256"]) for one in told["files"]]
            modules = told["modules"]
            self.cold_modules = [modules[at : at + 2] for at in range(0, len(modules), 2)]
            return
        paths = [path for path, _ in self._files_of_modules()]
        found = self._ask([{"url": self.plan.url + path, "sha256": ""} for path in paths])
        self.files = [(path, found[self.plan.url + path]) for path in paths]

    def _files_of_modules(self) -> list[tuple[str, str]]:
        """Give the paths of the plan's modules. No .info: mirrors need not agree in its bytes."""
        found = []
        for module in self.plan.modules:
            path, _, version = module.partition("@")
            base = f"/{modpath.escape_path(path)}/@v/{modpath.escape_version(version)}"
            found += [(f"{base}.mod", ""), (f"{base}.zip", "")]
        return found

    def _ask(self, targets: Sequence[dict[str, str]]) -> dict[str, str]:
        """Ask for each once; give each body's SHA-256 by URL. HostError when one fails."""
        client = self.plan.clients[0]
        loads = Loads([client], self.clocks, lambda _: self.one_each(targets, rate=50))
        try:
            asked = loads.end(by_itself=True)
        finally:
            loads.close()
        failed = [one for one in asked if one.error]
        if failed:
            raise HostError(
                f"before anything was broken, {failed[0].url} gave {client.name} an error:"
                f" {failed[0].error}"
            )
        return {one.url: one.sha256 for one in asked}
