"""What go 1.27.3, git 2.39.5 and OpenSSH 9.2 said when they failed, and what it means."""

from __future__ import annotations

import pytest

from modhaven import direct_errors

H = "git.corp.example"
M = f"{H}/team/lib"
CLONE = "/var/lib/modhaven/store/direct/calls/0b6e/mod/cache/vcs/" + "2957389c9e0a" * 5 + "0000"
LS = f"git ls-remote -q --end-of-options origin in {CLONE}: exit status 128:\n\tfatal: "
# (what was said, the outcome)
NOT_FOUND = [
    (f'module {M}/nosub: no matching versions for query "latest"', "no matching versions"),
    (f"{M}@v9.9.9: invalid version: unknown revision v9.9.9", "not found: unknown revision v9.9.9"),
    (f"{M}/nosub@v1.0.0: invalid version: unknown revision nosub/v1.0.0", "nosub/v1.0.0"),
    (f"module {H}/team/gone: {LS}repository 'https://{H}/team/gone.git/' not found",
     f"not found: repository 'https://{H}/team/gone.git/' not found"),
    (f'{H}/x@v1: unrecognized import path "{H}/x": reading https://{H}/x?go-get=1: 404 Not Found',
     "404 Not Found"),
    ((f'{H}/x@latest: unrecognized import path "{H}/x": parse https://{H}/x?go-get=1: no go-import'
     " meta tags ()"), "no go-import meta tags"),
    ('github.com/a@latest: invalid github.com import path "github.com/a"', "github.com/a"),
    ((f"{M}@v1.0.1-0.20230501120000-fbb1a1d6e547: invalid pseudo-version: does not match"
     " version-control timestamp (expected 20240501120000)"), "does not match version-control"),
    ((f"{M}@v1.9.1-0.20240501120000-fbb1a1d6e547: invalid pseudo-version: preceding tag (v1.9.0)"
     " not found"), "preceding tag (v1.9.0) not found"),
    ((f"{M}@v1.0.0+incompatible: invalid version: +incompatible suffix not allowed: major version"
     " v1 is compatible"), "suffix not allowed"),
    (f"module {H}/p: reading https://{H}/proxy/{H}/p/@v/list: 404 Not Found", "404 Not Found"),
    ((f"{H}/t/l.git@latest: {LS}'/t/l' does not appear to be a git repository\n\tfatal: Could not"
     " read from remote repository."), "'/t/l' does not appear to be a git repository"),
    ((f"module github.com/a/b: {LS.replace('fatal: ', '')}ERROR: Repository not found.\n\tfatal:"
     " Could not read from remote repository."), "not found: Repository not found."),
    ((f"{M}@v1.0.0: invalid version: {LS}could not read Username for 'https://{H}': terminal"
     " prompts disabled\nConfirm the import path was entered correctly.\nIf this is a private"
     " repository, see https://go.dev/doc/faq#git_https for additional information."),
     f"there is no such repository, or {H} demands a login and direct.netrc_file has none for it"),
    ((f'{M}@v1.0.0: unrecognized import path "{M}": reading https://{H}/team/lib?go-get=1: 401'
     " Unauthorized"), f"{H} demands a login"),
]  # fmt: skip
FAILURES = [
    (('git.corp.invalid/x@latest: unrecognized import path "git.corp.invalid/x": https fetch: Get'
     ' "https://git.corp.invalid/x?go-get=1": dial tcp: lookup git.corp.invalid on 10.0.0.1:53: no'
     " such host"), "git.corp.invalid: name not resolved"),
    (('127.0.0.1/x@latest: unrecognized import path "127.0.0.1/x": https fetch: Get'
     ' "https://127.0.0.1/x?go-get=1": dial tcp 127.0.0.1:443: connect: connection refused'),
     "connection refused"),
    ((f'{M}@v1.0.0: unrecognized import path "{M}": https fetch: Get "https://{M}?go-get=1": tls:'
     " failed to verify certificate: x509: certificate signed by unknown authority"),
     "x509: certificate signed by unknown authority"),
    ((f"{M}@v1.0.0: invalid version: {LS}unable to access 'https://{M}.git/': server certificate"
     " verification failed. CAfile: /ca.crt CRLfile: none"), "certificate verification failed"),
    ((f"{M}@v1.0.0: invalid version: {LS}unable to access 'https://{M}.git/': Problem with the SSL"
     " CA cert (path? access rights?)"), "ca_file cannot be read"),
    ((f"{M}@v1.0.0: invalid version: git ls-remote -q --end-of-options origin in {CLONE}: exec:"
     ' "git": executable file not found in $PATH'), "git was not found: install it"),
    ((f"{M}@v1.0.0: invalid version: {LS}unable to access 'https://{M}.git/': The requested URL"
     " returned error: 503"), "error: 503"),
    ((f"{M}@v1.0.0: invalid version: {LS}unable to access 'https://{M}.git/': The requested URL"
     " returned error: 403"), "error: 403"),
    ((f"{M}@v1.0.0: invalid version: git ls-remote -q --end-of-options origin in {CLONE}: exit"
     " status 128:\n\terror: RPC failed; HTTP 503 curl 22 The requested URL returned error:"
     " 503\n\tfatal: expected flush after ref listing"), "RPC failed; HTTP 503"),
    ((f'{M}@v1.0.0: unrecognized import path "{M}": reading https://{M}?go-get=1: 429 Too Many'
     " Requests"), "429 Too Many Requests"),
    ((f'{H}/hg@latest: unrecognized import path "{H}/hg": GOVCS disallows using hg for public'
     f" {H}/hg; see 'go help vcs'"), f"GOVCS disallows using hg for public {H}/hg"),
    (f"module {H}/plain: {LS}transport 'http' not allowed", "transport 'http' not allowed"),
    ((f'{H}/file@latest: unrecognized import path "{H}/file": https://{H}/file?go-get=1: invalid'
     ' repo root "file:///etc": file scheme disallowed'), "file scheme disallowed"),
    (f"{H}/new@v1.0.0 requires go >= 1.99 (running go 1.27.3; GOTOOLCHAIN=local)",
     "requires go >= 1.99"),
    ((f"module {H}/user: git ls-remote -q --end-of-options https://joe:pw@{H}/x.git in {CLONE}:"
     f" exit status 128:\n\tfatal: unable to access 'https://joe:pw@{H}/x.git/': Proxy CONNECT"
     " aborted"),
     f"unable to access 'https://{H}/x.git/': Proxy CONNECT aborted"),
    (f"module {H}/big: git fetch -f origin in {CLONE}: signal: file size limit exceeded",
     "larger than direct.cache_max_bytes"),
    ((f"module {H}/big: git fetch -f origin in {CLONE}: exit status 128:\n\terror: index-pack died"
     " of signal 25\n\tfatal: index-pack failed"), "larger than direct.cache_max_bytes"),
]  # fmt: skip


