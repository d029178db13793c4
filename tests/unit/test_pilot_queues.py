"""The number of pilots of a queue, from pass to pass."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from listed_jobs import SMALL, BatchSystem
from manual_clock import ManualClock
from msgspec.structs import replace

from hpc_agent.config.load import load
from hpc_agent.daemon.job_launch import JobLaunchConfig
from hpc_agent.daemon.options import DaemonOptions, JobNaming
from hpc_agent.daemon.pilot_queues import PilotQueues
from hpc_agent.domain.ids import JobId, QueueId, WorkerId
from hpc_agent.domain.job import Accepted, JobState, LimitReached, LiveJob, SubmitResult
from hpc_agent.domain.pilot_slots import pilot_name
from hpc_agent.domain.queue import Queue
from hpc_agent.schedulers.base import SubmitRequest
from hpc_agent.schedulers.pilots.board import PilotClaim, TaskEnd
from hpc_agent.schedulers.pilots.scheduler import PilotScheduler
from hpc_agent.schedulers.slurm.backend import BACKEND
from hpc_agent.submission.render import Renderer

QUEUE = Queue(QueueId("id-of-q"), "q")
OTHER = Queue(QueueId("id-of-other"), "other")
CONF = """
hpc {{
    root: "{root}"
    max_jobs: 5
    queues {{
        q {{
            mode: pilot
            resources {{ num_cpus: 1, memory_gb: 0.5, time_limit: 5 }}
            pilot {{ resources {{ num_cpus: 2, memory_gb: 1, time_limit: 60 }}, max_pilots: 3, idle_time: 60 }}
        }}
        other: ${{hpc.queues.q}}
    }}
}}
"""


@dataclass
class Submitting(BatchSystem):
    """Accepts jobs, and lists them as pending."""

    answer: SubmitResult | None = None
    requests: list[SubmitRequest] = field(default_factory=list)

    def submit(self, request: SubmitRequest) -> SubmitResult:
        if self.answer is not None:
            return self.answer
        self.requests.append(request)
        job = LiveJob(JobId(str(100 + len(self.requests))), request.job_name, JobState.PENDING, "PENDING")
        self.live.append(job)
        return Accepted(job.id)


@dataclass
class Served:
    pilots: PilotQueues
    scheduler: PilotScheduler
    base: Submitting
    clock: ManualClock

    def turn(self, due: int) -> int:
        """One pass with so many tasks that wait in the queue; returns how many may be handed over."""
        self.pilots.keep([QUEUE], {QUEUE.id: due}, self.scheduler.live_jobs())
        return min(self.pilots.room(QUEUE.name), due)

    def hand_over(self, count: int, queue: Queue = QUEUE) -> Sequence[int]:
        request = SubmitRequest(Path("/r/s"), "job", Path("/r"), Path("/r/o"), SMALL, queue.name)
        jobs = [self.scheduler.submit(request) for _ in range(count)]
        return [int(answer.job[1:]) for answer in jobs if isinstance(answer, Accepted)]

    def run_pilots(self) -> None:
        self.base.live = [replace(job, state=JobState.RUNNING, raw_state="RUNNING") for job in self.base.live]


@pytest.fixture
def served(tmp_path: Path) -> Served:
    conf = tmp_path / "clearml.conf"
    conf.write_text(CONF.format(root=tmp_path))
    settings, base, clock = load(conf, {}).settings, Submitting(), ManualClock()
    scheduler = PilotScheduler(base, settings.hpc, clock)
    naming = JobNaming(WorkerId("w"), "w")
    launch = JobLaunchConfig(conf, ["agent"], DaemonOptions("slurm"), naming)
    renderer = Renderer(BACKEND.script(settings.hpc))
    return Served(PilotQueues(scheduler, settings, launch, renderer, clock), scheduler, base, clock)


def test_a_pilot_is_asked_for_when_the_first_task_is_ready(served: Served) -> None:
    assert served.turn(due=9) == 2, "as many as one pilot runs"
    assert served.base.requests == []
    served.hand_over(1)
    served.turn(due=8)
    assert len(served.base.requests) == 3, "the most that there may be"
    [name] = {request.job_name for request in served.base.requests}
    assert name == pilot_name("q")
    script = served.base.requests[0].script.read_text()
    assert "exec agent pilot --board" in script and "#SBATCH --no-requeue" in script and "--cpus-per-task=2" in script


def test_no_more_pilots_than_give_each_task_a_slot(served: Served) -> None:
    served.hand_over(1)
    served.turn(due=3)
    served.turn(due=3)
    assert len(served.base.requests) == 2


def test_running_pilots_get_a_task_for_each_slot_and_some_ahead(served: Served) -> None:
    numbers = served.hand_over(2)
    served.turn(due=9)
    served.run_pilots()
    assert served.turn(due=9) == 3 * 2 + 3 - 2
    claim = PilotClaim(served.clock.now(), "101")
    for number in numbers:
        assert served.scheduler.board.take(number, claim)
        served.scheduler.board.write_end(number, TaskEnd(JobState.COMPLETED, served.clock.now()))
    assert served.turn(due=50) == 3 * 2 + 3 + 3, "one and a half times what ended since the pass before"


def test_a_pilot_that_is_full_gets_no_more_tasks(served: Served) -> None:
    served.hand_over(1)
    served.turn(due=0)
    served.run_pilots()
    served.scheduler.board.declare_full("101")
    assert served.turn(due=9) == 1
    assert served.scheduler.board.full_pilots({"102"}) == set()


def test_the_sites_limit_of_jobs_holds_for_pilots(served: Served) -> None:
    served.base.live = [LiveJob(JobId(str(n)), "clearml_task_x", JobState.RUNNING, "RUNNING") for n in range(4)]
    served.hand_over(1)
    served.turn(due=9)
    assert len(served.base.requests) == 1


def test_the_sites_limit_of_jobs_holds_for_the_pilots_of_all_queues(served: Served) -> None:
    for queue in (QUEUE, OTHER):
        served.hand_over(1, queue)
    served.pilots.keep([QUEUE, OTHER], {QUEUE.id: 9, OTHER.id: 9}, served.scheduler.live_jobs())
    assert len(served.base.requests) == served.pilots.submitted == 5


def test_pending_pilots_that_are_not_needed_for_a_while_are_cancelled(served: Served) -> None:
    numbers = served.hand_over(2)
    served.turn(due=9)
    for number in numbers:
        served.scheduler.cancel([JobId(f"p{number}")])
    served.turn(due=0)
    assert served.base.cancelled == []
    served.clock.advance(61)
    served.turn(due=0)
    assert served.base.cancelled == ["101", "102", "103"]


def test_after_a_refusal_the_next_try_waits_and_the_task_says_why(served: Served) -> None:
    served.hand_over(1)
    served.base.answer = LimitReached("QOSMaxSubmitJobPerUserLimit")
    served.turn(due=1)
    assert "QOSMaxSubmitJobPerUserLimit" in served.pilots.message("q")
    served.base.answer = None
    served.turn(due=1)
    assert served.base.requests == []
    served.clock.advance(31)
    served.turn(due=1)
    assert len(served.base.requests) == 1


def test_pilots_that_end_before_they_take_a_task_are_tried_again_more_and_more_slowly(served: Served) -> None:
    served.hand_over(1)
    for tries, pause in ((1, 30), (2, 60), (3, 120)):
        served.turn(due=1)
        assert len(served.base.requests) == tries
        served.base.live = []
        served.turn(due=1)
        assert f"the last {tries} ended before they took a task" in served.pilots.message("q")
        served.clock.advance(pause - 1)
        served.turn(due=1)
        assert len(served.base.requests) == tries
        served.clock.advance(2)


def test_a_pilot_that_took_a_task_is_followed_at_once(served: Served) -> None:
    [number] = served.hand_over(1)
    served.turn(due=0)
    assert served.scheduler.board.take(number, PilotClaim(served.clock.now(), "101"))
    served.turn(due=1)
    served.base.live = []
    served.hand_over(1)
    served.turn(due=0)
    assert len(served.base.requests) == 2
