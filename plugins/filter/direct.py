"""Jinja2 filters on what the inventory says of `direct`, private modules straight from git."""

from __future__ import annotations

import base64
import binascii
import re
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

# RFC 1123, one label or several, in lower case: it goes into netrc, ssh's files and a file name.
HOST_NAME = re.compile(r"(?!-)[a-z0-9-]{1,63}(?<!-)(\.(?!-)[a-z0-9-]{1,63}(?<!-))*")
# OpenSSH's format of private keys (PROTOCOL.key): the cipher's name follows this magic.
OPENSSH_KEY = b"openssh-key-v1\0"
_SYSTEMS = "(git|hg|svn|bzr|fossil)"
GOVCS = re.compile(rf"[^\s,:|]+:(off|all|{_SYSTEMS}(\|{_SYSTEMS})*)")
FIELDS = {
    "backend_direct_https": ("host", "user", "password"),
    "backend_direct_ssh": ("host", "key", "host_key"),
}


def uses_direct(upstreams: object) -> bool:
    """Whether `direct` is anywhere in backend_upstreams, a string or a list of mappings."""
    if isinstance(upstreams, str):
        return "direct" in re.split(r"[,|\s]+", upstreams)
    if isinstance(upstreams, list):
        return any(
            isinstance(entry, Mapping) and entry.get("url") == "direct" for entry in upstreams
        )
    return False


def _has_passphrase(key: str) -> bool:
    """Whether a private key cannot be used without a passphrase (OpenSSH's format, or PEM)."""
    lines = key.strip().splitlines()
    if "ENCRYPTED" in key:
        return True
    try:
        content = base64.b64decode("".join(lines[1:-1]))
    except (binascii.Error, ValueError):
        return False
    # A length of four bytes, then the name.
    return content.startswith(OPENSSH_KEY) and content[len(OPENSSH_KEY) + 4 :][:4] != b"none"


def _names_host(host_key: str, host: str) -> bool:
    """Whether each line is one of known_hosts (sshd(8)) and one is for `host`, or hashed.

    A host with a port of its own is `[host]:port` there.
    """
    lines = [line.split() for line in host_key.splitlines() if line.strip()]
    lines = [words for words in lines if not words[0].startswith("#")]
    names = [name for words in lines for name in words[0].split(",")]
    return (
        bool(lines)
        and all(len(words) >= 3 for words in lines)
        and any(name == host or name.startswith("|1|") for name in names)
    )


def _netrc_problems(entry: Mapping[str, Any]) -> list[str]:
    # netrc has no quotes that git and the go command read alike.
    return [
        f"The '{field}' of {entry['host']} in 'backend_direct_https' has a blank, or begins with"
        ' " or #, which netrc files cannot carry: give that account another one.'
        for field in ("user", "password")
        if re.search(r'\s|^["#]', str(entry[field]))
    ]


def _ssh_problems(entry: Mapping[str, Any]) -> list[str]:
    host, key = str(entry["host"]), str(entry["key"])
    problems = []
    if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.-]*", str(entry.get("user", "git"))):
        problems.append(
            f"The 'user' of {host} in 'backend_direct_ssh' is no user name: git servers want 'git'."
        )
    if "PRIVATE KEY-----" not in key:
        problems.append(
            f"The 'key' of {host} in 'backend_direct_ssh' is no private key:"
            " give the text of the file that ssh-keygen made, not its name and not the public one."
        )
    elif _has_passphrase(key):
        problems.append(
            f"The 'key' of {host} in 'backend_direct_ssh' has a passphrase,"
            " which nobody could type: make a key without one for modhaven."
        )
    port = str(entry.get("port", 22))
    if not re.fullmatch("[0-9]{1,5}", port) or not 1 <= int(port) <= 65535:
        problems.append(
            f"The 'port' of {host} in 'backend_direct_ssh' is {port!r}:"
            " give a number from 1 to 65535."
        )
        return problems
    known, option = (host, "") if int(port) == 22 else (f"[{host}]:{port}", f"-p {port} ")
    if not _names_host(str(entry["host_key"]), known):
        problems.append(
            f"The 'host_key' of {host} in 'backend_direct_ssh' is no known_hosts line of {known}:"
            f" give what 'ssh-keyscan {option}{host}' prints, once you have compared it."
        )
    return problems


def _entry_problems(variable: str, entry: object) -> list[str]:
    fields = FIELDS[variable]
    if not isinstance(entry, Mapping):
        return [f"'{variable}' has an entry that is no mapping: give each {', '.join(fields)}."]
    host = str(entry.get("host") or "")
    if not HOST_NAME.fullmatch(host):
        sentence = f"'{variable}' has the 'host' {host!r}, which is no host name:"
        return [f"{sentence} give the git server's name in lower case, no scheme, port or path."]
    missing = [field for field in fields if not str(entry.get(field) or "").strip()]
    if missing:
        return [f"'{variable}' has no '{field}' for {host}: add it there." for field in missing]
    return _ssh_problems(entry) if variable == "backend_direct_ssh" else _netrc_problems(entry)


def _number_problems(variables: Mapping[str, Any]) -> list[str]:
    return [
        f"'{variable}' is {value!r}: give a whole number from {least} to {most}."
        for variable, least, most in (
            ("backend_direct_processes", 1, 64),
            ("backend_direct_cache_max_bytes", 1 << 20, 1 << 60),
        )
        for value in (variables.get(variable, least),)
        if not re.fullmatch("[0-9]{1,19}", str(value)) or not least <= int(value) <= most
    ]


def _host_problems(variables: Mapping[str, Any]) -> list[str]:
    problems = _number_problems(variables)
    vcs = variables.get("backend_direct_vcs", "*:git")
    if not all(GOVCS.fullmatch(rule.strip()) for rule in str(vcs).split(",")):
        problems.append(
            f"'backend_direct_vcs' is {vcs!r}: give pattern:git in GOVCS's syntax, such as '*:git'."
        )
    for variable in FIELDS:
        entries = variables.get(variable) or []
        if not isinstance(entries, list):
            problems.append(f"'{variable}' is no list: give one entry for each git server.")
            continue
        problems += [text for entry in entries for text in _entry_problems(variable, entry)]
        hosts = Counter(str(entry.get("host")) for entry in entries if isinstance(entry, Mapping))
        problems += [
            f"'{variable}' names {host} more than once: leave one entry for it."
            for host, count in hosts.items()
            if count > 1 and HOST_NAME.fullmatch(host)
        ]
    return problems


def direct_problems(
    groups: Mapping[str, list[str]], hostvars: Mapping[str, Mapping[str, Any]]
) -> list[str]:
    """Every reason why `direct` would not work as the inventory says, one sentence each.

    `groups` and `hostvars` are Ansible's variables of those names. No sentence has a secret in it.
    """
    found = [text for name in groups.get("backends", []) for text in _host_problems(hostvars[name])]
    # Backends mostly share these variables.
    return list(dict.fromkeys(found))


class FilterModule:
    """Ansible finds the filters through this class."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"direct_problems": direct_problems, "uses_direct": uses_direct}
