"""The runner of checks: one that raises or hangs costs its own line, and the order is that of the list."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from hpc_agent.access import user_name
from hpc_agent.clock import SYSTEM
from hpc_agent.doctor.check import Check, CheckLine, CheckResult, CheckStatus, Once, SkippedError, ok, run_checks
from hpc_agent.doctor.machine_checks import _lingering, _memory_limit
from hpc_agent.errors import HpcAgentError


def lines(*checks: Check) -> list[CheckLine]:
    return [line for found in run_checks(checks, SYSTEM) for line in found]


def check(name: str, run: Callable[[], Iterator[CheckResult]], timeout: float = 30) -> Check:
    return Check("subject", name, run, f"fix {name}", timeout)


def fine() -> Iterator[CheckResult]:
    yield ok("fine")


def raising(error: Exception) -> Callable[[], Iterator[CheckResult]]:
    def run() -> Iterator[CheckResult]:
        yield ok("half of it")
        raise error

    return run


def test_a_check_that_raises_costs_its_own_line() -> None:
    found = lines(
        check("known", raising(HpcAgentError("no answer from https://anna:secret@host"))),
        check("unknown", raising(KeyError("x"))),
        check("needs", raising(SkippedError("the server does not answer"))),
        check("fine", fine),
    )
    assert [(line.name, line.finding.status.value) for line in found] == [
        ("known", "ok"),
        ("known", "failed"),
        ("unknown", "ok"),
        ("unknown", "failed"),
        ("needs", "ok"),
        ("needs", "skipped"),
        ("fine", "ok"),
    ]
    assert "secret" not in found[1].finding.message and found[1].finding.remedy == "fix known"
    assert found[3].finding.message == "KeyError: 'x'"


def test_a_check_that_hangs_costs_its_own_line_and_keeps_what_it_found() -> None:
    never = threading.Event()

    def hangs() -> Iterator[CheckResult]:
        yield ok("half of it")
        never.wait()

    try:
        # The hanging thread is not waited for longer than a moment.
        found = lines(check("hangs", hangs, timeout=0.3), check("fine", fine))
    finally:
        never.set()
    assert [(line.name, line.finding.status) for line in found] == [
        ("hangs", CheckStatus.OK),
        ("hangs", CheckStatus.FAILED),
        ("fine", CheckStatus.OK),
    ]
    assert (found[1].finding.message, found[1].finding.remedy) == ("no answer within 0.3 s", "fix hangs")


def test_checks_run_side_by_side_and_are_reported_in_order() -> None:
    second_is_done = threading.Event()

    def first() -> Iterator[CheckResult]:
        assert second_is_done.wait(30)
        yield ok("after the second")

    def second() -> Iterator[CheckResult]:
        second_is_done.set()
        yield ok("first of all")

    assert [line.name for line in lines(check("first", first), check("second", second))] == ["first", "second"]


def test_progress_names_the_checks_that_are_not_done() -> None:
    reported: list[list[str]] = []
    go = threading.Event()

    def waits() -> Iterator[CheckResult]:
        assert go.wait(30)
        yield ok("")

    def progress(waiting: object) -> None:
        reported.append(list(waiting))  # type: ignore[call-overload]
        if reported[-1] == ["waits"]:
            go.set()

    list(run_checks([check("waits", waits), check("fine", fine)], SYSTEM, progress))
    assert ["waits"] in reported


def test_a_value_that_many_need_is_made_once_and_its_error_is_the_same_for_all() -> None:
    made: list[int] = []

    def make() -> int:
        made.append(1)
        raise HpcAgentError("no")

    once = Once(make)
    errors = []
    for _ in range(2):
        with pytest.raises(HpcAgentError) as caught:
            once.get()
        errors.append(caught.value)
    assert errors[0] is errors[1] and made == [1]


def test_the_smallest_memory_limit_of_the_cgroups_above_counts(tmp_path: Path) -> None:
    membership = tmp_path / "cgroup"
    membership.write_text("1:name=systemd:/old\n0::/user.slice/user-7.slice\n")
    for folder, limit in {"": "max", "user.slice": str(8 << 30), "user.slice/user-7.slice": "max"}.items():
        (tmp_path / "fs" / folder).mkdir(exist_ok=True, parents=True)
        (tmp_path / "fs" / folder / "memory.max").write_text(f"{limit}\n")
    assert _memory_limit(membership, tmp_path / "fs") == 8192
    membership.write_text("0::/\n")
    assert _memory_limit(membership, tmp_path / "fs") is None
    assert _memory_limit(tmp_path / "nothing", tmp_path / "fs") is None


@pytest.mark.parametrize(
    ("files", "status", "words"),
    [
        ({}, "skipped", "is not run by systemd"),
        ({"run/systemd/system/x": ""}, "warning", "a daemon that you start by hand stays"),
        ({"run/systemd/system/x": "", f"var/lib/systemd/linger/{user_name()}": ""}, "ok", "go on when you log out"),
        (
            {"run/systemd/system/x": "", "etc/systemd/logind.conf": "[Login]\n#KillUserProcesses=yes\n"},
            "warning",
            "a daemon that you start by hand stays",
        ),
        (
            {"run/systemd/system/x": "", "etc/systemd/logind.conf": "[Login]\nKillUserProcesses=yes\n"},
            "warning",
            "all of your processes are ended when you log out",
        ),
        (
            {
                "run/systemd/system/x": "",
                "etc/systemd/logind.conf": "[Login]\nKillUserProcesses=yes\n",
                "etc/systemd/logind.conf.d/site.conf": "[Login]\nKillUserProcesses = no\n",
            },
            "warning",
            "a daemon that you start by hand stays",
        ),
    ],
)
def test_what_becomes_of_services_at_logout(files: dict[str, str], status: str, words: str, tmp_path: Path) -> None:
    """On a copy of the files of systemd, which few test machines run."""
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    [found] = _lingering(tmp_path)
    assert (found.status.value, words in found.message) == (status, True), found
    assert ("loginctl enable-linger" in found.remedy) is (status == "warning")
