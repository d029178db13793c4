"""What a task says of the job that stages for it."""

from __future__ import annotations

from pathlib import Path

from fake_slurm import SUBMITTED, FakeSlurm, queue_row

from hpc_agent.clock import SYSTEM
from hpc_agent.config.settings import AllSettings, HpcSettings
from hpc_agent.daemon.job_staging import StagingJobs
from hpc_agent.daemon.login_staging import PREPARING
from hpc_agent.domain.attempt import attempt_for
from hpc_agent.domain.ids import QueueId, TaskId
from hpc_agent.runs.attempt_records import StagingJobRecord
from hpc_agent.runs.directory import RunsFolder


def test_a_staging_job_that_came_of_a_failed_sbatch_is_not_called_failed(tmp_path: Path) -> None:
    settings = AllSettings(hpc=HpcSettings(root=tmp_path))
    run = RunsFolder(settings.hpc.runs).of(attempt_for("c", QueueId("q"), TaskId("a" * 32), "t")).create()
    run.write_stage_job(StagingJobRecord(at=SUBMITTED, queue="q", cluster="c", error="ERROR: gateway"))
    slurm = FakeSlurm(tmp_path)
    slurm.squeue(queue_row("7", "PENDING", name=run.attempt.job_name.replace("task", "stage", 1)))
    stages = StagingJobs(slurm.scheduler(accounting="none"), settings, None, None, SYSTEM)  # type: ignore[arg-type]
    assert "ERROR: gateway" in stages.says(run.attempt)
    assert stages.get(run.attempt, None, None, wait=False) is None  # type: ignore[arg-type]
    record = run.stage_job()
    assert record is not None
    assert record.job == "7"
    assert stages.says(run.attempt) == PREPARING
