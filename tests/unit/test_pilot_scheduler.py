"""The scheduler in front of a batch system: what it tells of a task's job, from the board and its pilot's job."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path

import msgspec
import pytest
from listed_jobs import SMALL, BatchSystem
from manual_clock import ManualClock

from hpc_agent.config.load import load
from hpc_agent.domain.ids import JobId
from hpc_agent.domain.job import Accepted, JobRecord, JobState, LiveJob
from hpc_agent.domain.outcome import FailureClass, classify_exit
from hpc_agent.domain.resources import Resources
from hpc_agent.errors import SchedulerUnavailableError
from hpc_agent.schedulers.base import SubmitRequest
from hpc_agent.schedulers.pilots.board import PilotClaim, TaskEnd
from hpc_agent.schedulers.pilots.scheduler import PilotScheduler

CONF = """
hpc {{
    root: "{root}"
    queues {{ q {{
        mode: pilot
        resources {{ num_cpus: 1, memory_gb: 0.5, time_limit: 5 }}
        pilot.resources {{ num_cpus: 4, memory_gb: 2, time_limit: 60 }}
    }} }}
}}
"""


@dataclass
class Front:
    """A scheduler with one queue in the mode pilot."""

    scheduler: PilotScheduler
    base: BatchSystem
    clock: ManualClock

    def submit(self, resources: Resources = SMALL, queue: str = "q", name: str = "job") -> JobId:
        folder = Path("/r")
        answer = self.scheduler.submit(SubmitRequest(folder / "job.sh", name, folder, folder / "out", resources, queue))
        assert isinstance(answer, Accepted)
        return answer.job

    def take(self, job: JobId, pilot: str = "7", restarts: int = 0) -> None:
        assert self.scheduler.board.take(int(job[1:]), PilotClaim(self.clock.now(), pilot, restarts, node="n1"))

    def tasks(self) -> dict[JobId, JobState]:
        return {job.id: job.state for job in self.scheduler.live_jobs() if job.id.startswith("p")}

    def record(self, job: JobId) -> JobRecord | None:
        return self.scheduler.records({job: self.clock.now()}).get(job)


@pytest.fixture
def front(tmp_path: Path) -> Front:
    conf = tmp_path / "clearml.conf"
    conf.write_text(CONF.format(root=tmp_path))
    base, clock = BatchSystem(), ManualClock()
    return Front(PilotScheduler(base, load(conf, {}).settings.hpc, clock), base, clock)


def pilot(state: JobState = JobState.RUNNING, restarts: int = 0) -> LiveJob:
    return LiveJob(JobId("7"), "clearml_pilot_x", state, state.value, restarts=restarts)


def ended(state: JobState, at: datetime) -> JobRecord:
    return JobRecord(JobId("7"), state, state.value, ended=at)


def test_what_fits_goes_to_the_board_and_all_else_to_the_batch_system(front: Front) -> None:
    assert [front.submit(), front.submit()] == ["p0", "p1"]
    assert front.submit(msgspec.structs.replace(SMALL, cpus=5)) == "900"
    assert front.submit(msgspec.structs.replace(SMALL, nodes=2)) == "900"
    assert front.submit(queue="other") == "900"
    assert front.submit(queue="") == "900"


def test_a_task_waits_then_runs_then_is_gone_with_a_record(front: Front) -> None:
    job = front.submit()
    assert front.tasks() == {job: JobState.PENDING}
    front.base.live = [pilot()]
    front.take(job)
    assert front.tasks() == {job: JobState.RUNNING}
    front.scheduler.board.write_end(0, TaskEnd(JobState.FAILED, front.clock.now(), exit_code=3))
    for _ in range(2):  # the first look moves it away
        assert front.tasks() == {}
        record = front.record(job)
        assert record is not None
        assert (record.state, record.exit_code, record.nodes, record.name) == (JobState.FAILED, 3, "n1", "job")
    assert front.base.asked == []


def test_numbers_never_return(front: Front, tmp_path: Path) -> None:
    first = front.submit()
    front.scheduler.cancel([first])
    assert front.tasks() == {}
    again = PilotScheduler(front.base, front.scheduler._settings, front.clock)
    assert replace(front, scheduler=again).submit() == "p1"


def test_a_task_whose_pilot_ended_without_a_word_goes_back_to_its_queue(front: Front) -> None:
    job = front.submit()
    front.take(job)
    assert front.tasks() == {}
    assert front.record(job) is None, "nothing tells yet how the pilot ended"
    front.base.known = {JobId("7"): ended(JobState.CANCELLED, front.clock.now())}
    record = front.record(job)
    assert record is not None and record.state is JobState.PREEMPTED
    outcome = classify_exit(record)
    assert outcome.failure_class is FailureClass.INFRASTRUCTURE
    assert outcome.reason == "Pilot job p0 ended with its pilot (Slurm job 7, CANCELLED); enqueue the task again"


@pytest.mark.parametrize("state", [JobState.NODE_FAIL, JobState.BOOT_FAIL])
def test_a_node_that_failed_is_named(front: Front, state: JobState) -> None:
    job = front.submit()
    front.take(job)
    front.base.known = {JobId("7"): ended(state, front.clock.now())}
    record = front.record(job)
    assert record is not None
    assert (record.state, record.nodes) == (state, "n1")


def test_a_record_that_is_not_final_gives_no_verdict(front: Front) -> None:
    job = front.submit()
    front.take(job)
    front.base.known = {JobId("7"): JobRecord(JobId("7"), JobState.RUNNING, "RUNNING")}
    record = front.record(job)
    assert record is not None and not record.state.is_final


def test_the_end_that_its_pilot_wrote_counts_even_if_it_is_seen_late(front: Front) -> None:
    job = front.submit()
    front.take(job)
    front.base.known = {JobId("7"): ended(JobState.COMPLETED, front.clock.now())}
    assert front.record(job).state is JobState.PREEMPTED  # type: ignore[union-attr]
    front.scheduler.board.write_end(0, TaskEnd(JobState.COMPLETED, front.clock.now()))
    assert front.record(job).state is JobState.COMPLETED  # type: ignore[union-attr]


def test_after_two_minutes_the_end_follows_from_the_pilots_and_the_board_is_empty(front: Front) -> None:
    job = front.submit()
    front.take(job)
    front.base.known = {JobId("7"): ended(JobState.TIMEOUT, front.clock.now())}
    front.clock.advance(130)
    assert front.record(job).state is JobState.PREEMPTED  # type: ignore[union-attr]
    assert front.tasks() == {}
    assert front.scheduler.board.numbers() == {}
    assert front.record(job).state is JobState.PREEMPTED  # type: ignore[union-attr]


@pytest.mark.parametrize("again", [pilot(JobState.PENDING, 1), pilot(JobState.REQUEUED), pilot(JobState.RUNNING, 1)])
def test_a_pilot_that_is_started_again_has_lost_its_tasks(front: Front, again: LiveJob) -> None:
    job = front.submit()
    front.take(job)
    front.base.live = [again]
    assert front.tasks() == {}


def test_one_query_asks_for_the_pilots_of_all_tasks(front: Front) -> None:
    jobs = [front.submit() for _ in range(20)]
    for job in jobs:
        front.take(job)
    since = front.clock.now()
    front.scheduler.records({**dict.fromkeys(jobs, since), JobId("12"): since})
    assert front.base.asked == [{"7", "12"}]


def test_cancelling_a_waiting_task_keeps_every_pilot_from_it(front: Front) -> None:
    job = front.submit()
    front.scheduler.cancel([job, JobId("12")], only_pending=True)
    assert not front.scheduler.board.take(0, PilotClaim(front.clock.now(), "7"))
    assert front.record(job).state is JobState.CANCELLED  # type: ignore[union-attr]
    assert front.base.cancelled == ["12"]


def test_the_waiting_tasks_of_a_queue_that_has_no_pilots_any_more_are_submitted_again(front: Front) -> None:
    waiting, running = front.submit(), front.submit()
    front.take(running)
    front.base.live = [pilot()]
    front.tasks()
    front.scheduler.return_tasks("q")
    assert front.tasks() == {running: JobState.RUNNING}
    record = front.record(waiting)
    assert record is not None and classify_exit(record).failure_class is FailureClass.INFRASTRUCTURE


def test_cancelling_a_running_task_asks_its_pilot(front: Front) -> None:
    job = front.submit()
    front.take(job)
    front.scheduler.cancel([job], only_pending=True)
    assert front.scheduler.board.numbers() == {0: {"task", "claim"}}
    front.scheduler.cancel([job])
    front.scheduler.cancel([job])
    assert front.scheduler.board.numbers() == {0: {"task", "claim", "cancel"}}


def test_a_task_is_found_by_its_name_while_it_is_open_and_afterwards(front: Front) -> None:
    before = front.clock.now()
    job = front.submit(name="one")
    assert front.scheduler.find("one", before) == job
    assert front.scheduler.find("one", before + timedelta(seconds=1)) is None
    front.scheduler.cancel([job])
    assert front.tasks() == {}
    assert front.scheduler.find("one", before) == job
    assert front.scheduler.find("two", before) is None


def test_a_file_that_cannot_be_read_tells_nothing(front: Front) -> None:
    job = front.submit()
    (front.scheduler.folder / "open" / "0.claim").write_text("{")
    with pytest.raises(SchedulerUnavailableError, match=r"the pilots' folder .* cannot be used"):
        front.scheduler.live_jobs()
    with pytest.raises(SchedulerUnavailableError):
        front.record(job)


def test_what_a_death_left_of_an_ended_task_is_not_listed(front: Front) -> None:
    front.submit()
    (front.scheduler.folder / "open" / "0.task").unlink()
    (front.scheduler.folder / "open" / "0.claim").touch()
    assert front.tasks() == {}
