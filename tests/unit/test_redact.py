"""What is hidden of addresses and assignments in texts for people."""

from __future__ import annotations

import pytest

from hpc_agent import redact
from hpc_agent.redact import without_credentials, without_secrets, without_user_info


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("https://u:p@h/x.git", "https://h/x.git"),
        ("https://token@h/x.git", "https://h/x.git"),
        ("fatal: 'https://u:p@h.org/x' and git+ssh://v:q@g/y", "fatal: 'https://h.org/x' and git+ssh://g/y"),
        ("http://u:pa/SECRET@h/w.git", "http://h/w.git"),
        ("http://u:pa@SECRET@h/w.git", "http://h/w.git"),
        ("http://u:pa@SEC/RET@h/w.git", "http://h/w.git"),
        ("http://u:pa?SEC#RET@h/w.git", "http://h/w.git"),
        ("https://h/x?from=https://u:SECRET@g/y", "https://h/x?from=https://g/y"),
        ("x @ git+https://host.org/lab/x@v1.0", "x @ git+https://host.org/lab/x@v1.0"),
        ("x @ git+https://host:8443/lab/x@v1.0", "x @ git+https://host:8443/lab/x@v1.0"),
        ("x @ git+https://u:t@host.org/lab/x@v1.0", "x @ git+https://host.org/lab/x@v1.0"),
        ("x @ git+https://u:t@127.0.0.1:80/x@main", "x @ git+https://127.0.0.1:80/x@main"),
        ("https://[::1]:8443/x@v1", "https://[::1]:8443/x@v1"),
        ("no address, a@b.org", "no address, a@b.org"),
    ],
)
def test_no_part_of_a_password_is_shown(text: str, shown: str) -> None:
    assert without_credentials(text) == shown


def test_addresses_that_differ_stay_different() -> None:
    assert without_user_info("x @ git+https://t@h/x@v1") == "x @ git+https://h/x@v1"
    assert without_user_info("x @ git+https://u:p@q@h/x@v2") == "x @ git+https://h/x@v2"


def test_secret_assignments_are_hidden() -> None:
    assert without_secrets("API_KEY=abc LR=1") == f"API_KEY={redact.HIDDEN} LR=1"


@pytest.mark.parametrize(
    "piece", ["a", "a:", "a@", "a/", "://", "a://", "a://@", "a=", 'a="', "+", "https://u:p/", "A_"]
)
def test_long_texts_are_read_in_one_pass(piece: str) -> None:
    # With steps that grow with the square of the length this takes an hour, and runs into pytest's limit.
    assert "SECRET" not in without_secrets(piece * 200_000 + " https://u:SECRET@h/x")
