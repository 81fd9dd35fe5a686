"""The rounds of the daemon, with a clock, backends and an nginx that do as the test says."""

from __future__ import annotations

import shutil
from dataclasses import replace
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any

import pytest
from tests.conftest import ROOT

from modhaven.checks import ConfigError
from modhaven.pool import earlier, manager, status
from modhaven.pool.drains import Drains
from modhaven.pool.health import Seen
from modhaven.pool.manager import Manager
from modhaven.pool.nginx import Nginx, NginxError
from modhaven.pool.paths import Paths

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from modhaven.pool.settings import PoolConfig
    from modhaven.pool.status import PoolStatus


class FakeBackends:
    """Says of each backend what the test has written into ``states``."""

    states: dict[str, str] = {}  # noqa: RUF012 - one for all, cleared by the fixture

    def __init__(self, _on_change: object) -> None:
        self._known: dict[str, Seen] = {}

    def configure(self, config: PoolConfig, known: Mapping[str, Seen]) -> None:
        self._known = {
            one.name: self._known.get(one.name) or known.get(one.name) or Seen()
            for one in config.servers
        }

    def seen(self) -> dict[str, Seen]:
        return {
            name: replace(seen, state=self.states.get(name, seen.state), since=1.0)
            for name, seen in self._known.items()
        }

    def stop(self) -> None:
        pass


class Edge:
    """One edge's files, and the moments at which its nginx loaded them."""

    def __init__(self, root: Path) -> None:
        self.paths = Paths.below(root)
        self.now = 100.0
        self.connections = 0
        self.loads: list[float] = []
        self.refusal = ""
        for path in (self.paths.config, self.paths.status):
            path.parent.mkdir(parents=True)
        shutil.copy(ROOT / "templates/nginx/upstream.conf.j2", self.paths.template)
        self.write("a", "b", "c")

    def write(
        self, *names: str, at: Mapping[str, str] | None = None, backup: str = "", **more: Any
    ) -> None:
        places = dict.fromkeys(names, "127.0.0.1") | dict(at or {})
        lines = [
            f"- {{name: {name}, address: {places[name]}, port: 80, backup: {name == backup}}}"
            for name in names
        ]
        lines = ["servers:", *lines, *(f"{key}: {value}" for key, value in more.items())]
        self.paths.config.write_text("\n".join(lines))

    def start(self) -> Manager:
        return Manager(self.paths, connections=lambda: self.connections, clock=lambda: self.now)

    def run(self, daemon: Manager, seconds: float) -> PoolStatus:
        for _ in range(round(seconds * 4)):
            self.now += 0.25
            daemon.tick()
        return self.told()

    def told(self) -> PoolStatus:
        found = status.read(self.paths.status)
        assert found is not None
        return found

    def pool(self) -> str:
        return (self.paths.nginx / "modhaven.pool/upstream.conf").read_text()

    def asked(self) -> str:
        lines = earlier.LISTED.finditer(self.pool())
        names = (one["name"] for one in lines if one["reason"] in (None, "resting"))
        # Who is left alone is there twice.
        return " ".join(dict.fromkeys(names))


