"""What may be tried again."""

from __future__ import annotations

import pytest

from hpc_agent.retry import is_away

UV = "error: Request failed after 3 retries in 9.5s\n  cause: Failed to fetch: http://index/simple/x/\n  cause: "
GIT = "fatal: unable to access 'http://host/x.git/': "


@pytest.mark.parametrize(
    "words",
    [
        UV + "client error (Connect)\n  cause: tcp connect error\n  cause: Connection refused (os error 111)",
        UV + "dns error\n  cause: failed to lookup address information: Name or service not known",
        UV + "HTTP status server error (503 Service Unavailable) for url (http://index/simple/x/)",
        GIT + "Could not resolve host: git.example.org",
        GIT + "Failed to connect to host port 80 after 0 ms: Couldn't connect to server",
        GIT + "The requested URL returned error: 503",
        GIT + "GnuTLS recv error (-110): The TLS connection was non-properly terminated.",
        "fatal: unable to connect to host:\nhost[0: 127.0.0.1]: errno=Connection refused",
        "ssh: connect to host host port 22: Connection timed out\nfatal: Could not read from remote repository.",
        "ssh: Could not resolve hostname host: Temporary failure in name resolution",
        "fetch-pack: unexpected disconnect while reading sideband packet\nfatal: early EOF",
        "batch request: dial tcp: lookup host: no such host",
        "WARNING: Retrying (Retry(total=0)) after connection broken by 'NewConnectionError(\"Failed to establish a new "
        "connection: [Errno 111] Connection refused\")': /simple/x/\nERROR: No matching distribution found for x",
    ],
)
def test_a_machine_that_is_away_may_come_back(words: str) -> None:
    assert is_away(words)


@pytest.mark.parametrize(
    "words",
    [
        GIT + "The requested URL returned error: 403",
        "fatal: repository 'http://host/x.git/' not found",
        "fatal: Authentication failed for 'http://host/x.git/'",
        "git@host: Permission denied (publickey).\nfatal: Could not read from remote repository.",
        "fatal: couldn't find remote ref refs/heads/nowhere",
        "fatal: remote error: upload-pack: not our ref 0123456789\nfatal: the remote end hung up unexpectedly",
        "fatal: '/no/such/path' does not appear to be a git repository",
        "error: No solution found when resolving dependencies\n  cause: Because x was not found in the registry",
        "hint: An index (http://index/simple) returned a 403 Forbidden error.",
        "ERROR: No matching distribution found for x==5000",
        "error: subprocess-exited-with-error\n  gcc: fatal error: no input files",
        "",
    ],
)
def test_what_is_not_there_does_not_come(words: str) -> None:
    assert not is_away(words)
