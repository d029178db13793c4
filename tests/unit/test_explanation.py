"""The paragraph about a task, from facts."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from pathlib import Path

import msgspec
import pytest
from msgspec.structs import replace

from hpc_agent.daemon.run_state import RunDirectoryState
from hpc_agent.domain.ids import JobId, TaskId
from hpc_agent.domain.job import ExitEvidence, JobRecord, JobState, LiveJob
from hpc_agent.domain.status import TaskStatus
from hpc_agent.domain.task import Task
from hpc_agent.inspection.explanation import Explanation, explain, last_lines
from hpc_agent.inspection.jobs_observer import ObservedRun
from hpc_agent.inspection.task_facts import QueuePlace, TaskFacts
from hpc_agent.runs.attempt_records import ClaimRecord, ExitReport, SubmissionRecord
from hpc_agent.runs.directory import RunDirectory
from hpc_agent.schedulers.inspector import ListedJob
from hpc_agent.schedulers.slurm.wait_reasons import meaning

NOW = datetime(2026, 1, 31, 12, tzinfo=timezone.utc)
ID = TaskId("3f2a91c4" + "0" * 24)
DIRECTORY = RunDirectory(Path("/runs") / ID / "5d0c11aa")
SUBMITTED = SubmissionRecord(state="accepted", at=NOW, queue="q" * 32, queue_name="gpu", job="7", known=True)
RUN = ObservedRun(DIRECTORY, RunDirectoryState(DIRECTORY, SUBMITTED))
RECORD = JobRecord(
    JobId("7"),
    JobState.FAILED,
    "FAILED",
    exit_code=1,
    started=NOW,
    ended=NOW + timedelta(minutes=3),
    nodes="n1",
    time_limit=3600,
)


def facts(status: TaskStatus, reason: str = "", message: str = "", **fields: object) -> TaskFacts:
    task = Task(ID, "train", status=status, status_reason=reason, status_message=message)
    return replace(TaskFacts(task), **fields)


def job(state: JobState, reason: str = "", start: datetime | None = None) -> ListedJob:
    live = LiveJob(JobId("7"), "j", state, state.value, reason, start, waits=meaning(reason, JobId("7")))
    return ListedJob(live, "main", 60, 600)


def sources(found: Explanation) -> dict[str, str]:
    return {evidence.source: evidence.text for evidence in found.evidence}


def test_waiting_for_resources_with_an_expected_start() -> None:
    found = explain(facts(TaskStatus.QUEUED, jobs=(job(JobState.PENDING, "Resources", NOW),), run=RUN))
    assert found.verdict == "waiting"
    assert found.sentence == (
        "Slurm job 7 is waiting (Resources): it is next, once enough is free, expected to start 2026-01-31 12:00 UTC"
    )
    assert found.next_step.startswith("wait; with a shorter time limit")
    assert "reason Resources" in sources(found)["scheduler"]


def test_a_partition_on_which_it_would_start_sooner() -> None:
    message = "Slurm job 7 is waiting (Priority); it would start sooner on partition short (2026-01-31 12:10 UTC): …"
    jobs = (job(JobState.PENDING, "Priority", NOW),)
    found = explain(facts(TaskStatus.QUEUED, message=message, jobs=jobs, run=RUN))
    assert "sooner on partition short (2026-01-31 12:10 UTC)" in found.sentence
    assert found.next_step == "wait, or do that"


def test_a_dead_dependency_needs_a_person() -> None:
    found = explain(facts(TaskStatus.QUEUED, jobs=(job(JobState.PENDING, "DependencyNeverSatisfied"),), run=RUN))
    assert "can never start" in found.sentence and "hpc-agent cancel 3f2a91c4" in found.next_step


@pytest.mark.parametrize(
    ("served", "sentence", "step"),
    [
        (True, "the daemon says: Waiting for 2 GPUs, 0 are free", "wait for the daemon's next pass"),
        (False, "no daemon that shares your hpc.root was started for this queue", "start one with"),
    ],
)
def test_waiting_in_a_queue(served: bool, sentence: str, step: str) -> None:
    place = QueuePlace("gpu", 2, 5, served)
    found = explain(facts(TaskStatus.QUEUED, message="Waiting for 2 GPUs, 0 are free", place=place))
    assert found.sentence.startswith('it is number 2 of 5 in the queue "gpu" and has no job yet')
    assert found.sentence.endswith(sentence) and found.next_step.startswith(step)


def test_running() -> None:
    found = explain(facts(TaskStatus.IN_PROGRESS, jobs=(job(JobState.RUNNING),), run=RUN))
    assert (found.verdict, found.sentence) == ("running", "Slurm job 7 runs for 00:01:00 of 00:10:00")


def test_the_console_tells_what_the_reason_does_not() -> None:
    console = (
        'Traceback (most recent call last):\n  File "train.py", line 3, in <module>\n'
        "ModuleNotFoundError: No module named 'numpy'\n"
    )
    found = explain(facts(TaskStatus.FAILED, "worker execution exit code 1", console=console, record=RECORD, run=RUN))
    assert found.sentence.startswith("worker execution exit code 1; its console shows: the Python module numpy")
    assert found.next_step.startswith("add its package")
    assert sources(found)["exception"] == "ModuleNotFoundError: No module named 'numpy' (train.py, line 3)"
    assert sources(found)["accounting"].startswith("job 7 FAILED, exit code 1, ran 00:03:00 of 01:00:00, on n1")


def test_a_step_that_the_reason_ends_with_is_said_once() -> None:
    reason = "out of memory: used 1.02 of 1 GiB; ask for more with the user property memory_gb (Slurm job 7 on n1)"
    found = explain(facts(TaskStatus.FAILED, reason, record=RECORD, run=RUN, evidence=ExitEvidence(1044.0, 1024.0)))
    assert found.sentence == "out of memory: used 1.02 of 1 GiB (Slurm job 7 on n1)"
    assert found.next_step == "ask for more with the user property memory_gb"
    assert sources(found)["memory"] == "1.02 of 1 GiB at most"


@pytest.mark.parametrize(
    ("recorded", "reported", "shown"), [(9, -9, "137"), (15, 143, "143"), (9, 9, "9"), (1, 1, "1"), (9, None, "9")]
)
def test_an_exit_code_that_accounting_shortened_is_shown_in_full(
    recorded: int, reported: int | None, shown: str
) -> None:
    report = None if reported is None else ExitReport(status="failed", reason="", exit_code=reported, at=NOW)
    run = replace(RUN, files=replace(RUN.files, report=report))
    found = explain(facts(TaskStatus.FAILED, "…", record=msgspec.structs.replace(RECORD, exit_code=recorded), run=run))
    assert sources(found)["accounting"].startswith(f"job 7 FAILED, exit code {shown}, ran ")


def test_a_little_memory_is_in_mebibytes() -> None:
    found = explain(facts(TaskStatus.COMPLETED, "done", record=RECORD, run=RUN, evidence=ExitEvidence(17.8, 1024.0)))
    assert sources(found)["memory"] == "18 MiB of 1 GiB at most"


def test_an_error_that_was_printed_before_a_time_limit_is_not_its_cause() -> None:
    reason = "time limit 01:00:00 reached after 01:00:10; ask for more with the user property time_limit"
    console = "Traceback (most recent call last):\nOSError: [Errno 28] No space left on device\nepoch 3\n"
    found = explain(facts(TaskStatus.FAILED, reason, console=console, record=RECORD, run=RUN))
    assert found.sentence == "time limit 01:00:00 reached after 01:00:10"
    assert found.next_step == "ask for more with the user property time_limit"


def test_a_job_that_is_gone_before_its_verdict() -> None:
    claim = ClaimRecord(state="won", at=NOW, owner="job:7")
    run = ObservedRun(DIRECTORY, RunDirectoryState(DIRECTORY, SUBMITTED, claim))
    found = explain(facts(TaskStatus.IN_PROGRESS, run=run))
    assert (found.verdict, found.sentence) == (
        "missing",
        "the scheduler lists job 7 no more, and nothing tells yet how it ended",
    )
    ended = explain(
        facts(TaskStatus.IN_PROGRESS, run=run, record=msgspec.structs.replace(RECORD, state=JobState.NODE_FAIL))
    )
    assert "node n1 failed" in ended.sentence and "the daemon has not set the task's status yet" in ended.sentence


def test_a_submitted_task_that_is_still_in_its_queue_has_no_verdict_yet() -> None:
    place = QueuePlace("gpu", 1, 1, served=True)
    gone = explain(facts(TaskStatus.QUEUED, place=place, run=RUN))
    assert gone.sentence == "the scheduler lists job 7 no more, and nothing tells yet how it ended"
    silent = explain(facts(TaskStatus.QUEUED, place=place, run=RUN, scheduler_is_silent=True, notes=("No answer",)))
    assert silent.sentence == "the scheduler does not answer now: nothing is known of job 7"
    assert sources(silent)["note"] == "No answer"
    report = ExitReport(status="again", reason="node failed", exit_code=1, at=NOW)
    back = ObservedRun(DIRECTORY, replace(RUN.files, report=report))
    assert "number 1 of 1" in explain(facts(TaskStatus.QUEUED, place=place, run=back)).sentence


def test_last_lines_are_as_they_were_on_the_screen() -> None:
    assert last_lines("a\n\n10%\r20%\r\x1b[31m30%\x1b[0m\r\nend\n", 2) == ("30%", "end")
