"""What each key of the configuration means: the one source of ``--help`` and of the documents.

A new key needs a sentence here, with its unit; its default is read from the configuration itself.
The sentences are Markdown, for docs/configuration.md, which a test compares with them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

# In the order of the documents: {heading: {key: meaning}}. ``upstreams[].url`` is a key of a
# mapping in the list ``upstreams``.
MEANINGS: Mapping[str, Mapping[str, str]] = {
    "server": {
        "node": "Name in `X-Modhaven-Backend`.",
        "listen": "`host:port` or `unix:/path`; a socket handed over by systemd goes first.",
        "workers": "Number of processes.",
        "graceful_timeout_seconds": "Seconds that requests under way get when the server stops.",
        "drain_file": "While this file exists, `/readyz` is 503.",
        "accel_prefix": (
            "Path below which nginx in front serves `<store>/cache/download` internally: fetched "
            "files are named there (X-Accel-Redirect) instead of being sent by the app."
        ),
    },
    "bulkheads": {
        "limits.zip_requests": (
            "Requests for zips that one process lets wait for upstreams; further ones are 503 "
            "with Retry-After. What the store holds needs no place."
        ),
        "limits.file_requests": (
            "The same for `.info` and `.mod` files and checksum database lookups."
        ),
        "limits.mutable_requests": (
            "The same for lists, `@latest` and queries; one that is refused gets the last answer "
            "known, labelled stale."
        ),
    },
    "store": {
        "store.path": "Directory of the store; made where it is not there.",
        "store.min_free_bytes": "Bytes that must stay free; below, `/readyz` is 503.",
        "store.quarantine_max_bytes": (
            "Bytes that wrong files may take in the quarantine; the oldest go first."
        ),
    },
    "upstreams": {
        "upstreams": (
            "The chain: a string in GOPROXY's syntax (`https://a|https://b,direct`), `off`, or "
            "a list of mappings with the keys that follow."
        ),
        "upstreams[].url": (
            "Address, without user, query or fragment; https where no scheme is written. Or "
            "`direct`, which takes `name`, `falls_through`, `tier`, `total_seconds`, `proxy`, "
            "`ca_file`, `modules` and `not_modules`."
        ),
        "upstreams[].name": "Name in answers, logs and errors.",
        "upstreams[].falls_through": (
            "Whether the next upstream is asked after any failure (the pipe). `false`: after 404 "
            "and 410 only (the comma)."
        ),
        "upstreams[].tier": (
            "`primary` or `fallback`: every primary upstream comes before every fallback one; "
            "inside a tier the order is as written."
        ),
        "upstreams[].connect_seconds": "Seconds, of this upstream.",
        "upstreams[].first_byte_seconds": "Seconds, of this upstream.",
        "upstreams[].total_seconds": "Seconds, of this upstream.",
        "upstreams[].retries": "Further tries after a reset, a truncated body, 429 or 5xx.",
        "upstreams[].proxy": (
            "Egress proxy: `http://`, `socks5://` (names are resolved here) or `socks5h://` "
            "(names are resolved by the proxy), with a port, and `user:password@` where it needs "
            "one."
        ),
        "upstreams[].ca_file": (
            "PEM file with the authorities this upstream's certificate is checked against."
        ),
        "upstreams[].certificate_file": (
            "PEM file with the certificate shown to this upstream; needs `key_file`."
        ),
        "upstreams[].key_file": "PEM file with its key.",
        "upstreams[].credentials_file": (
            "File with `user:password`, `bearer TOKEN`, or netrc lines (`machine HOST login USER "
            "password PASSWORD`). Read again when it changes. Over `http://` they travel in the "
            "clear."
        ),
        "upstreams[].modules": (
            "Patterns of the only modules that are asked for here. Such an upstream is not asked "
            "for checksum databases' tiles."
        ),
        "upstreams[].not_modules": "Patterns of modules that are not asked for here.",
        "upstreams[].health_check": (
            "Whether probes in the background find out when an upstream that was left out is well"
            " again. `false`: every `breaker.open_seconds` one request tries."
        ),
        "upstream_timeouts.connect_seconds": (
            "Seconds for name lookup and connecting, all addresses together."
        ),
        "upstream_timeouts.patience_seconds": (
            "Seconds for connecting and the first byte together while there is another upstream "
            "to ask."
        ),
        "upstream_timeouts.first_byte_seconds": (
            "Seconds for the first byte when no upstream answered within the patience; also the "
            "longest pause inside a body."
        ),
        "upstream_timeouts.total_seconds": "Seconds for one whole answer.",
        "upstream_retries": (
            "Further tries at one upstream after a reset, a truncated body, 429 or 5xx."
        ),
        "upstream_rounds": (
            "How many times the whole chain is asked, with a short pause, when every upstream "
            "fails in a way that may pass."
        ),
        "private": (
            "Patterns of modules that are asked for only at `direct` and where an upstream's "
            "`modules` names them, and never at a checksum database."
        ),
        "request_deadline_seconds": "Seconds for the whole chain.",
        "ca_file": (
            "PEM file with the authorities that upstreams' certificates are checked against."
        ),
    },
    "circuit breakers": {
        "breaker.failures": (
            "Failures in a row after which an upstream is left out. One timeout is enough."
        ),
        "breaker.open_seconds": "Seconds between two probes of an upstream that is left out.",
    },
    "hedging": {
        "hedge.enabled": (
            "Whether the next upstream is asked too when one is slow to answer a list, `@latest` "
            "or a query. Never for files, never across a comma."
        ),
        "hedge.min_seconds": (
            "Seconds an upstream has at least. In between, what 95 of 100 of its last answers took."
        ),
        "hedge.max_seconds": "Seconds it has at most, and while too few answers are known.",
    },
    "direct": {
        "direct.go": (
            "The go command that `direct` runs: a name or a path. It is looked for in PATH and "
            "in `/usr/local/go/bin`; without it, or without git, a server with `direct` does "
            "not start."
        ),
        "direct.processes": (
            "Number of go commands that one worker process runs at once. A request waits up to "
            "15 s for a place."
        ),
        "direct.vcs": (
            "Which version control systems may be used for which modules, in GOVCS's syntax. "
            "Only git is tested."
        ),
        "direct.insecure": (
            "Patterns of modules that may be fetched over `http://` and without checking "
            "certificates (GOINSECURE)."
        ),
        "direct.netrc_file": (
            "File with netrc lines (`machine HOST login USER password PASSWORD`) for HTTPS, "
            "used for `?go-get=1` pages and by git. A `default` entry is refused. Read at each "
            "call."
        ),
        "direct.ssh": (
            "Hosts whose repositories are fetched over SSH: a list of mappings with the keys "
            "that follow. `https://HOST/` becomes `ssh://USER@HOST:PORT/`."
        ),
        "direct.ssh[].host": "The host.",
        "direct.ssh[].user": "User to log in as.",
        "direct.ssh[].port": "Port.",
        "direct.ssh[].key_file": (
            "Private key without a passphrase, readable for nobody else. Shown to this host only."
        ),
        "direct.known_hosts_file": (
            "Keys of the SSH hosts, as in `known_hosts` (`[HOST]:PORT` where the port is not "
            "22). A host that is not in it is not trusted."
        ),
        "direct.cache_max_bytes": (
            "Bytes that cloned repositories may take in `<store>/direct/vcs`; those not used "
            "for longest go first. No single file of one may be larger."
        ),
    },
    "sibling backends": {
        "peers": (
            "Sibling backends, of which only the stores are asked: when every upstream has "
            "failed, or is known to be down."
        ),
        "peers[].name": "Name in answers and logs.",
        "peers[].url": "Address.",
        "peer_seconds": (
            "Seconds for the siblings, all asked at once, to say whether they hold a file."
        ),
        "peer_tls.ca_file": (
            "PEM file with the authorities the peers' certificates are checked against. The three"
            " keys go together."
        ),
        "peer_tls.certificate_file": "PEM file with the certificate shown to peers.",
        "peer_tls.key_file": "PEM file with its key.",
    },
    "verification": {
        "sumdb": (
            "Checksum databases as `name+hash+key`, optionally with a URL behind a space; one, a "
            "list, or `off`. An entry of the list may be a mapping. All are mirrored."
        ),
        "sumdb[].key": "`name+hash+key`.",
        "sumdb[].url": "Address of the database itself.",
        "sumdb[].modules": (
            "Patterns of the only modules it verifies. Such a database is asked at its own "
            "address alone, private modules included, and no mirror hears of them."
        ),
        "sumdb[].proxy": "Egress proxy to the database itself, as an upstream's.",
        "sumdb[].ca_file": ("PEM file with the authorities its certificate is checked against."),
        "sumdb[].credentials_file": "File with its credentials, as an upstream's.",
        "nosumdb": "Patterns of modules that no checksum database is asked about.",
        "require_verified": (
            "Whether a file is refused while the checksum database cannot be asked, instead of "
            "served and marked."
        ),
    },
    "freshness": {
        "freshness.mutable_seconds": "Seconds for which lists, `@latest` and queries are fresh.",
        "freshness.not_found_seconds": 'Seconds for which "not found" is remembered.',
        "freshness.stale_max_seconds": (
            "Seconds for which a kept answer may be served stale when no upstream answers."
        ),
    },
}

# Where a default is not one value that can be written in the file.
DEFAULTS: Mapping[str, str] = {
    "node": "the host's name",
    "store.path": "`modhaven/store` in the user's cache directory",
    "upstreams": "`https://goproxy.cn|https://goproxy.io|https://proxy.golang.org`",
    "upstreams[].url": "none, required",
    "upstreams[].name": "host and port of the url",
    "upstreams[].falls_through": "`true`",
    "upstreams[].tier": "`primary`",
    "upstreams[].connect_seconds": "`upstream_timeouts.connect_seconds`",
    "upstreams[].first_byte_seconds": "`upstream_timeouts.first_byte_seconds`",
    "upstreams[].total_seconds": "`upstream_timeouts.total_seconds`",
    "upstreams[].retries": "`upstream_retries`",
    "upstreams[].ca_file": "`ca_file`",
    "upstreams[].modules": "all but the private ones",
    "upstreams[].health_check": "`true`",
    "direct.ssh[].host": "none, required",
    "direct.ssh[].user": "`git`",
    "direct.ssh[].port": "`22`",
    "direct.ssh[].key_file": "none, required",
    "direct.known_hosts_file": "none, required with `ssh`",
    "peers[].name": "none, required",
    "peers[].url": "none, required",
    "ca_file": "the system's",
    "sumdb": "`sum.golang.org` with its published key",
    "sumdb[].key": "none, required",
    "sumdb[].url": "`https://` and the name",
    "sumdb[].modules": "all that no other database names",
    "sumdb[].ca_file": "`ca_file`",
}

# What stands for the value in --help, where its type says too little.
METAVARS: Mapping[str, str] = {
    "listen": "ADDRESS",
    "node": "NAME",
    "upstreams": "CHAIN",
    "private": "PATTERNS",
    "direct.go": "COMMAND",
    "direct.vcs": "GOVCS",
    "direct.insecure": "PATTERNS",
    "direct.ssh": "'{host: HOST, key_file: PATH}'",
    "accel_prefix": "PREFIX",
    "peers": "'{name: NAME, url: URL}'",
    "sumdb": "KEY",
    "nosumdb": "PATTERNS",
}
