"""A real sshd on loopback, as this user, that serves repositories to one key (sshd_config(5))."""

from __future__ import annotations

import getpass
import shlex
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

from tests.conftest import free_port, wait_for_port
from tests.integration.git_origin import Repository

if TYPE_CHECKING:
    from typing import Any

# sshd insists on its whole path, to start itself again for each connection.
SSHD = "/usr/sbin/sshd"


def make_key(path: Path) -> Path:
    subprocess.run(
        ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(path)], check=True, timeout=30
    )
    return path


class SSHOrigin:
    """A host at ``address``; ``login`` is the private key that it lets in."""

    def __init__(self, folder: Path, address: str) -> None:
        folder.mkdir()
        self.address = address
        self.port = free_port()
        self.root = folder / "repositories"
        self.login = make_key(folder / "login")
        self.host_key = make_key(folder / "host_key")
        self._asked = folder / "asked"
        self._asked.touch()
        serve = folder / "serve"
        serve.write_text(
            f"""#!/bin/sh
printf '%s\\n' "$SSH_ORIGINAL_COMMAND" >> {shlex.quote(str(self._asked))}
path=${{SSH_ORIGINAL_COMMAND#"git-upload-pack '/"}}
cd {shlex.quote(str(self.root))} && exec git-upload-pack "${{path%"'"}}"
"""
        )
        serve.chmod(0o700)
        config = folder / "sshd_config"
        config.write_text(
            f"""ListenAddress {address}:{self.port}
HostKey {self.host_key}
AuthorizedKeysFile {self.login}.pub
ForceCommand {serve}
AcceptEnv GIT_PROTOCOL
PasswordAuthentication no
KbdInteractiveAuthentication no
PermitRootLogin prohibit-password
StrictModes no
UsePAM no
PidFile none
"""
        )
        # Where sshd separates its privileges; Debian's service makes it.
        Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
        self._process = subprocess.Popen(
            [SSHD, "-D", "-e", "-f", str(config)], stderr=subprocess.DEVNULL
        )
        wait_for_port(self.port, self._process, host=address)

    @property
    def asked(self) -> list[str]:
        """The commands that came in."""
        return self._asked.read_text().splitlines()

    @property
    def known(self) -> str:
        """The line of known_hosts that this host is known by."""
        key = Path(f"{self.host_key}.pub").read_text().split()
        return f"[{self.address}]:{self.port} {key[0]} {key[1]}\n"

    def entry(self, key: Path | None = None) -> dict[str, Any]:
        """What direct.ssh says of this host."""
        return {
            "host": self.address,
            "port": self.port,
            "user": getpass.getuser(),
            "key_file": str(key or self.login),
        }

    def repository(self, path: str) -> Repository:
        return Repository(self.root / path)

    def close(self) -> None:
        self._process.terminate()
        self._process.wait(10)
