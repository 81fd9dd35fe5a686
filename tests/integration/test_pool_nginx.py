"""``modhaven pool`` with a real nginx: who hangs is out, who is drained is spared, and no more."""

from __future__ import annotations

import itertools
import shutil
import signal
import time
import urllib.error
import urllib.request
from typing import TYPE_CHECKING

import pytest
from tests.integration.pool_edge import Edge, Load, work_on_b1
from tests.unit.ansible_plugin import load

from modhaven.pool import nginx, plan
from modhaven.pool.drains import Drains
from modhaven.pool.nginx import Nginx
from modhaven.pool.settings import Limits, Server

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

pytestmark = pytest.mark.integration
HUNG_SECONDS = 3.0
THOUSAND_SECONDS = 2.0


def hang_and_back(edge: Edge, say: Callable[[str], None], rounds: int) -> None:
    backend = edge.backends["b1"]
    out, back = [], []
    for _ in range(rounds):
        backend.signal(signal.SIGSTOP)
        try:
            out.append(edge.wait_state("b1", "down"))
            assert "b1" not in edge.answers()
            assert edge.server("b1").error == "no answer within 0.8 s"
        finally:
            backend.signal(signal.SIGCONT)
        back.append(edge.wait_state("b1", "up"))
        assert "b1" in edge.answers()
    say(
        f"hung backend out of nginx's pool after {', '.join(f'{one:.2f}' for one in out)} s, "
        f"back after {', '.join(f'{one:.2f}' for one in back)} s"
    )
    assert max(out) <= HUNG_SECONDS


def test_a_backend_that_hangs_is_out_within_three_seconds_and_comes_back(
    edge: Edge, say: Callable[[str], None]
) -> None:
    edge.start("b1", "b2", "b3")
    hang_and_back(edge, say, rounds=4)


def test_the_same_over_mutual_tls(
    tmp_path: Path, program: Path, say: Callable[[str], None]
) -> None:
    for name in ("pki", "other"):
        (tmp_path / name / "hosts").mkdir(parents=True)
    authority = load("modules/host_certificates.py").Authority(tmp_path / "pki")
    authority.create("test", 30)
    authority.issue("host", ["backends.internal"], 30)
    for name in ("host.crt", "host.key"):
        shutil.copy(tmp_path / "pki/hosts" / name, tmp_path / "pki")
    with Edge(tmp_path / "edge", program, tmp_path / "pki") as edge:
        edge.start("b1", "b2")
        hang_and_back(edge, say, rounds=2)
        # A certificate of somebody else's is no backend.
        other = load("modules/host_certificates.py").Authority(tmp_path / "other")
        other.create("other", 30)
        shutil.copy(tmp_path / "other/ca.crt", tmp_path / "pki/ca.crt")
        edge.stop_daemon()
        edge.start_daemon()
        told = edge.wait("both kept", lambda told: told.kept and told.servers[1].state == "kept")
        assert told.servers[0].error.startswith("its certificate is refused: ")


def test_a_backend_that_is_killed_costs_no_request(edge: Edge, say: Callable[[str], None]) -> None:
    edge.start("b1", "b2", "b3")
    with Load(edge) as load_:
        edge.backends["b1"].stop()
        seconds = edge.wait_state("b1", "down")
        edge.backends["b1"].start()
        edge.wait_state("b1", "up")
    say(f"killed backend out after {seconds:.2f} s; {load_.answers.total()} requests, 0 failed")
    assert load_.failures == []
    assert edge.server("b1").error in ("connection refused", "connection reset by peer")


def test_who_says_it_is_not_ready_is_believed_with_its_reason(edge: Edge) -> None:
    edge.start("b1", "b2")
    edge.backends["b1"].ready(ready=False, reason="the disk is full\nand more\n")
    edge.wait_state("b1", "down")
    assert edge.server("b1").error == "503 the disk is full"
    edge.backends["b1"].ready(ready=True)
    edge.wait_state("b1", "up")
    # It stays known.
    assert edge.server("b1").error == "503 the disk is full"