@pytest.mark.parametrize(("said", "outcome"), NOT_FOUND)
def test_what_the_origin_does_not_have(said: str, outcome: str) -> None:
    failure = direct_errors.explain(said, "", hosts=())
    assert outcome in str(failure)
    assert str(failure).startswith("not found: ")
    assert failure.not_found
    assert_fit_for_a_line(str(failure))


@pytest.mark.parametrize(("said", "outcome"), FAILURES)
def test_what_failed(said: str, outcome: str) -> None:
    failure = direct_errors.explain(said, "", hosts=())
    assert outcome in str(failure)
    assert not failure.not_found
    assert_fit_for_a_line(str(failure))


def assert_fit_for_a_line(outcome: str) -> None:
    assert "\n" not in outcome
    assert "cache/vcs" not in outcome
    assert "joe:pw" not in outcome
    assert len(outcome) < 300


@pytest.mark.parametrize("said", [NOT_FOUND[-1][0], NOT_FOUND[-2][0]])
def test_a_login_that_is_refused_is_no_404(said: str) -> None:
    failure = direct_errors.explain(said, "", hosts={H})
    assert str(failure) == f"{H} refused the login in direct.netrc_file"
    assert not failure.not_found


PINGS = [
    (("ssh: connect to host 127.0.0.1 port 2222: Connection refused\r\nfatal: Could not read from"
     " remote repository."), "ssh: connect to host 127.0.0.1 port 2222: Connection refused", False),
    ("Host key verification failed.\nfatal: Could not read from remote repository.",
     "not the one in direct.known_hosts_file", False),
    ("git@127.0.0.1: Permission denied (publickey).\nfatal: Could not read from remote repository.",
     "SSH refused the key", False),
    (("fatal: '/team/none' does not appear to be a git repository\nfatal: Could not read from"
     " remote repository."), "'/team/none' does not appear to be a git repository", True),
    (f"fatal: could not read Username for 'https://{H}': terminal prompts disabled",
     f"{H} demands a login", True),
    (f"fatal: unable to access 'https://{H}/x/': Could not resolve host: {H}",
     f"{H}: name not resolved", False),
]  # fmt: skip


@pytest.mark.parametrize(("details", "outcome", "not_found"), PINGS)
def test_a_path_that_ends_in_git_is_tried_with_each_protocol(
    details: str, outcome: str, *, not_found: bool
) -> None:
    said = f"{H}/x.git@latest: no secure protocol found for repository"
    details += "\nfatal: transport 'git+ssh' not allowed"
    failure = direct_errors.explain(said, details, hosts=())
    assert outcome in str(failure)
    assert failure.not_found is not_found


@pytest.mark.parametrize(
    "said",
    [
        (
            f"{M}@main: git fetch --unshallow -f origin in {CLONE}: exit status 128:\n\tfatal:"
            f" Unable to create '{CLONE}/shallow.lock': File exists."
        ),
        f"{M}@main: {LS}transport 'file' not allowed",
        f"{M}@main: {LS}not a git repository: '{CLONE}'",
        f"{M}@v1.0.0: invalid version: unknown revision refs/tags/v1.0.0",
        f"{M}@main: git fetch in {CLONE}: exit status 128:\n\tfatal: loose object 28c1 is corrupt",
        f"{M}@main: git fetch in {CLONE}: exit status 1:\n\tfatal: bad object 28c1",
        f'{M}@main: {CLONE}.info exists with wrong content (have "z" want "git3:https://{M}.git")',
    ],
)
def test_a_damaged_clone_is_known(said: str) -> None:
    assert direct_errors.is_damaged_clone(said)


@pytest.mark.parametrize("said", [said for said, _ in NOT_FOUND + FAILURES])
def test_what_the_origin_says_is_no_damage(said: str) -> None:
    assert not direct_errors.is_damaged_clone(said)


def test_passing_failures_are_tried_again_and_others_are_not() -> None:
    transient = {
        outcome for said, outcome in FAILURES if direct_errors.explain(said, "", hosts=()).transient
    }
    assert transient == {
        "git.corp.invalid: name not resolved",
        "error: 503",
        "RPC failed; HTTP 503",
        "429 Too Many Requests",
    }
