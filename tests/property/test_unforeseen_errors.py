"""Errors that nobody foresaw, at every step of a pass: the task's user hears of them, and the daemon goes on."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from pretended_site import TASK, PretendedSite

from hpc_agent.daemon.trouble import TRIES
from hpc_agent.domain.attempt import Attempt, attempt_for
from hpc_agent.domain.status import TaskStatus

STEPS = 8
"""More calls than a pass makes until a waiting task is submitted."""


@pytest.fixture
def site(tmp_path: Path) -> Iterator[PretendedSite]:
    site = PretendedSite(tmp_path)
    yield site
    site.close()


def passes(site: PretendedSite, count: int, seconds: float = 31) -> None:
    for _ in range(count):
        site.fate.calls = 0
        site.daemon._safely()
        site.clock.advance(seconds)


def attempt_of(site: PretendedSite) -> Attempt:
    assert site.server.entry is not None
    return attempt_for(site.cluster.cluster(), site.server._look([])[0].id, TASK, site.server.entry)


@pytest.mark.parametrize("step", range(1, STEPS + 1))
def test_an_error_at_any_step_is_told_at_once_and_ends_the_task_or_passes(site: PretendedSite, step: int) -> None:
    site.server.enqueue(by_person=True)
    site.fate.break_at = step
    passes(site, 1)
    told, submitted = site.server.there.message, bool(site.cluster.jobs)
    passes(site, TRIES + 1)
    there = site.server.there
    if there.status is TaskStatus.FAILED:
        assert "LookupError: of a kind that nobody foresaw" in there.reason
        assert f"in {TRIES} tries" in there.reason
        assert "LookupError: of a kind that nobody foresaw" in told
        assert site.server.entry is None
        return
    site.fate.break_at = None
    passes(site, 3)
    assert submitted or site.cluster.jobs, "where the whole pass failed, or only a message, the task is submitted"


def test_some_step_belongs_to_the_task_alone(tmp_path: Path) -> None:
    """Else the test above shows nothing."""
    ended = 0
    for step in range(1, STEPS + 1):
        site = PretendedSite(tmp_path / str(step))
        site.server.enqueue(by_person=True)
        site.fate.break_at = step
        passes(site, TRIES + 2)
        ended += site.server.there.status is TaskStatus.FAILED
        site.close()
    assert ended >= 2


def test_tries_are_counted_over_processes_that_make_one_pass_each(site: PretendedSite) -> None:
    site.server.enqueue(by_person=True)
    site.server.tasks.get = _raises(RecursionError("maximum recursion depth exceeded"))
    for number in range(TRIES):
        assert site.server.there.status is TaskStatus.QUEUED, number
        passes(site, 1)
        site.restart()
        site.server.tasks.get = _raises(RecursionError("maximum recursion depth exceeded"))
    assert site.server.there.status is TaskStatus.FAILED
    assert "RecursionError: maximum recursion depth exceeded" in site.server.there.reason


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO, errno.ESTALE, errno.EDQUOT])
def test_trouble_of_the_machine_fails_no_task(site: PretendedSite, number: int) -> None:
    site.server.enqueue(by_person=True)
    get, site.server.tasks.get = site.server.tasks.get, _raises(OSError(number, os.strerror(number)))
    passes(site, TRIES * 3)
    assert site.server.there.status is TaskStatus.QUEUED
    assert os.strerror(number) in site.server.there.message
    site.server.tasks.get = get
    passes(site, 2)
    assert site.cluster.jobs


def test_an_upgrade_under_a_running_daemon_fails_no_task(site: PretendedSite) -> None:
    site.server.enqueue(by_person=True)
    site.server.tasks.get = _raises(ModuleNotFoundError("No module named 'hpc_agent.envs.new'"))
    passes(site, TRIES * 3)
    assert site.server.there.status is TaskStatus.QUEUED
    assert "No module named" in site.server.there.message


def test_a_secret_in_an_unforeseen_error_is_not_told(site: PretendedSite) -> None:
    site.server.enqueue(by_person=True)
    site.server.tasks.get = _raises(ValueError("MY_TOKEN=hunter2 at https://u:hunter2@h/x\nmore"))
    passes(site, 1)
    assert "ValueError" in site.server.there.message
    assert "hunter2" not in site.server.there.message
    assert "\n" not in site.server.there.message


@pytest.mark.parametrize("name", ["submit.json", "claim.json", "exit.json", "stage-job.json"])
@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff\xfe", b'{"state": 7}', None])
def test_records_that_cannot_be_read_end_the_task_and_stay(
    site: PretendedSite, name: str, content: bytes | None
) -> None:
    """``None``: a folder of that name."""
    site.server.enqueue(by_person=True)
    directory = site.runs.of(attempt_of(site)).create()
    record = directory.path / name
    if content is None:
        record.mkdir()
    else:
        record.write_bytes(content)
    passes(site, 1)
    first = site.server.there.message
    passes(site, TRIES + 1)
    there = site.server.there
    assert name in first
    assert there.status is TaskStatus.FAILED
    assert name in there.reason
    kept = [path for path in directory.path.parent.rglob(name) if path != record]
    assert kept, "set aside for whoever looks"


def test_a_file_where_its_run_directory_should_be_ends_the_task(site: PretendedSite) -> None:
    site.server.enqueue(by_person=True)
    folder = site.runs.of(attempt_of(site)).path.parent
    folder.parent.mkdir(parents=True, exist_ok=True)
    folder.write_text("in the way")
    passes(site, TRIES + 2)
    assert site.server.there.status is TaskStatus.FAILED
    assert "NotADirectoryError" in site.server.there.reason


def test_a_task_whose_job_waits_is_not_failed_for_records_that_cannot_be_read(site: PretendedSite) -> None:
    site.server.enqueue(by_person=True)
    passes(site, 2)
    [job] = site.cluster.jobs.values()
    (site.runs.of(attempt_of(site)).path / "submit.json").write_bytes(b"{")
    passes(site, TRIES + 3)
    assert site.server.there.status is TaskStatus.QUEUED
    assert "submit.json" in site.server.there.message
    assert job.record is None, "it was not cancelled"


def _raises(error: Exception) -> object:
    def call(*_: object, **__: object) -> None:
        raise error

    return call