def test_draining_under_load_fails_nothing_and_waits_for_what_is_under_way(
    edge: Edge, say: Callable[[str], None]
) -> None:
    edge.start("b1", "b2", "b3")
    with Load(edge) as quick, Load(edge, "/slow/2", threads=9) as slow:
        edge.wait("work", lambda told: all((one.in_flight or 0) > 1 for one in told.servers))
        begun = time.monotonic()
        done = edge.pool("drain", "b1", "--reason", "a new disk")
        seconds = time.monotonic() - begun
        assert (done.returncode, done.stdout) == (
            0, "b1 is drained: no new requests go there\nb1 has answered all it was asked\n",
        ), done.stderr  # fmt: skip
        assert "b1" not in edge.answers()
        # Nobody works there any more: it may be ended.
        edge.backends["b1"].stop()
        edge.backends["b1"].start()
        # What somebody decided outlives the manager.
        assert edge.daemon is not None
        edge.daemon.kill()
        edge.daemon.wait()
        edge.answers()
        edge.start_daemon()
        assert edge.server("b1").state == "drained"
        assert "b1" not in edge.answers()
        done = edge.pool("undrain", "b1")
        assert (done.returncode, done.stdout) == (
            0, "b1 is no longer drained\nb1 is asked again\n",
        ), done.stderr  # fmt: skip
    # Not under load: whoever has one slow request more than the others gets none for a while.
    assert "b1" in edge.answers()
    total = quick.answers.total() + slow.answers.total()
    say(f"drained in {seconds:.2f} s with requests of 2 s; {total} requests, 0 failed")
    assert quick.failures + slow.failures == []


def test_a_drain_that_takes_too_long_says_what_is_left(edge: Edge) -> None:
    with work_on_b1(edge, 9) as slow:
        done = edge.pool("drain", "b1", "--wait", "1.5")
        assert done.returncode == 1
        assert done.stderr == "modhaven: b1 still works on 1 requests after 1.5 s\n"
        # Asked again it goes on waiting, and not waiting is a choice.
        assert edge.pool("drain", "b1", "--wait", "0").returncode == 0
        done = edge.pool("drain", "b1")
        assert "b1 is drained already" in done.stdout
        assert "b1 has answered all it was asked" in done.stdout
        assert slow.done()


def test_the_death_of_the_manager_changes_nothing_for_nginx(edge: Edge) -> None:
    edge.start("b1", "b2", "b3")
    edge.backends["b3"].stop()
    edge.wait_state("b3", "down")
    workers, listed = edge.workers(), edge.listed()
    assert edge.daemon is not None
    with Load(edge) as load_:
        edge.daemon.kill()
        edge.daemon.wait()
        assert edge.pool("status").returncode == 2
        edge.start_daemon()
        began = time.time()
        told = edge.wait("two seconds of rounds", lambda told: told.time > began + 2)
    assert load_.failures == []
    assert (told.reloads, told.published) == (0, True)
    assert (edge.workers(), edge.listed()) == (workers, listed)
    assert [one.state for one in told.servers] == ["up", "up", "down"]


def test_only_one_manager_writes(edge: Edge) -> None:
    edge.start("b1")
    done = edge.pool("run")
    assert (done.returncode, done.stderr) == (
        2, "modhaven: another pool manager runs on this host already\n",
    )  # fmt: skip


def test_a_new_backend_costs_one_reload_and_only_when_it_is_ready(edge: Edge) -> None:
    edge.start("b1", "b2")
    before = edge.workers()
    edge.backend("b3").ready(ready=False)
    edge.write_pool()
    told = edge.wait("b3", lambda told: told.server("b3") is not None)
    told = edge.wait("b3 asked", lambda told: bool(told.servers[2].error))
    began = time.time()
    told = edge.wait("two seconds of rounds", lambda told: told.time > began + 2)
    assert (told.servers[2].state, told.reloads, edge.workers()) == ("joining", 0, before)
    assert edge.pool("settle").returncode == 0
    edge.backends["b3"].ready(ready=True)
    edge.wait_state("b3", "up")
    generation = edge.workers()
    assert "b3" in edge.answers()
    began = time.time()
    told = edge.wait("three seconds of rounds", lambda told: told.time > began + 3)
    assert told.reloads == 1
    assert edge.workers() <= generation
    assert len(edge.listed()) == 3


def test_names_are_looked_up_by_the_manager_and_one_without_an_address_holds_nothing_up(
    edge: Edge,
) -> None:
    edge.start("b1", "b2", "b3")
    edge.backends["b1"].address = "localhost"
    edge.backend("b4").address = "nowhere.invalid"
    edge.write_pool()
    edge.wait("b4 looked for", lambda told: bool(told.servers[3:] and told.servers[3].error))
    assert edge.server("b4").error == "its address cannot be resolved"
    edge.wait_state("b1", "up")
    (line,) = [line for line in edge.listed() if line.endswith("  # b1 (localhost)")]
    assert line.split()[1] == f"127.0.0.1:{edge.backends['b1'].port}"
    edge.backends["b2"].signal(signal.SIGSTOP)
    edge.wait_state("b2", "down")
    edge.backends["b2"].signal(signal.SIGCONT)
    edge.wait_state("b2", "up")
    assert len(edge.listed()) == 3
    # The next manager takes the address for what it was.
    edge.stop_daemon()
    edge.start_daemon()
    began = time.time()
    told = edge.wait("two seconds of rounds", lambda told: told.time > began + 2)
    assert (told.reloads, told.error, set(edge.answers())) == (0, "", {"b1", "b2", "b3"})