@pytest.fixture
def edge(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Edge:
    # Tests of `modhaven serve` leave it; the pool manager is one process.
    monkeypatch.delenv("PROMETHEUS_MULTIPROC_DIR", raising=False)
    made = Edge(tmp_path)
    FakeBackends.states.clear()

    def check(_self: Nginx, _text: str) -> None:
        if made.refusal:
            raise NginxError(made.refusal)

    def reload(self: Nginx) -> bool:
        made.loads.append(made.now)
        self._due.unlink(missing_ok=True)
        return True

    monkeypatch.setattr(manager, "Backends", FakeBackends)
    monkeypatch.setattr(Nginx, "_check", check)
    monkeypatch.setattr(Nginx, "reload", reload)
    (made.paths.nginx / "modhaven").mkdir(parents=True)
    manager.initial(made.paths)
    made.loads.clear()
    return made


def test_everyone_is_asked_until_the_manager_knows_better(edge: Edge) -> None:
    assert edge.asked() == "a b c"
    assert not manager.initial(edge.paths)
    told = edge.run(edge.start(), 10)
    assert edge.loads == []
    assert (told.published, told.reloads, told.error) == (True, 0, "")
    assert [server.state for server in told.servers] == ["up"] * 3


def test_no_two_reloads_within_the_pause_however_much_it_flaps(edge: Edge) -> None:
    daemon = edge.start()
    for step in range(80):
        FakeBackends.states["a"] = "down" if step % 2 else "up"
        edge.run(daemon, 0.25)
    pauses = [after - before for before, after in zip(edge.loads, edge.loads[1:], strict=False)]
    assert pauses
    assert min(pauses) >= 2.0


def test_the_pause_begins_when_nginx_has_loaded_and_not_when_it_was_asked(
    edge: Edge, monkeypatch: pytest.MonkeyPatch
) -> None:
    reload = Nginx.reload

    def slow(self: Nginx) -> bool:
        edge.now += 1.5
        return reload(self)

    monkeypatch.setattr(Nginx, "reload", slow)
    daemon = edge.start()
    for letter in ("a", "b"):
        FakeBackends.states[letter] = "down"
        edge.run(daemon, 0.25)
    edge.run(daemon, 4)
    assert len(edge.loads) == 2
    assert edge.loads[1] - 1.5 - edge.loads[0] >= 2.0


def test_a_refused_pool_is_said_kept_and_tried_again(edge: Edge) -> None:
    daemon = edge.start()
    edge.run(daemon, 1)
    edge.refusal = "nginx -t refused the pool: something else is broken"
    FakeBackends.states["a"] = "down"
    told = edge.run(daemon, 1)
    assert (told.published, told.error) == (False, edge.refusal)
    assert edge.asked() == "a b c"
    edge.run(daemon, 20)
    assert edge.loads == []
    edge.refusal = ""
    told = edge.run(daemon, 6)
    assert (told.published, told.error, told.reloads) == (True, "", 1)
    assert edge.asked() == "b c"


def test_a_refusal_is_forgotten_when_nothing_is_wanted_any_more(edge: Edge) -> None:
    daemon = edge.start()
    edge.refusal = "refused"
    FakeBackends.states["a"] = "down"
    edge.run(daemon, 1)
    FakeBackends.states["a"] = "up"
    told = edge.run(daemon, 1)
    assert (told.published, told.error) == (True, "")


def test_what_nginx_has_not_got_is_never_told_as_done(edge: Edge) -> None:
    daemon = edge.start()
    edge.run(daemon, 1)
    edge.paths.template.write_text("{% for %}")
    Drains(edge.paths.drained).add("a", "x")
    told = edge.run(daemon, 1)
    assert not told.published
    assert "cannot be rendered" in told.error
    assert edge.asked() == "a b c"


def test_a_new_template_is_published(edge: Edge) -> None:
    daemon = edge.start()
    edge.run(daemon, 1)
    with edge.paths.template.open("a") as template:
        template.write("# another end\n")
    assert edge.run(daemon, 1).reloads == 1
    assert (edge.paths.nginx / "modhaven.pool/upstream.conf").read_text().endswith("another end\n")


def test_a_broken_pool_yml_is_said_until_it_is_mended_and_the_pool_goes_on(edge: Edge) -> None:
    daemon = edge.start()
    edge.run(daemon, 1)
    edge.paths.config.write_text("servers: []")
    sentence = "the pool stays as it was: servers must be a list with at least one server"
    assert edge.run(daemon, 1).error == sentence
    # A reload of something else does not make it right.
    FakeBackends.states["a"] = "down"
    told = edge.run(daemon, 3)
    assert (told.reloads, told.error) == (1, sentence)
    edge.paths.config.unlink()
    assert "cannot be read" in edge.run(daemon, 1).error
    edge.write("a", "b")
    told = edge.run(daemon, 3)
    assert (told.error, edge.asked()) == ("", "b")


def test_who_is_added_costs_one_reload_when_it_is_ready_and_none_before(edge: Edge) -> None:
    daemon = edge.start()
    edge.run(daemon, 1)
    edge.write("a", "b", "c", "d")
    told = edge.run(daemon, 5)
    assert (told.servers[3].state, told.reloads) == ("joining", 0)
    FakeBackends.states["d"] = "up"
    told = edge.run(daemon, 5)
    assert (told.servers[3].state, told.reloads, edge.asked()) == ("up", 1, "a b c d")


def test_who_is_removed_is_gone_with_one_reload(edge: Edge) -> None:
    daemon = edge.start()
    edge.run(daemon, 1)
    edge.write("a", "b")
    assert edge.run(daemon, 5).reloads == 1
    assert edge.asked() == "a b"


def test_a_drain_of_someone_who_is_gone_harms_nobody(edge: Edge) -> None:
    daemon = edge.start()
    Drains(edge.paths.drained).add("c", "old")
    edge.run(daemon, 1)
    edge.write("a", "b")
    told = edge.run(daemon, 5)
    assert (told.error, edge.asked()) == ("", "a b")
    # It comes back, and is still what somebody decided; status says so.
    edge.write("a", "b", "c")
    FakeBackends.states["c"] = "up"
    told = edge.run(daemon, 5)
    assert (told.servers[2].state, told.servers[2].reason) == ("drained", "old")
    assert edge.asked() == "a b"


def test_drains_that_cannot_be_read_let_nobody_in(edge: Edge) -> None:
    daemon = edge.start()
    Drains(edge.paths.drained).add("c", "x")
    edge.run(daemon, 1)
    folder = edge.paths.drained
    shutil.rmtree(folder)
    folder.write_text("in the way")
    told = edge.run(daemon, 5)
    assert "who is drained stays as it was" in told.error
    assert edge.asked() == "a b"
    folder.unlink()
    told = edge.run(daemon, 5)
    assert (told.error, edge.asked()) == ("", "a b c")


def test_a_restart_takes_up_where_the_last_one_ended(edge: Edge) -> None:
    daemon = edge.start()
    FakeBackends.states.update(a="down")
    Drains(edge.paths.drained).add("b", "x")
    edge.run(daemon, 5)
    assert edge.asked() == "c"
    edge.loads.clear()
    # Nothing was probed yet: nobody is let in, and nobody is thrown out.
    FakeBackends.states.clear()
    told = edge.run(edge.start(), 5)
    assert edge.loads == []
    assert [server.state for server in told.servers] == ["down", "drained", "up"]


def test_a_restart_while_too_few_are_ready_changes_nothing_for_nginx(edge: Edge) -> None:
    daemon = edge.start()
    FakeBackends.states.update(dict.fromkeys("abc", "down"))
    assert edge.run(daemon, 5).kept
    before = edge.pool()
    edge.loads.clear()
    # Nothing was probed yet.
    FakeBackends.states.clear()
    told = edge.run(edge.start(), 5)
    assert (edge.loads, edge.pool()) == ([], before)
    assert [server.state for server in told.servers] == ["kept"] * 3


def test_who_was_given_another_place_while_no_manager_ran_is_asked_when_it_is_ready(
    edge: Edge,
) -> None:
    edge.run(edge.start(), 1)
    edge.write("a", "b", "c", at={"a": "10.9.9.9"})
    daemon = edge.start()
    told = edge.run(daemon, 1)
    assert (told.servers[0].state, edge.asked()) == ("joining", "b c")
    FakeBackends.states["a"] = "up"
    edge.run(daemon, 3)
    assert edge.asked() == "a b c"


def test_drains_that_cannot_be_read_at_the_start_let_nobody_in(edge: Edge) -> None:
    Drains(edge.paths.drained).add("c", "x")
    edge.run(edge.start(), 1)
    shutil.rmtree(edge.paths.drained)
    edge.paths.drained.write_text("in the way")
    told = edge.run(edge.start(), 5)
    assert "who is drained stays as it was" in told.error
    assert (edge.asked(), told.servers[2].state) == ("a b", "drained")


def test_a_pool_that_was_put_back_is_no_change_of_somebody_else(
    edge: Edge, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    daemon = edge.start()
    edge.run(daemon, 1)
    reload = Nginx.reload

    def fails(_self: Nginx) -> bool:
        raise NginxError("no new worker")

    monkeypatch.setattr(Nginx, "reload", fails)
    FakeBackends.states["a"] = "down"
    edge.run(daemon, 2)
    assert edge.asked() == "a b c"
    monkeypatch.setattr(Nginx, "reload", reload)
    edge.run(daemon, 6)
    assert edge.asked() == "b c"
    assert "somebody else" not in caplog.text


def test_an_end_between_swap_and_reload_is_made_good(
    edge: Edge, monkeypatch: pytest.MonkeyPatch
) -> None:
    daemon = edge.start()
    edge.run(daemon, 1)
    FakeBackends.states["a"] = "down"
    reload = Nginx.reload

    def dies(_self: Nginx) -> bool:
        raise KeyboardInterrupt

    monkeypatch.setattr(Nginx, "reload", dies)
    with pytest.raises(KeyboardInterrupt):
        edge.run(daemon, 1)
    monkeypatch.setattr(Nginx, "reload", reload)
    assert (edge.asked(), edge.loads) == ("b c", [])
    told = edge.run(edge.start(), 5)
    assert len(edge.loads) == 1
    assert told.published


def test_an_nginx_that_does_not_run_gets_the_pool_when_it_starts(
    edge: Edge, monkeypatch: pytest.MonkeyPatch
) -> None:
    reload = Nginx.reload
    monkeypatch.setattr(Nginx, "reload", lambda _self: False)
    daemon = edge.start()
    FakeBackends.states["a"] = "down"
    told = edge.run(daemon, 5)
    assert (told.published, told.reloads) == (True, 0)
    assert told.error == "nginx does not run: it takes the pool when it starts"
    monkeypatch.setattr(Nginx, "reload", reload)
    told = edge.run(daemon, 5)
    # It may have been reading its configuration while the file was swapped.
    assert (told.reloads, told.error) == (1, "")


def test_what_somebody_else_writes_is_put_right(edge: Edge) -> None:
    daemon = edge.start()
    edge.run(daemon, 1)
    file = edge.paths.nginx / "modhaven.pool/upstream.conf"
    right = file.read_text()
    for spoil in (lambda: file.write_text("upstream modhaven_pool {}\n"), file.unlink):
        spoil()
        edge.run(daemon, 5)
        assert file.read_text() == right
    assert len(edge.loads) == 2


def test_a_surge_promotes_backups_and_a_new_pool_yml_does_not_end_it(edge: Edge) -> None:
    surge = "{minimum_connections: 10, quiet_seconds: 60}"
    edge.write("a", "s", surge=surge, backup="s")
    edge.connections = 10
    daemon = edge.start()
    edge.run(daemon, 5)
    edge.connections = 1000
    assert edge.run(daemon, 10).promoted
    # More servers are what somebody adds in a surge.
    edge.write("a", "s", "d", surge=surge, backup="s")
    told = edge.run(daemon, 10)
    assert (told.promoted, round(told.baseline, -1)) == (True, 10)
    # Nor does the death of the manager.
    daemon = edge.start()
    told = edge.run(daemon, 10)
    assert (told.promoted, round(told.baseline, -1)) == (True, 10)
    edge.connections = 10
    assert not edge.run(daemon, 120).promoted


def test_a_surge_on_an_edge_that_was_idle_outlives_the_manager(edge: Edge) -> None:
    edge.write("a", "s", surge="{minimum_connections: 10, quiet_seconds: 60}", backup="s")
    daemon = edge.start()
    assert edge.run(daemon, 0.25).baseline == 0
    edge.connections = 1000
    told = edge.run(daemon, 0.25)
    assert told.promoted
    status.write(edge.paths.status, replace(told, baseline=0.0))
    assert edge.run(edge.start(), 120).promoted


def test_where_there_are_no_backups_none_are_said_to_serve(
    edge: Edge, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    edge.write("a", "b", surge="{minimum_connections: 10, quiet_seconds: 60}")
    daemon = edge.start()
    edge.run(daemon, 1)
    edge.connections = 1000
    assert not edge.run(daemon, 10).promoted
    assert "backups" not in caplog.text


def test_a_status_that_cannot_be_written_does_not_stop_the_pool(edge: Edge) -> None:
    daemon = edge.start()
    edge.run(daemon, 1)
    shutil.rmtree(edge.paths.status.parent)
    FakeBackends.states["a"] = "down"
    for _ in range(4):
        edge.now += 1
        daemon.tick()
    assert edge.asked() == "b c"
    edge.paths.status.parent.mkdir()
    assert edge.run(daemon, 1).error == ""


def test_all_drained_is_not_nobody(edge: Edge) -> None:
    for name in "abc":
        Drains(edge.paths.drained).add(name, "x")
    told = edge.run(edge.start(), 3)
    assert (edge.asked(), told.kept) == ("a b c", True)


def test_the_daemon_does_not_start_with_a_broken_pool_yml(edge: Edge) -> None:
    edge.paths.config.write_text("- no mapping")
    with pytest.raises(ConfigError, match="must be a mapping"):
        edge.start()


def test_the_initial_pool_leaves_out_who_is_drained(edge: Edge) -> None:
    shutil.rmtree(edge.paths.nginx)
    Drains(edge.paths.drained).add("b", "x")
    assert manager.initial(edge.paths)
    assert edge.asked() == "a c"


def test_names_become_addresses_and_one_that_has_none_waits(edge: Edge) -> None:
    shutil.rmtree(edge.paths.nginx)
    edge.write("a", "b", at={"a": "localhost", "b": "nowhere.invalid"})
    assert manager.initial(edge.paths)
    assert edge.asked() == "a"
    (listed, *_) = earlier.LISTED.finditer(edge.pool())
    assert listed["looked_up"] == "localhost"
    assert ip_address(listed["address"]).is_loopback


def test_without_any_address_there_is_no_initial_pool(edge: Edge) -> None:
    """It would be refused, and be in place for ever."""
    shutil.rmtree(edge.paths.nginx)
    edge.write("a", "b", at={"a": "nowhere.invalid", "b": "double..dot"})
    with pytest.raises(NginxError, match="no backend of the pool has a name that can be looked"):
        manager.initial(edge.paths)
    assert not edge.paths.nginx.exists()


def test_metrics_say_what_the_status_says(edge: Edge) -> None:
    daemon = edge.start()
    FakeBackends.states["a"] = "down"
    edge.run(daemon, 5)
    text = edge.paths.metrics.read_text()
    for line in (
        'modhaven_pool_backend_asked{backend="a",state="down"} 0.0',
        'modhaven_pool_backend_asked{backend="b",state="up"} 1.0',
        "modhaven_pool_reloads_total 1.0",
        "modhaven_pool_failures_total 0.0",
        "modhaven_pool_published 1.0",
        "modhaven_pool_problem 0.0",
    ):
        assert f"{line}\n" in text
    assert "modhaven_pool_updated_timestamp_seconds " in text
