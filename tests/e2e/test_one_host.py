"""The smallest deployment: one host in every role, deployed from itself."""

from __future__ import annotations

import io
import json
import platform
import re
import subprocess
import tarfile
from typing import TYPE_CHECKING

import pytest
from tests.e2e import golang
from tests.e2e.live import POOL_SERVICE, SERVICE, refuses_to_start
from tests.e2e.playbook import PLAYBOOK_SECONDS, play, vagrant
from tests.lab import remote
from tests.lab.inventory import ROOT, lab

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

HOST = "solo1"
ADDRESS = "10.0.3.61"
PROJECT = "/root/modhaven"
pytestmark = pytest.mark.timeout(900)


@pytest.fixture(scope="module")
def solo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A bare machine, and an inventory in which it is everything (beside the lab's mirrors)."""
    inventory = tmp_path_factory.mktemp("solo")
    mirrors = {
        host.name: {"ansible_host": host.address, "mirror_names": host.variables["mirror_names"]}
        for host in lab().group("mirrors")
    }
    everywhere = {"hosts": {HOST: {"ansible_host": ADDRESS}}}
    groups = {"edges": everywhere, "backends": everywhere, "clients": everywhere}
    text = json.dumps({"all": {"children": {**groups, "mirrors": {"hosts": mirrors}}}})
    (inventory / "hosts.yml").write_text(text)
    variables = ROOT / "inventories" / "lab" / "group_vars" / "all" / "modhaven.yml"
    (inventory / "group_vars").mkdir()
    (inventory / "group_vars" / "all.yml").write_text(variables.read_text())
    try:
        vagrant(inventory, "up", HOST, "--provider=lxc", "--no-provision")
        yield inventory
    finally:
        vagrant(inventory, "destroy", "--force", HOST)


def test_check_mode_with_diff_passes_on_a_bare_host_and_changes_nothing(solo: Path) -> None:
    run = play("site.yml", solo, "--check", "--diff", "-e", "vip_address=10.0.3.101")
    assert run.ok, run.output
    for path in ("/etc/modhaven", "/etc/nginx", "/opt/modhaven", "/etc/keepalived"):
        assert remote.run(HOST, "test", "-e", path, check=False).returncode != 0, path
    assert "modhaven" not in remote.run(HOST, "cat", "/etc/environment", check=False).stdout


def copy_project() -> None:
    """Give the host the repository as a clone would have it, and the wheels it would fetch."""
    files = subprocess.run(
        ["git", "ls-files", "--cached"], cwd=ROOT, check=True, capture_output=True, text=True
    ).stdout.splitlines()
    wheels = ROOT / ".lab" / "cache" / "deploy-wheels"
    subprocess.run(
        [
            *(ROOT / ".venv/bin/python", "-m", "pip", "download", "--quiet", "--require-hashes"),
            *("--dest", wheels, "--requirement", ROOT / "requirements/deploy.txt"),
        ],
        check=True,
        capture_output=True,
    )
    built = ROOT / "inventories/lab/.state/wheelhouse"
    subprocess.run(
        [
            *(ROOT / "roles/app/files/wheelhouse.sh", ROOT, built, "/usr/bin/python3"),
            *("3.11", platform.machine()),
        ],
        check=True,
        capture_output=True,
    )
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        for name in files:
            tar.add(ROOT / name, arcname=name)
        tar.add(wheels, arcname="wheels")
        tar.add(built, arcname="inventories/local/.state/wheelhouse")
    remote.run(HOST, "mkdir", "-p", PROJECT)
    subprocess.run(
        ["lxc-attach", "--name", HOST, "--clear-env", "--", "tar", "-xC", PROJECT],
        input=archive.getvalue(),
        check=True,
    )


def run_on_itself(playbook: str, *options: str) -> subprocess.CompletedProcess[str]:
    databases = json.dumps({"modhaven_sumdbs": lab_databases()})
    return remote.run(
        *(
            HOST,
            "env",
            "-C",
            PROJECT,
            "HOME=/root",
            "LANG=C.UTF-8",
            "PATH=/usr/sbin:/usr/bin:/sbin:/bin",
        ),
        *(".venv/bin/ansible-playbook", playbook, "-e", databases, *options),
        timeout=PLAYBOOK_SECONDS,
        check=False,
    )


def lab_databases() -> list[str]:
    found = lab().group("backends")[0].variables["modhaven_sumdbs"]
    assert isinstance(found, list)
    return found


def test_a_plain_site_yml_makes_one_host_a_whole_proxy_that_its_own_builds_use(solo: Path) -> None:
    prepared = play("tests/lab/lab.yml", solo, "--limit", f"{HOST},mirrors")
    assert prepared.ok, prepared.output
    copy_project()
    remote.run(HOST, "apt-get", "install", "-qy", "python3-venv", timeout=300)
    remote.run(HOST, "python3", "-m", "venv", f"{PROJECT}/.venv")
    remote.run(
        *(HOST, f"{PROJECT}/.venv/bin/pip", "install", "--quiet", "--no-index", "--require-hashes"),
        *(
            "--find-links",
            f"{PROJECT}/wheels",
            "--requirement",
            f"{PROJECT}/requirements/deploy.txt",
        ),
        timeout=300,
    )

    first = run_on_itself("site.yml")
    assert first.returncode == 0, first.stdout
    build = golang.build(HOST)
    assert build.ok, build.output
    assert "Hello, world." in build.output
    assert "https://localhost" in golang.shell(HOST, "go env GOPROXY").output

    second = run_on_itself("site.yml")
    assert second.returncode == 0, second.stdout
    recap = re.search(r"^localhost +: ok=\d+ +changed=(\d+)", second.stdout, re.MULTILINE)
    assert recap, second.stdout
    assert recap.group(1) == "0", second.stdout

    # Nobody stands in for it: its socket makes requests wait meanwhile.
    updated = run_on_itself("playbooks/update.yml")
    assert updated.returncode == 0, updated.stdout

    # Edge and backend at once: what was changed as the one is put back when it fails as the other.
    before = remote.run(HOST, "sha256sum", SERVICE, POOL_SERVICE).stdout
    with refuses_to_start(HOST, POOL_SERVICE, "8447"):
        options = ("-e", "edge_status_port=8447", "-e", "backend_stop_timeout_seconds=61")
        failed = run_on_itself("playbooks/update.yml", *options)
    assert failed.returncode == 2, failed.stdout
    said = " ".join(failed.stdout.split())
    assert "Put back, and as before: localhost. The cluster is as it was." in said
    assert remote.run(HOST, "sha256sum", SERVICE, POOL_SERVICE).stdout == before
    again = golang.build(HOST)
    assert again.ok, again.output
