"""What the go command and git say when they fail, as one line, and what it means.

404 only where the origin says that there is no such thing. A host that demands credentials of
somebody who has none says the same of what does not exist: that is 404, too, as the public mirrors
have it. All else is a failure. Texts: cmd/go/internal/modfetch, modload and vcs; git; ssh.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from modhaven.attempt import AttemptError

if TYPE_CHECKING:
    from collections.abc import Collection

_MAX_CHARS = 240

# A clone that a killed git or a damaged disk left behind; without it all may be well.
_DAMAGED = re.compile(
    r"\.lock': File exists|fatal: not a git repository"
    r"|'origin' does not appear to be a git repository|ls-remote .* origin in [^\n]*\n\s*fatal:"
    r" transport 'file' not allowed|exists with wrong content|unknown revision refs/tags/"
    r"|is corrupt\b|bad object|object file .* is empty|did not send all necessary objects"
    r"|shallow file has changed|cannot lock ref|unable to read tree|missing blob object"
    r"|bad config|unable to write loose object file: Permission"
)
_NOT_FOUND = re.compile(
    r"no matching versions for query|unknown revision|invalid pseudo-version"
    r"|no go-import meta tags|invalid \S+ import path|malformed module path"
    r"|cannot contain module|mismatched repo: found|missing \S*go\.mod|has (?:non-|post-v).* at rev"
    r"|module path must match major version|suffix not allowed|no commits"
    r"|: reading http\S+: (?:404|410) |repository '[^']*' not found|ERROR: Repository not found"
    r"|ERROR: The project you were looking for could not be found"
    r"|fatal: '[^']*' does not appear to be a git repository"
    r"|is not a module|no modules on example\.net|server response: not found"
)
_NO_CREDENTIALS = re.compile(
    r"could not read (?:Username|Password) for '?https?://(?:[^@/']*@)?([^:/'\s]+)"
    r"|Authentication failed for '?https?://(?:[^@/']*@)?([^:/'\s]+)"
    r"|: reading https?://([^:/\s]+)\S*: 401 "
)
_TRANSIENT = re.compile(
    r"(?:error:|HTTP|: reading \S+:) (?:429|5[0-9]{2})\b|connection reset|reset by peer"
    r"|early EOF|hung up unexpectedly|unexpected disconnect|unexpected EOF|RPC failed"
    r"|expected flush after|Connection timed out|TLS handshake timeout|temporary failure"
    r"|server misbehaving|Could not resolve host|no such host",
    re.IGNORECASE,
)
# Better said than quoted.
_WORDS = {
    "Host key verification failed": "the host's SSH key is not the one in direct.known_hosts_file",
    "Permission denied (publickey": "SSH refused the key in direct.ssh, or none is there for it",
    "no such host": "name not resolved",
    "Could not resolve host": "name not resolved",
    "file size limit exceeded": "the repository is larger than direct.cache_max_bytes",
    "died of signal 25": "the repository is larger than direct.cache_max_bytes",
    'exec: "git"': "git was not found: install it",
    "Problem with the SSL CA cert": "ca_file cannot be read",
}
_SIGNIFICANT = re.compile(
    r"^\s*(?:fatal|ERROR|error|remote: ERROR|Host key verification failed|ssh|\S+: Permission"
    r" denied|.*: Permission denied|No \S+ host key is known|kex_exchange|Connection)\b.*$",
    re.MULTILINE,
)
_PLUMBING = re.compile(r"transport '\S+' not allowed|Could not read from remote repository")


def is_damaged_clone(text: str) -> bool:
    """Tell whether the cached clone is at fault, and a new one may do."""
    return _DAMAGED.search(text) is not None


def explain(error: str, details: str, *, hosts: Collection[str]) -> AttemptError:
    """Return the failure that the go command's ``error`` is.

    ``details`` is what it wrote beside; ``hosts`` are those that we have an HTTPS login for.
    """
    text = error
    if "no secure protocol found" in error or "protocol found for repository" in error:
        # It tried each protocol, and tells of none why not.
        text = f"{error}\n{details}"
    demanded = _NO_CREDENTIALS.search(text)
    if demanded is not None:
        return _unauthorized(next(filter(None, demanded.groups())), hosts)
    for word, meaning in _WORDS.items():
        if word in text:
            return AttemptError(_with_cause(meaning, text), transient=bool(_TRANSIENT.search(text)))
    line = _line(text)
    if _NOT_FOUND.search(text) and not re.search(r"exit status (?!128)|signal: ", text):
        return AttemptError(f"not found: {line}", not_found=True)
    return AttemptError(line, transient=_TRANSIENT.search(text) is not None)


def _unauthorized(host: str, hosts: Collection[str]) -> AttemptError:
    if host in hosts:
        return AttemptError(f"{host} refused the login in direct.netrc_file")
    return AttemptError(
        f"not found: there is no such repository, or {host} demands a login and direct.netrc_file"
        " has none for it",
        not_found=True,
    )


def _with_cause(meaning: str, text: str) -> str:
    host = re.search(
        r"lookup (\S+)|resolve host: (\S+?)'?$|'https?://([^/'@]+)/", text, re.MULTILINE
    )
    name = next(filter(None, host.groups()), "") if host else ""
    return f"{name}: {meaning}" if name else meaning


def _line(text: str) -> str:
    """Return the one line that tells most, without folders and passwords of ours."""
    said = [m.group().strip() for m in _SIGNIFICANT.finditer(text)]
    told = [line for line in said if not _PLUMBING.search(line)] or said
    if told:
        line = told[0]
    else:
        lines = [line.strip() for line in text.splitlines() if line.strip()]
        line = lines[0] if lines else "the go command failed and did not say why"
    line = re.sub(r"(\w://)[^/@\s]*@", r"\1", line)
    line = re.sub(r"(?:in )?/\S*/(?:cache/vcs|calls)/\S*", "", line)
    line = re.sub(r"^(?:module )?[^\s:]*[/@][^\s:]*: (?:invalid version: )?", "", line)
    line = re.sub(r"^(?:fatal|error|ERROR): ", "", line)
    return line[:_MAX_CHARS].strip() or text[:_MAX_CHARS]
