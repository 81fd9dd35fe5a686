#!/usr/bin/python
"""Ansible module: several directories, small text files and links of a host in one execution."""

from __future__ import annotations

import grp
import os
import pwd
import shutil
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule

DOCUMENTATION = r"""
module: host_files
short_description: Put several directories, small text files and links of a host in place
description:
  - Does in one execution, which takes a host a quarter of a second, what C(file), C(copy) and
    C(template) do in one or two for each path.
  - Directories come first, then files, links, and what is to be absent.
  - Each file that changes is written beside its place, with its owner and mode before its content,
    and validated. Then all are renamed into place; when one is refused, none is.
options:
  directories:
    description: Directories as {path, owner, group, mode}; missing parents become like them.
    type: list
    elements: dict
  files:
    description:
      - Files as {path, content, owner, group, mode, validate}; a link in the place of one goes.
      - I(validate) is a command in which %s is the file, as with C(template). Owner and group are
        names, root by default; I(mode) is "0644" by default, that of directories "0755".
    type: list
    elements: dict
  links:
    description: Links as {path, target}; a file in the place of one goes.
    type: list
    elements: dict
  absent:
    description: Files, links and directories, with all that is in them, that are not to be.
    type: list
    elements: path
"""

EXAMPLES = r"""
- name: Install the pool
  host_files:
    directories:
      - path: /etc/modhaven
    files:
      - path: /etc/modhaven/pool.yml
        content: "{{ lookup('ansible.builtin.template', 'pool.yml.j2') }}"
        validate: modhaven pool check %s
"""

RETURN = r"""
changed_paths: {description: What was not as it should be., type: list, returned: success}
"""

Entry = dict[str, Any]

PATH = {"type": "path", "required": True}
ATTRIBUTES = {
    "path": PATH,
    "owner": {"type": "str", "default": "root"},
    "group": {"type": "str", "default": "root"},
}
DIRECTORY = ATTRIBUTES | {"mode": {"type": "str", "default": "0755"}}
FILE = ATTRIBUTES | {
    "mode": {"type": "str", "default": "0644"},
    "content": {"type": "str", "required": True},
    "validate": {"type": "str"},
}
LINK = {"path": PATH, "target": {"type": "str", "required": True}}
ENTRIES = {"type": "list", "elements": "dict", "default": []}


def content_of(path: Path) -> bytes | None:
    return path.read_bytes() if path.is_file() and not path.is_symlink() else None


def beside(path: Path) -> Path:
    """Where what becomes `path` is made, without what a run that was cut short left there."""
    fresh = path.with_name(f".{path.name}.new")
    fresh.unlink(missing_ok=True)
    return fresh


def are_known(owner: str, group: str) -> bool:
    try:
        pwd.getpwnam(owner)
        grp.getgrnam(group)
    except KeyError:
        return False
    return True


class Host:
    """The files of this host; in check mode what would change is noted and nothing changed."""

    def __init__(self, module: AnsibleModule) -> None:
        self.module = module
        self.changes: dict[str, Entry] = {}

    def note(self, path: Path, before: object, after: object) -> None:
        name = str(path)
        headers = {"before_header": name, "after_header": name}
        self.changes[name] = {"before": before, "after": after, **headers}

    def set_attributes(self, entry: Entry, path: Path) -> Entry:
        """Owner, group and mode as `entry` has them; what was different, as a diff."""
        if self.module.check_mode and not are_known(entry["owner"], entry["group"]):
            return {"before": {}, "after": {"owner": entry["owner"], "group": entry["group"]}}
        diff: Entry = {}
        wanted = self.module.load_file_common_arguments({**entry, "follow": True}, str(path))
        self.module.set_fs_attributes_if_different(wanted, changed=False, diff=diff)
        return diff

    def correct_attributes(self, entry: Entry, path: Path) -> None:
        if diff := self.set_attributes(entry, path):
            self.note(path, diff["before"], diff["after"])

    def put_directory(self, entry: Entry) -> None:
        path = Path(entry["path"])
        missing = [each for each in (path, *path.parents) if not each.is_dir()]
        if not missing:
            self.correct_attributes(entry, path)
            return
        for each in [] if self.module.check_mode else reversed(missing):
            each.mkdir(mode=0o700)
            self.set_attributes(entry, each)
        self.note(path, "", "a directory\n")

    def write(self, entry: Entry, fresh: Path) -> None:
        """Write what is to become the entry's file, and validate it."""
        fresh.touch(mode=0o600, exist_ok=False)
        # Before the content: nobody else may read a secret, not for a moment.
        self.set_attributes(entry, fresh)
        fresh.write_bytes(entry["content"].encode())
        if entry["validate"]:
            command = entry["validate"].replace("%s", str(fresh))
            status, out, error = self.module.run_command(command)
            if status != 0:
                said = " ".join((error.strip() or out.strip() or f"exit status {status}").split())
                self.module.fail_json(
                    msg=f"{entry['path']} is left as it was: '{command}' said: {said.rstrip('.')}."
                )

    def put_files(self, files: list[Entry]) -> None:
        """All of them or none. Not by atomic_move, whose new files anybody may read at first."""
        before = {entry["path"]: content_of(Path(entry["path"])) for entry in files}
        changing = [entry for entry in files if before[entry["path"]] != entry["content"].encode()]
        fresh: dict[str, Path] = {}
        try:
            for entry in [] if self.module.check_mode else changing:
                fresh[entry["path"]] = beside(Path(entry["path"]))
                self.write(entry, fresh[entry["path"]])
            for name, new in fresh.items():
                new.replace(name)
        finally:
            for leftover in fresh.values():
                leftover.unlink(missing_ok=True)
        for entry in files:
            path, old = Path(entry["path"]), before[entry["path"]]
            if entry in changing:
                self.note(path, (old or b"").decode(errors="replace"), entry["content"])
            else:
                self.correct_attributes(entry, path)

    def put_link(self, path: Path, target: str) -> None:
        if path.is_symlink() and str(path.readlink()) == target:
            return
        if not self.module.check_mode:
            fresh = beside(path)
            fresh.symlink_to(target)
            fresh.replace(path)
        self.note(path, "", f"a link to {target}\n")

    def remove(self, path: Path) -> None:
        if not os.path.lexists(path):
            return
        if not self.module.check_mode:
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink()
        # Its content may be a secret.
        self.note(path, "present\n", "absent\n")


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "directories": ENTRIES | {"options": DIRECTORY},
            "files": ENTRIES | {"options": FILE, "no_log": True},
            "links": ENTRIES | {"options": LINK},
            "absent": {"type": "list", "elements": "path", "default": []},
        },
        supports_check_mode=True,
    )
    # no_log keeps the contents out of the host's journal, the pop out of what -vvv shows. Beyond
    # that, Ansible would mask paths and modes in every message, and the contents in --diff.
    files = module.params.pop("files")
    module.no_log_values.clear()
    host = Host(module)
    try:
        for entry in module.params["directories"]:
            host.put_directory(entry)
        host.put_files(files)
        for entry in module.params["links"]:
            host.put_link(Path(entry["path"]), entry["target"])
        for path in module.params["absent"]:
            host.remove(Path(path))
    except OSError as error:
        module.fail_json(msg=f"Not everything could be put in place: {error}.")
    diff = {"diff": list(host.changes.values())} if module._diff else {}
    module.exit_json(changed=bool(host.changes), changed_paths=list(host.changes), **diff)


if __name__ == "__main__":
    main()