def test_a_flapping_backend_causes_at_most_a_reload_every_two_seconds(
    edge: Edge, say: Callable[[str], None]
) -> None:
    edge.start("b1", "b2", probe={"rise": 1, "fall": 1, "interval_seconds": 0.05})
    loaded: list[float] = []
    reloads, ready = 0, True
    end = time.monotonic() + 9
    with Load(edge, pause=0.05) as load_:
        while time.monotonic() < end:
            ready = not ready
            edge.backends["b1"].ready(ready=ready)
            told = edge.told()
            if told is not None and told.reloads > reloads:
                reloads = told.reloads
                loaded.append(time.monotonic())
            time.sleep(0.02)  # the flapping itself
    pauses = [after - before for before, after in itertools.pairwise(loaded)]
    say(f"flapping: {reloads} reloads in 9 s, at least {min(pauses):.2f} s apart")
    # Seen in the status, which is written a moment later.
    assert min(pauses) > 1.8
    assert load_.failures == []


def test_when_too_many_are_down_all_are_asked_and_it_is_said(edge: Edge) -> None:
    edge.start("b1", "b2", "b3", max_removed_share=0.5)
    edge.backends["b1"].ready(ready=False)
    edge.wait_state("b1", "down")
    edge.backends["b2"].ready(ready=False)
    told = edge.wait("kept", lambda told: told.kept and told.published)
    assert not any(" down;" in line for line in edge.listed())
    assert [one.state for one in told.servers] == ["kept", "kept", "up"]
    shown = edge.pool("status").stdout
    assert "so these are asked all the same: b1, b2." in shown
    assert "modhaven_pool_kept 1.0" in edge.paths.metrics.read_text() or edge.wait(
        "metrics", lambda _: "modhaven_pool_kept 1.0" in edge.paths.metrics.read_text()
    )
    # Down, and all others as well: draining the one that is ready would leave nobody.
    done = edge.pool("drain", "b3")
    assert done.returncode == 2
    assert done.stderr == (
        "modhaven: b3 is the only backend that is ready: nobody would answer without it; "
        "undrain or repair another one first\n"
    )
    edge.backends["b1"].ready(ready=True)
    edge.wait("b2 out", lambda told: not told.kept and told.published)
    assert [" down;" in line for line in edge.listed()] == [False, True, False]


def test_a_backup_alone_serves_while_all_others_are_dead(edge: Edge) -> None:
    primaries = ["b1", "b2", "b3", "b4"]
    entries = [edge.backend(name).entry for name in (*primaries, "b5")]
    entries[4]["backup"] = True
    # nginx asks those that failed again and again.
    edge.start_with(*entries, limits={"max_fails": 2, "fail_timeout_seconds": 1, "keepalive": 8})
    for name in primaries:
        edge.backends[name].stop()
    states = ["kept"] * 4 + ["up"]
    edge.wait(
        "all kept", lambda told: told.published and [one.state for one in told.servers] == states
    )
    with Load(edge) as load_:
        edge.wait("requests", lambda _: load_.answers.total() + len(load_.failures) > 1000)
    assert load_.failures == []
    assert set(load_.answers) == {"b5"}


def test_the_last_one_that_is_ready_is_asked_however_full_it_is(edge: Edge) -> None:
    edge.start("b1", "b2", "b3", max_removed_share=0.5)
    for name in ("b1", "b2"):
        edge.backends[name].stop()
    edge.wait("kept", lambda told: told.kept and told.published)
    edge.backends["b3"].busy(busy=True)
    for _ in range(4):
        # 502 where a dead one was asked after it.
        with pytest.raises(urllib.error.HTTPError, match=r"50[23]"):
            edge.answers(1, "/work")
    edge.backends["b3"].busy(busy=False)
    assert edge.answers() == {"b3": 30}


def test_what_nginx_refuses_is_not_swapped_in_and_is_tried_again(edge: Edge) -> None:
    edge.start("b1", "b2", "b3")
    listed = edge.listed()
    good = edge.server_conf.read_text()
    edge.server_conf.write_text("not nginx;\n")
    edge.backends["b1"].ready(ready=False)
    told = edge.wait("a refusal", lambda told: bool(told.error))
    assert told.error.startswith("nginx -t refused the pool: ")
    assert 'unknown directive "not"' in told.error
    assert edge.listed() == listed
    assert edge.answers().total() == 30
    # Nobody is told that it is done while it is not.
    done = edge.pool("settle", "--wait", "1")
    assert done.returncode == 1
    assert "nginx has not got this pool yet." in done.stdout
    edge.server_conf.write_text(good)
    edge.wait("the pool", lambda told: told.published and not told.error)
    assert "b1" not in edge.answers()


