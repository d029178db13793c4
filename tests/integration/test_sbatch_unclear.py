"""Submissions whose ``hpc-agent sbatch`` died before it could record what sbatch printed."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import Mock

import pytest
from fake_slurm import SUBMITTED, FakeSlurm, queue_row
from manual_clock import ManualClock

from hpc_agent.domain.ids import TaskId
from hpc_agent.domain.status import TaskStatus
from hpc_agent.tracking.tracked_records import TrackedDirectory, TrackedRoot, TrackingPlan
from hpc_agent.tracking.unclear_submissions import UnclearSubmissions

TASK = TaskId("a" * 32)


class Bench:
    """A task that waits, and its folder with only the plan."""

    def __init__(self, folder: Path) -> None:
        self.slurm = FakeSlurm(folder)
        self.slurm.command("scontrol", "echo 'ClusterName = c'")
        self.folders = TrackedRoot(folder / "sbatch")
        self.folder: TrackedDirectory = self.folders.of(TASK).create(
            TrackingPlan(task=TASK, since=SUBMITTED, queue="q", cluster="c", job_name="train.sh")
        )
        self.client = Mock()
        self.client.tasks.get_states.return_value = {TASK: SimpleNamespace(status=TaskStatus.QUEUED)}

    def run_pass(self, after: timedelta) -> int:
        """How many are left."""
        clock = ManualClock(SUBMITTED + after)
        scheduler = self.slurm.scheduler(accounting="none")
        submissions = UnclearSubmissions(self.client, scheduler, self.folders, clock, 60)
        submissions.run_pass()
        return submissions.left()


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def test_it_is_left_alone_while_sbatch_may_run(bench: Bench) -> None:
    assert bench.run_pass(timedelta(minutes=50)) == 0
    assert bench.folder.unclear() is None


def test_its_job_is_found_by_name(bench: Bench) -> None:
    bench.slurm.squeue(queue_row("7", "PENDING", name="train.sh", submitted=str(int(SUBMITTED.timestamp()) + 20)))
    assert bench.run_pass(timedelta(hours=2)) == 0
    job = bench.folder.job()
    assert job is not None
    assert (job.id, job.known) == ("7", True)


def test_without_a_job_its_task_fails_and_does_not_wait_forever(bench: Bench) -> None:
    bench.slurm.squeue()
    assert bench.run_pass(timedelta(hours=2)) == 1
    assert bench.run_pass(timedelta(hours=2, minutes=2)) == 0
    task, status, reason, *_ = bench.client.tasks.set_final_status.call_args.args
    assert (task, status) == (TASK, TaskStatus.FAILED)
    assert reason == "no job is known: hpc-agent sbatch died before it had an answer"
    assert not bench.folder.path.exists()
