"""Hostile requests by the hundred thousand: valid ones, bent by what attackers and accidents do.

Everything comes from one random.Random, so that a seed gives the same requests again.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import random
    from collections.abc import Callable

SUMDB = "localhost.localdev/sumdb"
_HOSTS = ["example.com", "github.com", "rsc.io", "gopkg.in", "x.y", "golang.org", "private.corp"]
_WORDS = [
    "quote",
    "!azure",
    "a",
    "x-y",
    "sub.dir",
    "v2",
    "v3",
    "internal",
    "a~b",
    "yaml.v2",
    "list",
]
_VERSIONS = [
    "v1.0.0", "v0.1.0", "v1.2.3-pre.1", "v1.0.0-!r!c1", "v2.0.0+incompatible", "v2.1.0",
    "v0.0.0-20170915032832-14c0d48ead0c", "v0.3.1-0.20170915032832-14c0d48ead0c", "master", "main",
    "14c0d48ead0c", "v1", "v1.2", "v01.2.3", "latest", "upgrade", "patch", "HEAD", "v1.0.0+meta",
    "v99999999999999999999.0.0", "v1.0.0-" + "9" * 60, "feature=x", "a b", "@v", "-", "v", "v.",
    "~", "1.0.0", "v1.0.0.0", "refs", "#1", "$HOME", "[x]", "{a,b}", "..x", "x..", "con", "list",
    "*", "a'b", "<x>", "a:b", "x|y", "`id`", "nul.x", "x;y", "a?b", "..",
]  # fmt: skip
_ELEMENTS = [
    "..", ".", "...", "", ".git", "..;", "%2e%2e", "%2E.", "%252e%252e", "%c0%ae%c0%ae", "%u002e",
    "%e0%80%ae", "%00", "%2500", "..%00", "..%2f..", "..\\..", "..%5c..", "con", "NUL.txt", "com1",
    "lpt9.zip", "aux", "a~1", "PROGRA~1", "-", "--", "~", "~root", "@", "@v", "@latest", "!", "!!",
    "!A", "!1", "*", "?", "etc", "passwd", "proc", "self", "environ", "cached-only", "sumdb",
    "tile", "lookup", "supported", "latest", "$(id)", "`id`", "{{7*7}}", "%s%n", "${jndi:x}",
    "'\"<>", "e\u0301", "\u202e", "\uff0e\uff0e", "\U0001f600", "\ufeff", "xn--a",
    "quarantine", "pins",
]  # fmt: skip
_PREFIXES = [
    "cached-only/", "cached-only/cached-only/", "sumdb/", f"sumdb/{SUMDB}/", "sumdb/../", "/", "//",
    "-/", "../", "./", "%2e%2e/", "metrics/", "healthz/", "static/../", "\\", "~/", ":80/", "@/",
]  # fmt: skip
_FORMS = [
    "http://localhost/{}", "https://u:p@evil.example:99/{}", "http:///{}", "http://[::1]/{}",
    "file:///{}", "//evil.example/{}", "*", "localhost:443", "{}", "", "http://[/{}",
]  # fmt: skip
_TAILS = [
    "?", "?verbose",
    "?go-get=1", "?x=%00", "?../../etc/passwd", "?%2e%2e%2f", "#", "#../x", "/", "//", "/.",
    "/..", ".", "%20", "%00", "%00.zip", "%0d%0aX-Evil:%201", ";x=1", "~", ".gz", ".info", ".zip",
    ".mod", "/@v/list", "/@latest", "+", "%2B", "%3f", "%23", "&", "=",
]  # fmt: skip
_METHODS = [
    "POST", "PUT", "DELETE", "OPTIONS", "TRACE", "CONNECT", "PATCH", "PROPFIND", "get", "Get",
    "HEADS", "GETGETGETGETGETGETGET", "X", "G\x00T", "GÉT", "", "\t", "M-SEARCH", "PURGE", "PRI",
]  # fmt: skip
_HEADERS = [
    "X-Request-Id: edge-12345678", "X-Request-Id: short", "X-Request-Id: " + "a" * 65,
    "X-Request-Id: a\tb-12345678", "X-Request-Id: ../../12345678", "X-Request-Id: " + "\xe9" * 9,
    "X-Request-Id: <script>12345", "X-Request-Id:", "Range: bytes=0-0", "If-None-Match: *",
    "If-Modified-Since: x", "Accept-Encoding: gzip, br", "Content-Length: 0", "Content-Length: -1",
    "Content-Length: 99999999999999999999", "SCRIPT_NAME: /x", "PATH_INFO: /x", "Script-Name: /x",
    "X-Forwarded-Proto: https", "X-Forwarded-Host: evil", "X-Original-Url: /-/x", "Cookie: a=b",
    "Authorization: Basic !", "Connection: close", "Connection: upgrade", "Upgrade: h2c",
    "Expect: x",
    "Host: evil.example", "Host:", "X-Http-Method-Override: DELETE", "Disable-Module-Fetch: true",
]  # fmt: skip


@dataclass(frozen=True, slots=True)
class Hostile:
    """One request as it goes over the wire; ``target`` may be anything but split by spaces."""

    method: str
    target: bytes
    headers: tuple[str, ...]

    @property
    def wire(self) -> bytes:
        head = "".join(f"{line}\r\n" for line in self.headers).encode("latin-1")
        return b"%s %s HTTP/1.1\r\n%s\r\n" % (self.method.encode("latin-1"), self.target, head)


def make_request(rng: random.Random) -> Hostile:
    """Return the next request: one in five is not bent at all."""
    path = make_path(rng)
    for _ in range(rng.choice((0, 1, 1, 2, 4))):
        path = rng.choice(MUTATIONS)(rng, path)
    form = rng.choice(_FORMS) if rng.random() < 0.04 else "/{}"
    target = form.replace("{}", path).encode("utf-8", "surrogateescape")
    if rng.random() < 0.02:
        at = rng.randrange(len(target) + 1)
        target = target[:at] + rng.randbytes(rng.choice((1, 4, 60))) + target[at:]
    # What splits a request line is no path; the socket's share has such lines all the same.
    target = re.sub(rb"[ \r\n]", b"%20", target)
    chance = rng.random()
    method = "GET" if chance < 0.85 else "HEAD" if chance < 0.93 else rng.choice(_METHODS)
    headers = ["Host: localhost"]
    headers += rng.sample(_HEADERS, rng.choice((0, 0, 0, 1, 2)))
    return Hostile(method, target, tuple(headers))


def make_path(rng: random.Random) -> str:
    """Return a path of the protocol, escaped as clients write it; most of them are valid."""
    chance = rng.random()
    if chance < 0.03:
        return rng.choice(["healthz", "readyz", "", "metrics", "-/pool", "favicon.ico"])
    module = "/".join([rng.choice(_HOSTS), *rng.choices(_WORDS, k=rng.choice((0, 1, 1, 2)))])
    if rng.random() < 0.02:
        module += "/d" * rng.choice((50, 97, 98, 99, 400, 995))
    if rng.random() < 0.05:
        module += f"/{rng.randrange(50)}"
    version = rng.choice(_VERSIONS)
    if chance < 0.2:
        number = rng.choice(("000", "x001/234", "x999/x999/x999/999", "1", "x000/000", "-1", "1e3"))
        tail = rng.choice((
            "supported", "latest", f"lookup/{module}@{version}", f"lookup/{version}",
            f"tile/8/{rng.randrange(66)}/{number}", f"tile/8/data/{number}",
            f"tile/8/0/{number}.p/{rng.choice((0, 1, 255, 256, 999))}", "tile/9/0/000", "tile",
        ))  # fmt: skip
        return f"sumdb/{rng.choice((SUMDB, SUMDB, 'sum.golang.org', 'A.b', ''))}/{tail}"
    if chance < 0.3:
        return f"{module}/@latest"
    if chance < 0.4:
        return f"{module}/@v/list"
    return f"{module}/@v/{version}.{rng.choice(('info', 'mod', 'zip', 'info', 'tar', 'ziphash'))}"


def _insert_element(rng: random.Random, path: str) -> str:
    elements = path.split("/")
    elements.insert(rng.randrange(len(elements) + 1), rng.choice(_ELEMENTS))
    return "/".join(elements)


def _climb(rng: random.Random, path: str) -> str:
    up = rng.choice(("../", "%2e%2e/", "..%2f", "..\\", "%2e%2e%2f", "....//", "%252e%252e%252f"))
    return up * rng.randrange(1, 12) + rng.choice((path, "etc/passwd", "etc/passwd%00.zip"))


def _encode_some(rng: random.Random, path: str) -> str:
    share, form = (
        rng.choice((0.05, 1.0)),
        rng.choice(("%{:02x}", "%{:02X}", "%25{:02x}", "%u{:04x}")),
    )
    return "".join(form.format(ord(c)) if rng.random() < share else c for c in path)


def _encode_overlong(rng: random.Random, path: str) -> str:
    if not path:
        return path
    at = rng.randrange(len(path))
    code = ord(path[at]) & 0x7F
    two = f"%{0xC0 | code >> 6:02x}%{0x80 | code & 0x3F:02x}"
    return path[:at] + rng.choice((two, f"%e0%80%{0x80 | code & 0x3F:02x}")) + path[at + 1 :]


def _insert_character(rng: random.Random, path: str) -> str:
    at = rng.randrange(len(path) + 1)
    code = rng.choice((0, 9, 10, 13, 27, 127, 128, 255, rng.randrange(256)))
    raw = bytes([code]).decode("latin-1") if code < 128 else chr(code)
    return (
        path[:at] + rng.choice((raw, f"%{code:02x}", f"%{code:02X}", "%", "%g0", "%4")) + path[at:]
    )


def _replace_slash(rng: random.Random, path: str) -> str:
    new = rng.choice(("//", "\\", "%2f", "%2F", "%5c", "/./", "/../", "%252f", "\u2215", "/%00/"))
    count = rng.choice((1, 1, -1))
    return path.replace("/", new, count)


def _shout(rng: random.Random, path: str) -> str:
    at = rng.randrange(len(path) + 1)
    return (
        path.upper()
        if rng.random() < 0.3
        else path[:at] + path[at : at + 1].upper() + path[at + 1 :]
    )


def _cut(rng: random.Random, path: str) -> str:
    one, two = sorted(rng.randrange(len(path) + 1) for _ in range(2))
    return rng.choice((path[:one] + path[two:], path[one:two], path[:two] + path[one:]))


def _stretch(rng: random.Random, path: str) -> str:
    at = rng.randrange(len(path) + 1)
    unit, count = rng.choice(
        (("a", 201), ("a", 199), ("x" * 150 + "/", 14), ("!a", 101), ("b/", 1100))
    )
    return path[:at] + unit * count + path[at:]


def _bang(rng: random.Random, path: str) -> str:
    return path.replace("!", rng.choice(("%21", "%2521", "!!", "")))


MUTATIONS: list[Callable[[random.Random, str], str]] = [
    _insert_element, _insert_element, _climb, _encode_some, _encode_overlong, _insert_character,
    _insert_character, _replace_slash, _shout, _cut, _stretch, _bang,
    lambda rng, path: rng.choice(_PREFIXES) + path,
    lambda rng, path: path + rng.choice(_TAILS),
    lambda rng, path: path.replace("@", rng.choice(("%40", "@@", ""))),
]  # fmt: skip