def test_a_pool_that_nginx_cannot_load_is_put_back(
    edge: Edge, monkeypatch: pytest.MonkeyPatch
) -> None:
    edge.start("b1", "b2", "b3")
    listed = edge.listed()
    server = Nginx(edge.paths.nginx, edge.paths.nginx_pid)
    # nginx -t does not see that the port is taken.
    taken = edge.backends["b1"].port
    edge.stop_daemon()
    edge.server_conf.write_text(f"server {{ listen 127.0.0.1:{taken}; }}\n")
    monkeypatch.setenv("PATH", f"{edge.command.parent}:/usr/bin:/bin")
    monkeypatch.setattr(nginx, "_RELOAD_SECONDS", 1.0)
    with pytest.raises(nginx.NginxError, match="no new worker"):
        server.publish(server.live().replace("least_conn;", "least_conn; # changed"))
    assert edge.listed() == listed
    assert "changed" not in server.live()


def test_nginx_judges_the_new_file_and_not_the_one_in_place(
    edge: Edge, monkeypatch: pytest.MonkeyPatch
) -> None:
    edge.start("b1")
    edge.stop_daemon()
    monkeypatch.setenv("PATH", f"{edge.command.parent}:/usr/bin:/bin")
    server = Nginx(edge.paths.nginx, edge.paths.nginx_pid)
    before, workers = server.live(), edge.workers()
    with pytest.raises(nginx.NginxError, match=r'unknown directive "bogus".*upstream\.conf:'):
        server.publish(before.replace("least_conn;", "bogus;"))
    assert (server.live(), edge.workers(), server.reload_is_due) == (before, workers, False)


def test_without_nginx_the_pool_waits_for_it(edge: Edge) -> None:
    edge.start("b1", "b2")
    edge.stop_nginx()
    edge.backends["b1"].ready(ready=False)
    told = edge.wait("a pool", lambda told: told.servers[0].state == "down" and told.published)
    assert told.error == "nginx does not run: it takes the pool when it starts"
    edge.start_nginx()
    edge.wait("its reload", lambda told: told.published and not told.error)
    assert "b1" not in edge.answers()


def test_a_surge_promotes_the_backup_and_takes_it_back(edge: Edge) -> None:
    for name in ("b1", "spare"):
        edge.backend(name)
    entries = [one.entry for one in edge.backends.values()]
    entries[1]["backup"] = True
    surge = {
        "percent": 100, "minimum_connections": 8, "quiet_seconds": 2, "baseline_seconds": 600,
    }  # fmt: skip
    edge.start(*())
    edge.write_pool(*entries, surge=surge)
    edge.wait("a backup", lambda told: told.servers[-1].backup and told.published)
    assert set(edge.answers()) == {"b1"}
    with Load(edge, "/slow/0.5", threads=40):
        edge.wait("promotion", lambda told: told.promoted and told.published)
        assert set(edge.answers(path="/slow/0.05")) == {"b1", "spare"}
        assert "backups serve beside the others" in edge.pool("status").stdout
    edge.wait("the backup back", lambda told: not told.promoted and told.published, 40)
    assert set(edge.answers()) == {"b1"}


def test_a_backend_that_is_too_busy_is_passed_over_and_stays_in_the_pool(edge: Edge) -> None:
    edge.start("b1", "b2")
    edge.backends["b1"].busy(busy=True)
    # Many times more refusals than what would be a backend's death.
    assert edge.answers(60, "/work") == {"b2": 60}
    # Meanwhile it gets its share of everything else, and of the work as soon as it takes it.
    assert set(edge.answers(20)) == {"b1", "b2"}
    edge.backends["b1"].busy(busy=False)
    assert set(edge.answers(20, "/work")) == {"b1", "b2"}
    # When all are too busy, that is the answer, and nobody is left out for it.
    for backend in edge.backends.values():
        backend.busy(busy=True)
    for _ in range(20):
        with pytest.raises(urllib.error.HTTPError) as refused:
            edge.answers(1, "/work")
        assert (refused.value.code, refused.value.read()) == (503, b"too busy\n")
    assert set(edge.answers(20)) == {"b1", "b2"}


