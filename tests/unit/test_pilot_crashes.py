"""A process that dies before any of its changes of a file, on a task's way through a pilot: daemon, pilot or agent."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from killed_process import killed_before_change
from simulated_pilots import PilotSite

from hpc_agent.domain.status import TaskStatus

CHANGES = 39
"""Of files, from the pass that hands the task over to the one that puts it away."""


@pytest.fixture
def site(tmp_path: Path) -> Iterator[PilotSite]:
    site = PilotSite(tmp_path)
    yield site
    site.close()


def assert_it_ran_once(site: PilotSite) -> None:
    assert site.server.status is TaskStatus.COMPLETED
    assert (site.processes_started, site.finished, site.most_processes) == (1, 1, 1)


def test_a_task_runs_once_and_its_board_is_empty_then(site: PilotSite) -> None:
    site.settle()
    assert_it_ran_once(site)


@pytest.mark.parametrize("number", range(CHANGES))
def test_a_process_killed_before_a_change_of_a_file_loses_and_doubles_nothing(site: PilotSite, number: int) -> None:
    with killed_before_change(number):
        site.settle()
    site.settle()
    if site.killed_agents:
        # As in a job of its own: a task whose agent is killed may have begun, and is not run again then.
        assert site.server.status in (TaskStatus.COMPLETED, TaskStatus.FAILED)
        assert site.processes_started == site.most_processes == 1
    else:
        assert_it_ran_once(site)


def test_no_change_is_left_out(site: PilotSite) -> None:
    with pytest.raises(AssertionError, match="not so many changes"), killed_before_change(CHANGES):
        site.settle()


@pytest.mark.parametrize("after", [False, True])
def test_a_daemon_killed_at_the_submission_of_a_pilot_doubles_no_task(site: PilotSite, after: bool) -> None:
    def kill(name: str) -> None:
        if name == "sbatch":
            site.faults.kill_in, site.faults.after = 0, after
            site.faults.before = lambda _name: None

    site.faults.before = kill
    site.settle()
    assert_it_ran_once(site)
    assert len(site.slurm.jobs) == 1
