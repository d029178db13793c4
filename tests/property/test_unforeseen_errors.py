"""Unforeseen errors at every step of a pass: the task's user gets a message, and the daemon goes on."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from simulated_site import SimulatedSite

from hpc_agent.daemon.task_errors import TRIES
from hpc_agent.domain.attempt import Attempt, attempt_for
from hpc_agent.domain.status import TaskStatus

READ = "tasks.get_by_id"
"""The call by which the daemon reads a task."""
STEPS = 8
"""More calls than a pass makes until a waiting task is submitted."""


@pytest.fixture
def site(tmp_path: Path) -> Iterator[SimulatedSite]:
    site = SimulatedSite(tmp_path)
    yield site
    site.close()


def passes(site: SimulatedSite, count: int, seconds: float = 31) -> None:
    for _ in range(count):
        site.faults.calls = 0
        site.daemon._try_pass()
        site.clock.advance(seconds)


def attempt_of(site: SimulatedSite) -> Attempt:
    added = site.server.added
    assert added is not None
    return attempt_for(site.cluster.cluster(), site.server.queue, site.server.task, added)


@pytest.mark.parametrize("step", range(1, STEPS + 1))
def test_an_error_at_any_step_is_reported_at_once_and_ends_the_task_or_passes(site: SimulatedSite, step: int) -> None:
    site.enqueue()
    site.faults.raise_at = step
    passes(site, 1)
    message, submitted = site.server.message, bool(site.cluster.jobs)
    passes(site, TRIES + 1)
    if site.server.status is TaskStatus.FAILED:
        assert "LookupError: of a kind that no code foresees" in site.server.reason
        assert f"in {TRIES} tries" in site.server.reason
        assert "LookupError: of a kind that no code foresees" in message
        assert not site.server.is_in_queue
        return
    site.faults.raise_at = None
    passes(site, 3)
    assert submitted or site.cluster.jobs, "where the whole pass failed, or only a message, the task is submitted"


def test_some_step_belongs_to_the_task_alone(tmp_path: Path) -> None:
    """Else the test above shows nothing."""
    ended = 0
    for step in range(1, STEPS + 1):
        site = SimulatedSite(tmp_path / str(step))
        site.enqueue()
        site.faults.raise_at = step
        passes(site, TRIES + 2)
        ended += site.server.status is TaskStatus.FAILED
        site.close()
    assert ended >= 2


def test_tries_are_counted_over_processes_that_make_one_pass_each(site: SimulatedSite) -> None:
    site.enqueue()
    site.faults.errors[READ] = RecursionError("maximum recursion depth exceeded")
    for number in range(TRIES):
        assert site.server.status is TaskStatus.QUEUED, number
        passes(site, 1)
        site.restart_daemon()
    assert site.server.status is TaskStatus.FAILED
    assert "RecursionError: maximum recursion depth exceeded" in site.server.reason


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO, errno.ESTALE, errno.EDQUOT])
def test_trouble_of_the_machine_fails_no_task(site: SimulatedSite, number: int) -> None:
    site.enqueue()
    site.faults.errors[READ] = OSError(number, os.strerror(number))
    passes(site, TRIES * 3)
    assert site.server.status is TaskStatus.QUEUED
    assert os.strerror(number) in site.server.message
    site.faults.errors.clear()
    passes(site, 2)
    assert site.cluster.jobs


def test_an_upgrade_under_a_running_daemon_fails_no_task(site: SimulatedSite) -> None:
    site.enqueue()
    site.faults.errors[READ] = ModuleNotFoundError("No module named 'hpc_agent.envs.new'")
    passes(site, TRIES * 3)
    assert site.server.status is TaskStatus.QUEUED
    assert "No module named" in site.server.message
    site.faults.errors.clear()
    passes(site, 2)
    assert site.cluster.jobs


def test_a_secret_in_an_unforeseen_error_is_not_reported(site: SimulatedSite) -> None:
    site.enqueue()
    site.faults.errors[READ] = ValueError("MY_TOKEN=hunter2 at https://u:hunter2@h/x\nmore")
    passes(site, 1)
    assert "ValueError" in site.server.message
    assert "hunter2" not in site.server.message
    assert "\n" not in site.server.message


@pytest.mark.parametrize("name", ["submit.json", "claim.json", "exit.json", "stage-job.json"])
@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff\xfe", b'{"state": 7}', None])
def test_records_that_cannot_be_read_end_the_task_and_stay(
    site: SimulatedSite, name: str, content: bytes | None
) -> None:
    """``None``: a folder of that name."""
    site.enqueue()
    directory = site.runs.of(attempt_of(site)).create()
    record = directory.path / name
    if content is None:
        record.mkdir()
    else:
        record.write_bytes(content)
    passes(site, 1)
    first = site.server.message
    passes(site, TRIES + 1)
    assert name in first
    assert site.server.status is TaskStatus.FAILED
    assert name in site.server.reason
    kept = [path for path in directory.path.parent.rglob(name) if path != record]
    assert kept, "set aside for inspection"


def test_a_file_where_its_run_directory_should_be_ends_the_task(site: SimulatedSite) -> None:
    site.enqueue()
    folder = site.runs.of(attempt_of(site)).path.parent
    folder.parent.mkdir(parents=True, exist_ok=True)
    folder.write_text("in the way")
    passes(site, TRIES + 2)
    assert site.server.status is TaskStatus.FAILED
    assert "NotADirectoryError" in site.server.reason


def test_a_task_whose_job_waits_is_not_failed_for_records_that_cannot_be_read(site: SimulatedSite) -> None:
    site.enqueue()
    passes(site, 2)
    [job] = site.cluster.jobs.values()
    (site.runs.of(attempt_of(site)).path / "submit.json").write_bytes(b"{")
    passes(site, TRIES + 3)
    assert site.server.status is TaskStatus.QUEUED
    assert "submit.json" in site.server.message
    assert job.record is None, "it was not cancelled"
