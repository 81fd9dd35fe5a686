"""What a backup has comes back: files whose mirrors are gone, the authority; nothing damaged."""

from __future__ import annotations

import contextlib
import shutil
import stat
from typing import TYPE_CHECKING

import pytest
from tests.e2e import cluster, origin
from tests.e2e.live import LAB
from tests.e2e.playbook import copy_inventory, play
from tests.lab import faults, remote
from tests.lab.inventory import ROOT
from tests.lab.web import get

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.e2e.conftest import Say

STORE = "/var/lib/modhaven/store"
DOWNLOAD = f"{STORE}/cache/download"
MIRRORS = ("goproxy.cn", "goproxy.io", "proxy.golang.org")
RESTORED = "backend2"
pytestmark = pytest.mark.timeout(600)


def a_module() -> tuple[origin.File, ...]:
    """The .info, .mod and .zip of one version."""
    return origin.files()[:3]


@pytest.fixture(scope="module")
def backups(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with two backups, made while the cluster answers."""
    cluster.wait_until_whole()
    folder = tmp_path_factory.mktemp("backups")
    cluster.forget_edge_caches()
    for file in a_module():
        assert get(cluster.vip(), file.path).status == 200
    for _ in range(2):
        run = play("playbooks/backup.yml", LAB, "-e", f"backup_dir={folder}")
        assert run.ok, run.output
        assert "To put it back:" in run.output
    return folder


def made(backups: Path) -> list[Path]:
    return sorted(path for path in backups.iterdir() if not path.is_symlink())


def restore(backup: Path, *arguments: str) -> tuple[bool, str]:
    run = play("playbooks/restore.yml", LAB, "-e", f"backup={backup}", *arguments)
    return run.ok, run.output


@contextlib.contextmanager
def mirrors_gone() -> Iterator[None]:
    with contextlib.ExitStack() as stack:
        for name in MIRRORS:
            stack.enter_context(faults.mirror_fault(name, "down"))
        yield


def test_a_backup_is_for_its_owner_alone_and_has_the_authority_and_every_hosts_configuration(
    backups: Path,
) -> None:
    latest = backups / "latest"
    assert latest.resolve() == made(backups)[-1]
    paths = [path for path in latest.resolve().rglob("*") if not path.is_symlink()]
    assert [path for path in paths if stat.S_IMODE(path.stat().st_mode) & 0o077] == []
    key = ROOT / LAB / ".state/pki/ca.key"
    assert (latest / "state/pki/ca.key").read_bytes() == key.read_bytes()
    for host in cluster.nodes():
        assert (latest / "hosts" / host / "pki/host.pem").is_file()
    store = latest.resolve() / "store"
    assert {path.name for path in store.iterdir()} <= {"cache", "mutable", "pins", "unverified"}


def test_what_did_not_change_takes_no_space_in_the_next_backup(backups: Path) -> None:
    first, second = made(backups)
    name = f"store/cache/download{a_module()[2].path}"
    assert (first / name).samefile(second / name)
    assert origin.sha256((second / name).read_bytes()) == a_module()[2].sha256


def test_a_module_whose_mirrors_are_gone_is_served_again_after_a_restore(
    backups: Path, say: Say
) -> None:
    module = a_module()
    kept_different = origin.files()[4]
    cluster.forget(module)
    remote.put(RESTORED, f"{DOWNLOAD}{kept_different.path}", "other bytes")
    try:
        with mirrors_gone():
            assert get(cluster.vip(), module[2].path).status in (502, 504)
            ok, output = restore(backups / "latest", "-e", f"node={RESTORED}")
            assert ok, output
            for file in module:
                answer = get(cluster.vip(), file.path)
                assert answer.status == 200, answer.body
                assert origin.sha256(answer.body) == file.sha256
    finally:
        found = remote.run(RESTORED, "cat", f"{DOWNLOAD}{kept_different.path}").stdout
        remote.run(RESTORED, "rm", f"{DOWNLOAD}{kept_different.path}")
    assert found == "other bytes"
    assert f"{RESTORED} has other bytes than the backup" in output
    assert f"cache/download{kept_different.path}" in output
    owner = remote.run(RESTORED, "stat", "-c", "%U:%G %a", f"{DOWNLOAD}{module[2].path}").stdout
    assert owner.strip() == "modhaven:www-data 640"
    say(next(line.strip() for line in output.splitlines() if "files put back" in line))


def test_configuration_that_is_missing_comes_back_as_it_was_and_what_died_of_it_runs(
    backups: Path,
) -> None:
    def files() -> str:
        listed = "find /etc/modhaven -type f,d -printf '%P %m %u %g\\n' | sort"
        hashed = "find /etc/modhaven -type f | sort | xargs sha256sum"
        return remote.run(RESTORED, "sh", "-c", f"{listed}; {hashed}").stdout

    before = files()
    remote.run(RESTORED, "sh", "-c", "rm -r /etc/modhaven/modhaven.yml /etc/modhaven/pki")
    remote.run(RESTORED, "systemctl", "restart", "modhaven.service", check=False)
    ok, output = restore(backups / "latest", "-e", f"node={RESTORED}")
    assert ok, output
    put_back = "modhaven.yml, pki/ca.crt, pki/host.crt, pki/host.key, pki/host.pem"
    assert f"{RESTORED}: put back in /etc/modhaven: {put_back}." in " ".join(output.split())
    assert files() == before
    cluster.wait_until_whole()
    run = play("site.yml", LAB, "--limit", RESTORED)
    assert run.changed() == {}, run.output


def test_a_damaged_backup_is_refused_before_anything_is_changed(backups: Path) -> None:
    damaged = backups / "damaged"
    shutil.copytree(made(backups)[0], damaged, symlinks=True, copy_function=shutil.copyfile)
    file = a_module()[0]
    (damaged / f"store/cache/download{file.path}").write_text("{}")
    cluster.forget([file])
    ok, output = restore(damaged, "-e", f"node={RESTORED}")
    shutil.rmtree(damaged)
    assert not ok
    assert "is damaged" in output
    assert f"{file.path}: FAILED" in output
    there = remote.run(RESTORED, "test", "-e", f"{DOWNLOAD}{file.path}", check=False)
    assert there.returncode != 0
    assert RESTORED not in output.partition("PLAY RECAP")[2]


def test_the_authority_comes_back_on_a_controller_that_lost_it_and_another_one_stays(
    backups: Path, tmp_path: Path
) -> None:
    inventory = copy_inventory(tmp_path / "lab")
    pki = inventory / ".state/pki"
    authority = {name: (pki / name).read_bytes() for name in ("ca.key", "ca.crt")}
    shutil.rmtree(pki)
    # A new authority would shut out whoever has the old one's word.
    run = play("site.yml", inventory, "-e", "preflight_replace_authority=false")
    assert not run.ok
    assert "The hosts trust an authority that is not in" in " ".join(run.output.split())
    assert run.changed() == {}

    options = ("-e", f"backup={backups / 'latest'}", "-e", f"node={RESTORED}")
    run = play("playbooks/restore.yml", inventory, *options)
    assert run.ok, run.output
    assert {name: (pki / name).read_bytes() for name in authority} == authority
    assert stat.S_IMODE((pki / "ca.key").stat().st_mode) == 0o600

    (pki / "ca.crt").write_bytes(b"another one")
    run = play("playbooks/restore.yml", inventory, *options)
    assert "another authority than the backup" in run.output
    assert (pki / "ca.crt").read_bytes() == b"another one"


def test_with_a_host_dead_the_rest_is_kept_and_the_host_is_named(tmp_path: Path) -> None:
    dead = cluster.names("backends")[0]
    with faults.host_stopped(dead):
        run = play("playbooks/backup.yml", LAB, "-e", f"backup_dir={tmp_path}")
        ok, output = restore(tmp_path / "latest")
    assert not ok
    assert f"Not restored: {dead}. Run this again when they answer." in " ".join(output.split())
    assert f"{RESTORED}: " in output
    assert not run.ok
    assert f"Not in it, as they did not answer: {dead}." in run.output
    assert (tmp_path / "latest/hosts/backend2").is_dir()
    assert (tmp_path / "latest/store/cache/download").is_dir()
    assert not (tmp_path / "latest/hosts" / dead).exists()
    cluster.wait_until_whole()
