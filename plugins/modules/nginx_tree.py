#!/usr/bin/python
"""Ansible module: publish one role's part of the nginx configuration, all of it or none of it."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import time
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule

DOCUMENTATION = r"""
module: nginx_tree
short_description: Publish one role's part of the nginx configuration, all of it or none of it
description:
  - Writes the files of one owner into a new release directory beside the files of the other
    owners, runs C(nginx -t) on that whole release, swaps it in by renaming one symbolic link and
    reloads nginx.
  - Files the owner had before and does not name any more are gone in the new release.
  - When the check or the reload fails, the release that was live before stays live, on disk too.
  - All includes below I(root) are relative, so a release can be checked where it lies.
options:
  root: {description: nginx's configuration directory., type: path, default: /etc/nginx}
  owner:
    description: Subdirectory of modhaven/ whose files this call owns.
    type: str
    required: true
  files: {description: File name to content., type: dict, required: true}
  reload_timeout_seconds:
    description: Seconds within which new workers must appear after a reload.
    type: float
    default: 10
"""

EXAMPLES = r"""
- name: Publish the edge's nginx configuration
  nginx_tree:
    owner: edge
    files:
      server.conf: "{{ lookup('ansible.builtin.template', 'server.conf.j2') }}"
"""

RETURN = r"""
release: {description: Name of the live release., type: str, returned: success}
reloaded: {description: Whether nginx was reloaded., type: bool, returned: success}
"""

ENTRY = """\
# Rendered by modhaven; the whole configuration is below modhaven/.
include modhaven/main/*.conf;
"""
RELEASES_KEPT = 3

Files = dict[str, str]


class PublishError(Exception):
    """The release was not published; what was live before still is."""


def read_tree(directory: Path) -> Files:
    """Every file below `directory` as {relative path: content}; empty when it does not exist.

    What an editor left there may be no text: it only has to differ.
    """
    return {
        str(path.relative_to(directory)): path.read_text(errors="replace")
        for path in sorted(directory.rglob("*"))
        if path.is_file()
    }


def replace_owner(tree: Files, owner: str, files: Files) -> Files:
    """`tree` with everything below `owner`/ replaced by `files`."""
    others = {name: text for name, text in tree.items() if not name.startswith(f"{owner}/")}
    return others | {f"{owner}/{name}": text for name, text in files.items()}


def release_name(tree: Files) -> str:
    """A release is named after its content, so that the same configuration is the same release."""
    digest = hashlib.sha256()
    for name, text in sorted(tree.items()):
        digest.update(f"{name}\0{text}\0".encode())
    return digest.hexdigest()[:12]


def run(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, check=False)


class Nginx:
    """The nginx of this host, as systemd runs it."""

    def is_active(self) -> bool:
        return run("systemctl", "is-active", "--quiet", "nginx.service").returncode == 0

    def check(self, entry: Path) -> None:
        result = run("nginx", "-t", "-q", "-c", str(entry))
        if result.returncode != 0:
            raise PublishError(f"nginx -t refused the new configuration: {result.stderr.strip()}")

    def workers(self) -> set[str]:
        main = run(
            "systemctl", "show", "--property=MainPID", "--value", "nginx.service"
        ).stdout.strip()
        children = Path(f"/proc/{main}/task/{main}/children")
        return (
            set(children.read_text().split())
            if main not in ("", "0") and children.exists()
            else set()
        )

    def reload(self, timeout_seconds: float) -> None:
        """Reload and wait for a new worker.

        A reload that nginx cannot apply keeps the old workers and exits with status 0.
        """
        before = self.workers()
        result = run("systemctl", "reload", "nginx.service")
        if result.returncode != 0:
            raise PublishError(f"systemctl reload nginx failed: {result.stderr.strip()}")
        deadline = time.monotonic() + timeout_seconds
        while not self.workers() - before:
            if time.monotonic() > deadline:
                raise PublishError(
                    f"nginx started no new worker within {timeout_seconds:g} s of the reload;"
                    " its error log (/var/log/nginx/error.log) says why"
                )
            time.sleep(0.05)


class Tree:
    """The configuration directory: releases, the link to the live one, and the entry file."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.live = root / "modhaven"
        self.entry = root / "nginx.conf"
        self.loaded = root / "modhaven.loaded"
        self.releases = root / "modhaven.releases"

    def live_release(self) -> Path | None:
        return self.releases / self.live.readlink().parent.name if self.live.is_symlink() else None

    def write_release(self, name: str, tree: Files) -> Path:
        """Write `tree` and return where; what is live is never touched.

        A live release that somebody edited is written anew under a second name.
        """
        release = self.releases / name
        if release == self.live_release():
            release = self.releases / f"{name}.repaired"
        shutil.rmtree(release, ignore_errors=True)
        (release / "modhaven").mkdir(parents=True)
        for relative, text in tree.items():
            path = release / "modhaven" / relative
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        (release / "nginx.conf").write_text(ENTRY)
        # What the pool manager writes is no part of a release, but is included by a relative path.
        (release / "modhaven.pool").symlink_to("../../modhaven.pool")
        return release

    def point_to(self, target: str) -> None:
        fresh = self.root / "modhaven.new"
        fresh.unlink(missing_ok=True)
        fresh.symlink_to(target)
        fresh.replace(self.live)

    def write_entry(self, text: str) -> None:
        fresh = self.root / "nginx.conf.new"
        fresh.write_text(text)
        fresh.replace(self.entry)

    def prune(self) -> None:
        """Keep the live release, whatever its date says, and the newest of the others."""
        others = set(self.releases.iterdir()) - {self.live_release()}
        by_age = sorted(others, key=lambda path: path.stat().st_mtime, reverse=True)
        for old in by_age[RELEASES_KEPT - 1 :]:
            shutil.rmtree(old)

    def put_back(self, target: str | None, entry: str | None, refused: Path) -> None:
        """Link and entry file as they were (None: there was none), and no trace of `refused`."""
        if target is None:
            self.live.unlink(missing_ok=True)
        elif str(self.live.readlink()) != target:
            self.point_to(target)
        if entry is None:
            self.entry.unlink(missing_ok=True)
        elif self.entry.read_text() != entry:
            self.write_entry(entry)
        if refused != self.live_release():
            shutil.rmtree(refused)

    def publish(self, name: str, tree: Files, nginx: Nginx, timeout_seconds: float) -> bool:
        """Check, swap, reload; return whether nginx was reloaded.

        Raises PublishError with everything put back.
        """
        old_target = str(self.live.readlink()) if self.live.is_symlink() else None
        old_entry = self.entry.read_text() if self.entry.exists() else None
        release = self.live_release()
        if release is None or read_tree(self.live) != tree:
            release = self.write_release(name, tree)
        reload = nginx.is_active()
        try:
            nginx.check(release / "nginx.conf")
            self.point_to(f"modhaven.releases/{release.name}/modhaven")
            if old_entry != ENTRY:
                self.write_entry(ENTRY)
            if reload:
                nginx.reload(timeout_seconds)
        except PublishError:
            self.put_back(old_target, old_entry, release)
            raise
        self.loaded.write_text(name + "\n")
        self.prune()
        return reload


def differences(before: Files, after: Files, root: Path) -> list[dict[str, str]]:
    """What `--diff` shows: one entry a changed file."""
    return [
        {
            "before": before.get(name, ""),
            "after": after.get(name, ""),
            "before_header": str(root / "modhaven" / name),
            "after_header": str(root / "modhaven" / name),
        }
        for name in sorted(before.keys() | after.keys())
        if before.get(name) != after.get(name)
    ]


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "root": {"type": "path", "default": "/etc/nginx"},
            "owner": {"type": "str", "required": True},
            "files": {"type": "dict", "required": True},
            "reload_timeout_seconds": {"type": "float", "default": 10},
        },
        supports_check_mode=True,
    )
    tree = Tree(Path(module.params["root"]))
    before = read_tree(tree.live)
    after = replace_owner(before, module.params["owner"], module.params["files"])
    name = release_name(after)
    # Compared with what nginx was last told to load: a run cut short is completed by the next.
    loaded = tree.loaded.read_text().strip() if tree.loaded.exists() else None
    entry_is_ours = tree.entry.exists() and tree.entry.read_text() == ENTRY
    changed = before != after or loaded != name or not entry_is_ours
    result = {"changed": changed, "release": name, "reloaded": False}
    if module._diff:
        result["diff"] = differences(before, after, tree.root)
    if changed and not module.check_mode:
        try:
            result["reloaded"] = tree.publish(
                name, after, Nginx(), module.params["reload_timeout_seconds"]
            )
        except PublishError as error:
            module.fail_json(msg=f"{error}. The configuration that was live before is untouched.")
    module.exit_json(**result)


if __name__ == "__main__":
    main()