def test_by_hash_a_module_has_one_backend_and_backups_rest_until_they_are_needed(
    edge: Edge,
) -> None:
    for name in ("b1", "b2", "b3", "spare"):
        edge.backend(name)
    entries = [one.entry for one in edge.backends.values()]
    entries[3]["backup"] = True
    edge.start_with(*entries, balance="hash")
    edge.wait("a resting backup", lambda told: told.servers[3].state == "resting")
    paths = [f"/example.com/m{number}" for number in range(40)]
    kinds = ("@v/list", "@latest", "@v/v1.0.0.mod", "@v/v1.0.0.zip", "@v/v2.0.0+incompatible.info")
    prefixes = ("", "/cached-only")

    def owners() -> dict[str, str]:
        found = {}
        for path in paths:
            asked = {
                name
                for prefix, kind in itertools.product(prefixes, kinds)
                for name in edge.answers(1, f"{prefix}{path}/{kind}")
            }
            assert len(asked) == 1, f"{path} is spread over {asked}"
            found[path] = asked.pop()
        return found

    before = owners()
    assert set(before.values()) == {"b1", "b2", "b3"}
    edge.backends["b2"].stop()
    # Nobody fails meanwhile, and nobody moves who need not.
    edge.wait_state("b2", "down")
    after = owners()
    assert {path: one for path, one in after.items() if before[path] != "b2"} == {
        path: one for path, one in before.items() if one != "b2"
    }
    assert edge.pool("drain", "b1").returncode == 0
    assert edge.pool("drain", "b3").returncode == 0
    edge.wait("the backup", lambda told: told.servers[3].asked and told.published)
    assert set(edge.answers(10)) == {"spare"}
    # A drained backup and the one that rests again are told apart.
    done = edge.pool("undrain", "b1")
    assert (done.returncode, done.stdout) == (0, "b1 is no longer drained\nb1 is asked again\n")
    edge.wait("the backup at rest", lambda told: told.servers[3].state == "resting")
    assert set(edge.answers(10)) == {"b1"}


def test_a_thousand_backends_are_rendered_and_checked_within_two_seconds(
    edge: Edge, say: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    edge.start("b1")
    edge.stop_daemon()
    servers = [
        Server(name=f"backend{n}", address=f"127.1.{n // 250}.{n % 250 + 1}", port=9)
        for n in range(1000)
    ]
    states = {one.name: "down" if number % 10 == 0 else "up" for number, one in enumerate(servers)}
    monkeypatch.setenv("PATH", f"{edge.command.parent}:/usr/bin:/bin")
    server = Nginx(edge.paths.nginx, edge.paths.nginx_pid)
    begun = time.monotonic()
    made = plan.make(servers, states, drained=(), max_removed_share=0.7, promote=False)
    text = nginx.render(edge.paths.template, made, Limits())
    rendered = time.monotonic()
    server._check(text)
    checked = time.monotonic()
    assert server.publish(text)
    published = time.monotonic()
    say(
        f"1,000 backends: rendered in {rendered - begun:.3f} s, checked in "
        f"{checked - rendered:.3f} s; checked, swapped and loaded in {published - checked:.3f} s"
    )
    assert checked - begun <= THOUSAND_SECONDS
    assert len(edge.listed()) == 1000


def test_people_are_told_in_one_sentence_what_is_wrong(edge: Edge) -> None:
    edge.start("b1", "b2")
    known = "modhaven: b9 is no backend of this pool; these are b1, b2\n"
    for word in ("drain", "undrain"):
        done = edge.pool(word, "b9")
        assert (done.returncode, done.stderr) == (2, known)
    assert edge.pool("drain", "b1").returncode == 0
    done = edge.pool("drain", "b2")
    assert done.returncode == 2
    assert done.stderr.startswith("modhaven: b2 is the only backend that is ready: ")
    edge.backends["b1"].ready(ready=False)
    edge.wait("b1 not ready", lambda told: not told.servers[0].ready)
    done = edge.pool("undrain", "b1", "--wait", "3")
    assert done.returncode == 1
    assert done.stderr == "modhaven: b1 is not asked after 3 s: it is down (503 not now)\n"
    # A backend that left the pool while it was drained can be forgotten.
    Drains(edge.paths.drained).add("gone", "x")
    done = edge.pool("undrain", "gone")
    assert done.stdout == "gone is in this pool no more; that it was drained is forgotten\n"
    edge.stop_daemon()
    for words in (["status"], ["drain", "b1"], ["undrain", "b1"]):
        done = edge.pool(*words)
        assert done.returncode == 2
        assert done.stderr.startswith("modhaven: the pool manager does not run on this host: ")
    assert "Traceback" not in edge.daemon_log.read_text()
