"""Tasks that ask for the same become one job array; each element is as safe as a job of its own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from killed_process import killed_before_change
from simulated_arrays import ArraySite

from hpc_agent.domain.job import JobState

COUNT = 4


@pytest.fixture
def site(tmp_path: Path) -> Iterator[ArraySite]:
    site = ArraySite(tmp_path, COUNT)
    yield site
    site.close()


def assert_each_has_its_job(site: ArraySite) -> None:
    """One job for each task, which its record names."""
    jobs = site.jobs_of()
    records = {directory.attempt.job_name: directory.submission() for directory in site.run_dirs()}
    assert len(records) == len(site.tasks)
    assert {name: [record.job] for name, record in records.items() if record} == jobs
    assert {record.state for record in records.values() if record} == {"accepted"}


def test_tasks_that_ask_for_the_same_are_one_submission(site: ArraySite) -> None:
    site.run_pass()
    assert site.slurm.sizes == [COUNT]
    assert_each_has_its_job(site)


def test_an_array_has_no_more_elements_than_the_setting_and_slurm_allow(tmp_path: Path) -> None:
    site = ArraySite(tmp_path, 5, size=3)
    site.run_pass()
    assert site.slurm.sizes == [3, 2]
    site.close()


def test_where_slurm_has_no_arrays_each_is_a_job_of_its_own(tmp_path: Path) -> None:
    site = ArraySite(tmp_path, 3)
    site.slurm.largest = 0
    site.run_pass()
    assert site.slurm.sizes == [1, 1, 1]
    assert_each_has_its_job(site)
    site.close()


def test_an_array_that_meets_a_limit_is_halved_until_it_fits(site: ArraySite) -> None:
    site.slurm.limit = 1
    for _ in range(4):
        site.run_pass()
        site.clock.advance(5)
    assert site.slurm.sizes[:3] == [4, 2, 1]
    assert len(site.slurm.jobs) == 1
    assert not any(record.state != "accepted" for each in site.run_dirs() if (record := each.submission()))


def test_a_refusal_fails_a_task_only_where_it_went_alone(site: ArraySite) -> None:
    site.slurm.refusal = "Invalid account or account/partition combination specified"
    site.run_pass()
    assert site.slurm.sizes == [COUNT]
    assert site.server.status.value == "queued"
    site.run_pass()
    assert site.slurm.sizes[1:] == [1] * COUNT
    assert site.server.status.value == "failed"


def test_an_uncertain_answer_is_looked_up_once_for_all(site: ArraySite) -> None:
    site.faults.before = lambda name: _lose(site, name)
    site.run_pass()
    site.faults.before = lambda _name: None
    assert {record.state for each in site.run_dirs() if (record := each.submission())} == {"uncertain"}
    site.restart_daemon()
    site.clock.advance(60)
    site.faults.made.clear()
    site.run_pass()
    assert site.slurm.sizes == [COUNT], "nothing is submitted twice"
    assert_each_has_its_job(site)


def _lose(site: ArraySite, name: str) -> None:
    if name == "sbatch":
        site.faults.lose_in, site.faults.after = 0, True


def test_elements_that_are_cancelled_end_one_by_one(site: ArraySite) -> None:
    site.run_pass()
    site.run_pass()
    site.server.dequeue()
    site.run_pass()
    assert site.slurm.cancelled == [f"1_{site.tasks.index(site.server.task)}"] or len(site.slurm.cancelled) == 1
    assert len([job for job in site.slurm.jobs.values() if job.record is None]) == COUNT - 1


def test_a_second_try_goes_alone_and_its_element_is_not_meant_any_more(site: ArraySite) -> None:
    site.faults.before = lambda name: _lose_before(site, name)
    site.run_pass()
    site.faults.before = lambda _name: None
    for _ in range(40):
        site.clock.advance(60)
        site.run_pass()
    assert site.slurm.sizes == [1] * COUNT, "the array never arrived"
    assert_each_has_its_job(site)
    [batch] = (site.runs.path / ".arrays").iterdir()
    assert not [path for path in batch.iterdir() if path.is_symlink()]


def _lose_before(site: ArraySite, name: str) -> None:
    if name == "sbatch":
        site.faults.lose_in, site.faults.after = 0, False


# ---------------------------------------------------------------- the daemon is killed at each step


def settle(site: ArraySite) -> None:
    """Passes of daemons that live, until all that is in doubt was decided, and two more."""
    more = 2
    for _ in range(40):
        site.run_pass()
        site.clock.advance(60)
        states = {record.state for each in site.run_dirs() if (record := each.submission())}
        more -= states == {"accepted"}
        if not more:
            return
    raise AssertionError(f"still {states}")


@pytest.mark.parametrize("number", range(29))
def test_a_daemon_killed_before_a_change_of_a_file_loses_and_doubles_nothing(tmp_path: Path, number: int) -> None:
    site = ArraySite(tmp_path, 3)
    with killed_before_change(number):
        site.run_pass()
    settle(site)
    assert_each_has_its_job(site)
    assert len([job for job in site.slurm.jobs.values() if job.record is None]) == 3
    site.close()


@pytest.mark.parametrize("after", [False, True])
def test_a_daemon_killed_at_sbatch_loses_and_doubles_nothing(tmp_path: Path, after: bool) -> None:
    site = ArraySite(tmp_path, 3)

    def kill(name: str) -> None:
        if name == "sbatch":
            site.faults.kill_in, site.faults.after = 0, after

    site.faults.before = kill
    site.run_pass()
    site.faults.before = lambda _name: None
    settle(site)
    assert_each_has_its_job(site)
    site.close()


def test_an_array_that_is_cancelled_as_a_whole_stops_each_task(site: ArraySite) -> None:
    site.run_pass()
    site.run_pass()
    for job in list(site.slurm.jobs.values()):
        site.slurm.end(job, JobState.CANCELLED)
    site.slurm.update_accounting()
    for _ in range(5):
        site.clock.advance(60)
        site.run_pass()
    statuses = site.server.client.tasks.get_states(site.tasks)
    assert {state.status.value for state in statuses.values()} == {"stopped"}
