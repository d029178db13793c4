"""A site in memory: server, scheduler and compute jobs that can do, or fail to do, their next step at any moment.

The daemon on it is the real one, and so are the claims of its jobs; what stands in run directories is on disk.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from itertools import count
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
from manual_clock import ManualClock

from hpc_agent.api.tasks import Tasks
from hpc_agent.config.resource_settings import QueueSettings
from hpc_agent.config.settings import AllSettings, HpcSettings
from hpc_agent.daemon.launch import Launch
from hpc_agent.daemon.loop import Daemon, Options
from hpc_agent.daemon.terms import Naming, Terms
from hpc_agent.domain.attempt import parse_job_name
from hpc_agent.domain.ending import Cause
from hpc_agent.domain.ids import JobId, QueueId, TaskId, WorkerId
from hpc_agent.domain.job import Accepted, JobRecord, JobState, LiveJob, Submission, Uncertain
from hpc_agent.domain.queue import Queue, QueueEntry
from hpc_agent.domain.room import Room
from hpc_agent.domain.status import TaskStatus, may_follow
from hpc_agent.domain.task import Task
from hpc_agent.errors import ApiError, HpcAgentError, SchedulerUnavailableError, ServerUnreachableError
from hpc_agent.executor.claim import Claimer, Won, still_ours
from hpc_agent.executor.identity import Identity
from hpc_agent.runs.directory import RunDirectory, RunsFolder
from hpc_agent.runs.records import ExitReport
from hpc_agent.schedulers.base import About
from hpc_agent.wire.task import RUN_STAMP

CLUSTER = "pretended"
QUEUE = QueueId("q" * 32)
TASK = TaskId("a" * 32)
STRANGERS = (JobId("9001"), JobId("9002"))
"""Jobs of nobody we know, one of them with a name like ours."""


class Died(BaseException):
    """The process was killed here."""


@dataclass
class Fate:
    """What happens to one of the next calls to the outside."""

    kill_in: int | None = None
    """So many calls from now the caller dies …"""
    after: bool = False
    """… before, or after, the call was carried out."""
    lose_in: int | None = None
    """So many calls from now the answer gets lost (``after``), or the call does not arrive."""

    break_at: int | None = None
    """Which call of every pass, counted from 1, meets an error that nobody foresaw."""
    calls: int = 0
    """Of this pass."""

    def call(self, carry_out: Callable[[], Any], unreachable: Callable[[], HpcAgentError]) -> Any:
        self.calls += 1
        if self.calls == self.break_at:
            raise LookupError("of a kind that nobody foresaw")
        kill, lose = self._counted("kill_in"), self._counted("lose_in")
        if (kill or lose) and not self.after:
            raise Died if kill else unreachable()
        done = carry_out()
        if (kill or lose) and self.after:
            raise Died if kill else unreachable()
        return done

    def _counted(self, name: str) -> bool:
        left = getattr(self, name)
        if left is None:
            return False
        setattr(self, name, left - 1 if left else None)
        return left == 0


@dataclass
class TaskThere:
    status: TaskStatus = TaskStatus.CREATED
    message: str = ""
    reason: str = ""
    runtime: dict[str, Any] = field(default_factory=dict)
    changed: str = "2026-01-01T00:00:00+00:00"
    last_worker: str = ""
    finals: int = 0
    """Final statuses since a person last enqueued it."""


class Server:
    """The services of ``api.client.Client`` that daemon and claims use."""

    def __init__(self, fate: Fate) -> None:
        self.fate = fate
        self.there = TaskThere()
        self.entry: str | None = None
        self.leaves_out = False
        """Whether the next list lacks the task."""
        self._added = count()
        self.queues = SimpleNamespace(
            look=self._door(self._look),
            holding=self._door(self._holding),
            remove_task=self._door(self._remove),
            put_first=self._door(lambda _queue, _task, _why: self.enqueue(by_person=False)),
            to_front=self._door(lambda _queue, _task: None),
        )
        self.tasks = SimpleNamespace(
            get=self._door(lambda task, **_: Task(task, status=self.there.status, queue=QUEUE)),
            glimpse=self._door(Tasks(self).glimpse),  # type: ignore[arg-type]
            say=self._door(lambda _task, message, **_: setattr(self.there, "message", message)),
            ping=self._door(lambda _task, **_: None),
            stamp=self._door(lambda _task, run, _values, **_: self.there.runtime.update({RUN_STAMP: run})),
            started=self._door(lambda _task, *_, **__: self.become(TaskStatus.IN_PROGRESS)),
            conclude=self._door(self._conclude),
        )
        self.events = SimpleNamespace(
            add=lambda events, **_: len(events), stamps=lambda *_, **__: set(), latest=lambda *_, **__: 0
        )
        self.workers = SimpleNamespace(runtime_properties=lambda _worker: {})

    def _door(self, carry_out: Callable[..., Any]) -> Callable[..., Any]:
        def through(*args: Any, **kwargs: Any) -> Any:
            return self.fate.call(
                lambda: carry_out(*args, **kwargs),
                lambda: ServerUnreachableError("no answer", uncertain=self.fate.after),
            )

        return through

    def _look(self, _queues: Sequence[QueueId]) -> list[Queue]:
        return [Queue(QUEUE, "queue", (QueueEntry(TASK, self.entry),) if self.entry else ())]

    def _holding(self, _task: TaskId) -> Queue | None:
        return self._look([])[0] if self.entry else None

    def _remove(self, _queue: QueueId, _task: TaskId) -> bool:
        was, self.entry = self.entry, None
        return was is not None

    def call(self, endpoint: str, payload: Mapping[str, Any], **_: object) -> dict[str, Any]:
        """As the session of ``api.tasks``: a list may lack the task though it is there."""
        there = self.there
        task = {
            "id": TASK,
            "status": there.status.value,
            "status_message": there.message,
            "status_reason": there.reason,
            "status_changed": there.changed,
            "runtime": dict(there.runtime),
            "last_worker": there.last_worker,
            "last_worker_report": there.changed if there.last_worker else "",
        }
        if endpoint == "tasks.get_by_id":
            return {"task": task}
        assert endpoint == "tasks.get_all"
        listed = TASK in payload["id"] and not self.leaves_out
        self.leaves_out = False
        return {"tasks": [task] if listed else []}

    def _conclude(
        self, _task: TaskId, status: TaskStatus, reason: str, _by: str, *, force: bool = False, **_: object
    ) -> bool:
        try:
            self.become(status, reason, force)
        except ApiError:
            return False
        return True

    def become(self, status: TaskStatus, reason: str = "", force: bool = False) -> None:
        there = self.there
        if not force and not may_follow(there.status, status):
            raise ApiError("tasks", 400, 110, f"{there.status} → {status}")
        there.finals += status.is_final and there.status is not status
        there.status, there.message, there.reason = status, "", reason
        there.last_worker = ""  # of a run before; who works on it now says so at once

    def enqueue(self, *, by_person: bool) -> None:
        if by_person:
            self.there.finals = 0
        self.there.status, self.there.message = TaskStatus.QUEUED, ""
        self.entry = str(next(self._added))


@dataclass
class Job:
    id: JobId
    name: str
    submitted: datetime
    state: JobState = JobState.PENDING
    restarts: int = 0
    held: str = ""
    """Why it does not start, in Slurm's words, until somebody mends it; empty for one that waits for its turn."""
    record: JobRecord | None = None
    """What accounting will say, once it does."""
    recorded: bool = False


class Cluster:
    """A ``schedulers.base.Scheduler``."""

    name = "slurm"

    def __init__(self, fate: Fate, clock: ManualClock) -> None:
        self.fate = fate
        self.clock = clock
        self.jobs: dict[JobId, Job] = {}
        self.cancelled: list[JobId] = []
        self.cut_short: list[TaskStatus] = []
        """What the task was when a running job of it was cancelled."""
        self.task_status: Callable[[], TaskStatus] = lambda: TaskStatus.UNKNOWN
        self.accounting_answers = True
        self._ids = count(1)

    def _call(self, carry_out: Callable[[], Any]) -> Any:
        return self.fate.call(carry_out, lambda: SchedulerUnavailableError("no answer"))

    def about(self) -> About:
        return About("a pretended scheduler")

    def cluster(self) -> str:
        return CLUSTER

    def room(self) -> Room:
        return Room()

    def submit(self, request: Any) -> Submission:
        try:
            return self._call(lambda: self._accept(request.job_name))
        except SchedulerUnavailableError as error:
            return Uncertain(str(error))

    def _accept(self, name: str) -> Submission:
        job = Job(JobId(str(next(self._ids))), name, self.clock.now())
        self.jobs[job.id] = job
        return Accepted(job.id)

    def live_jobs(self) -> Sequence[LiveJob]:
        strangers = [LiveJob(STRANGERS[0], "strange", JobState.PENDING, "PENDING")]
        strangers.append(LiveJob(STRANGERS[1], f"clearml_task_{'b' * 32}_01234567", JobState.PENDING, "PENDING"))
        ours = [
            LiveJob(job.id, job.name, job.state, job.state.value, job.held or "Priority", restarts=job.restarts)
            for job in self.jobs.values()
            if job.record is None
        ]
        return self._call(lambda: [*strangers, *ours])

    def find(self, job_name: str, since: datetime) -> JobId | None:
        found = [job.id for job in self.jobs.values() if job.name == job_name]
        return self._call(lambda: found[-1] if found else None)

    def records(self, jobs: Mapping[JobId, datetime]) -> Mapping[JobId, JobRecord]:
        if not self.accounting_answers:
            raise SchedulerUnavailableError("sacct: Unable to connect to slurmdbd")
        known = {id: job.record for id in jobs if (job := self.jobs.get(id)) and job.recorded and job.record}
        return self._call(lambda: known)

    def cancel(self, jobs: Sequence[JobId], *, only_pending: bool = False) -> None:
        self.cancelled += jobs
        runs = [id for id in jobs if id in self.jobs and self.jobs[id].state is JobState.RUNNING]
        self.cut_short += [self.task_status() for _ in runs if not only_pending]
        self._call(lambda: [self.end(self.jobs[id], JobState.CANCELLED) for id in jobs if self._may(id, only_pending)])

    def _may(self, id: JobId, only_pending: bool) -> bool:
        job = self.jobs.get(id)
        return job is not None and job.record is None and (not only_pending or job.state is JobState.PENDING)

    def release(self, jobs: Sequence[JobId]) -> None:
        """Slurm tries again, and cannot launch it again."""
        for id in jobs:
            self.jobs[id].restarts += 1

    def end(self, job: Job, state: JobState, code: int = 0) -> None:
        now = self.clock.now()
        times = {"submitted": job.submitted, "started": job.submitted, "ended": now}
        job.record = JobRecord(job.id, state, state.value, name=job.name, exit_code=code, nodes="n1", **times)


class Executor:
    """One start of a job, a step at a time; ``zombie`` when Slurm takes it for dead and it is not."""

    def __init__(self, site: PretendedSite, job: Job) -> None:
        self.site = site
        self.job = job
        self.start = job.restarts
        attempt = parse_job_name(job.name)
        assert attempt is not None
        self.run: RunDirectory = site.runs.of(attempt)
        self.won: Won | None = None
        self.stage = "new"
        self.seen = TaskStatus.UNKNOWN
        self.process = False
        """Whether the user's process runs."""
        self.zombie = False

    @property
    def over(self) -> bool:
        return self.stage == "over"

    def step(self) -> None:
        """The next thing that it does; a death in it ends the job."""
        try:
            getattr(self, f"_{self.stage}")()
        except Died:
            self.die()
        except (ServerUnreachableError, ApiError):
            self.die(code=69)

    def die(self, code: int = 137) -> None:
        self.process = False
        self.stage = "over"
        if not self.zombie and self.job.record is None and self.job.restarts == self.start:
            self.site.cluster.end(self.job, JobState.FAILED, code)

    def leave(self, code: int = 0) -> None:
        self.process = False
        self.stage = "over"
        if not self.zombie and self.job.record is None and self.job.restarts == self.start:
            self.site.cluster.end(self.job, JobState.FAILED if code else JobState.COMPLETED, code)

    def _new(self) -> None:
        site = self.site
        me = Identity(
            worker=WorkerId(f"node:slurm:{self.job.id}"),
            host=f"n{self.start}",
            owner=f"job:{self.job.id}",
            job=self.job.id,
            restarts=self.start,
            run_dir=self.run.path,
            cluster=CLUSTER,
            pid=1,
        )
        claimer = Claimer(site.server, self.run, me, site.clock)  # type: ignore[arg-type]
        task = site.server.tasks.get(TASK)
        self.seen = task.status
        claimed = claimer.claim(task, require_queue=True)
        if not isinstance(claimed, Won):
            self.leave()
            return
        self.won = claimed
        self.stage = "claimed"

    def _claimed(self) -> None:
        """As ``executor.claimed.ClaimedRun`` starts a task."""
        assert self.won is not None
        server = self.site.server
        if not still_ours(self.run, self.won.claim):
            self.leave(1)
            return
        if self.seen is TaskStatus.QUEUED and server.tasks.glimpse([TASK])[TASK].status is not TaskStatus.QUEUED:
            self._report("none", "taken back")
            return
        server.tasks.stamp(TASK, f"{self.run.attempt.id}.{self.start}", {})
        server.tasks.started(TASK)
        server.there.last_worker = self.won.claim.worker
        self.stage = "started"

    def _started(self) -> None:
        assert self.won is not None
        if self.won.silent:
            # FENCE_S: whoever still lives has looked several times by then.
            for other in self.site.executors:
                if other is not self:
                    other.look()
        if not self._is_ours():
            self.leave(1)
            return
        self.run.write_claim(msgspec.structs.replace(self.won.claim, begun=True))
        self.process = True
        self.site.begun += 1
        self.site.count()
        self.stage = "running"

    def look(self) -> None:
        """What its watch sees within seconds."""
        if self.over or self.won is None or not self.process:
            return
        seen = self.site.server.there
        if not self._is_ours():
            self.leave(1)
        elif seen.status is TaskStatus.IN_PROGRESS and "stopping" in seen.message:
            self._end("stopped", "aborted by its user")
        elif seen.status not in (TaskStatus.IN_PROGRESS, TaskStatus.COMPLETED):
            self._end("none", "taken back")

    def _running(self) -> None:
        self.look()
        if self.process:
            self._end("completed", "worker execution done")

    def tell_to_end(self, cause: Cause) -> None:
        """SIGTERM; in what order it does its last things is up to ``step``."""
        if self.over:
            return
        if self.won is None or self.stage in ("new", "claimed"):
            self.process = False
            self.stage = "over"
            return
        if self.process:
            self._end("stopped", cause.value, cause)

    def _end(self, status: Any, reason: str, cause: Cause | None = None) -> None:
        self.process = False
        self._report(status, reason, cause)

    def _report(self, status: Any, reason: str, cause: Cause | None = None) -> None:
        self._last = ExitReport(status=status, reason=reason, exit_code=1, at=self.site.clock.now(), cause=cause)
        self.stage = "reporting"

    def _reporting(self) -> None:
        if not self._is_ours():
            self.leave(1)
            return
        self.run.write_exit_report(self._last)
        self.site.finished += self._last.status == "completed"
        self.stage = "posting"

    def _posting(self) -> None:
        if self._last.cause is None:
            if self._last.status != "none":
                self.site.server.tasks.conclude(TASK, TaskStatus(self._last.status), self._last.reason, "")
            self.run.write_exit_report(msgspec.structs.replace(self._last, posted=True))
        self.leave(0 if self._last.status == "completed" else 1)

    def _is_ours(self) -> bool:
        assert self.won is not None
        stamp = self.site.server.there.runtime.get(RUN_STAMP)
        stamped = self.stage in ("claimed",) or stamp == f"{self.run.attempt.id}.{self.start}"
        return stamped and still_ours(self.run, self.won.claim)


class PretendedSite:
    def __init__(self, folder: Path, **queue: Any) -> None:
        """``queue``: settings of the only one."""
        self.clock = ManualClock()
        self.fate = Fate()
        self.server = Server(self.fate)
        self.cluster = Cluster(self.fate, self.clock)
        self.cluster.task_status = lambda: self.server.there.status
        queues = {"queue": QueueSettings(**queue)}
        self.settings = AllSettings(
            hpc=HpcSettings(root=folder, envs=_staged_by_jobs(), keep_runs_days=0, queues=queues)
        )
        self.runs = RunsFolder(self.settings.hpc.runs)
        self.executors: list[Executor] = []
        self.daemon = self._new_daemon()
        self.begun = 0
        """Processes of the user that were started since a person last enqueued the task."""
        self.finished = 0
        """… and of which it is on record that they ended by themselves."""
        self.together = 0
        """The most of them at once, ever."""
        self.another_runs = False
        """Whether an agent of another kind runs the task."""

    def _new_daemon(self) -> Daemon:
        terms = Terms(slurm=True)
        launch = Launch(Path("/conf"), ["hpc-agent"], terms, Naming(WorkerId("login"), "login"))
        options = Options((QUEUE,), WorkerId("login"))
        return Daemon(self.server, self.cluster, self.settings, launch, options, self.clock)  # type: ignore[arg-type]

    def look(self) -> None:
        """One pass of the daemon, which may die in it."""
        self.fate.calls = 0
        try:
            self.daemon.run_pass()
        except Died:
            self.restart()
        except (ServerUnreachableError, SchedulerUnavailableError):
            pass

    def restart(self) -> None:
        self.daemon._turns.give_back()
        self.daemon = self._new_daemon()

    def close(self) -> None:
        self.daemon._turns.give_back()

    def living(self) -> list[Executor]:
        return [executor for executor in self.executors if not executor.over]

    def another_agent_takes_it(self) -> None:
        """One that pops the queue, and knows of no claims and no stamps."""
        self.server.entry = None
        self.server.become(TaskStatus.IN_PROGRESS)
        self.server.there.last_worker = "other:gpu0"
        self.another_runs = True
        self.count()

    def another_agent_looks(self, *, ends: bool) -> None:
        """It ends when the task is taken back, or came to its end."""
        there = self.server.there
        is_its = there.status is TaskStatus.IN_PROGRESS and there.last_worker == "other:gpu0"
        if is_its and "stopping" in there.message:
            self.server.become(TaskStatus.STOPPED, "aborted")
        elif is_its and ends:
            self.server.become(TaskStatus.COMPLETED, "done by another agent")
        elif is_its:
            return
        self.another_runs = False

    def count(self) -> None:
        processes = sum(e.process for e in self.executors) + self.another_runs
        self.together = max(self.together, processes)

    def its_user_resets_it(self) -> None:
        """Whoever runs it sees that within seconds."""
        self.server.entry = None
        self.server.become(TaskStatus.CREATED, "reset", force=True)
        self.server.there.runtime.clear()
        self.server.there.finals = 0
        self.begun = self.finished = 0
        for executor in self.living():
            executor.look()
        self.another_agent_looks(ends=False)

    def startable(self) -> list[Job]:
        return [job for job in self.waiting() if not job.held]

    def start_job(self, job: Job) -> None:
        job.state = JobState.RUNNING
        self.executors.append(Executor(self, job))

    def waiting(self) -> list[Job]:
        return [job for job in self.cluster.jobs.values() if job.record is None and job.state is JobState.PENDING]

    def running(self) -> list[Job]:
        return [job for job in self.cluster.jobs.values() if job.record is None and job.state is JobState.RUNNING]

    def of(self, job: Job) -> list[Executor]:
        return [e for e in self.living() if e.job is job and e.start == job.restarts]

    def end_job(self, job: Job, state: JobState, cause: Cause, *, kill: bool, zombie: bool) -> None:
        """Slurm ends a job: it tells the executor, or not, or does not reach it."""
        self._part(job, cause, kill=kill, zombie=zombie)
        self.cluster.end(job, state)

    def requeue(self, job: Job, *, kill: bool, zombie: bool) -> None:
        self._part(job, Cause.REQUEUED, kill=kill, zombie=zombie)
        job.restarts += 1
        job.state = JobState.PENDING

    def _part(self, job: Job, cause: Cause, *, kill: bool, zombie: bool) -> None:
        for executor in self.of(job):
            if zombie:
                executor.zombie = True
                continue
            if not kill:
                executor.tell_to_end(cause)
                while not executor.over:
                    executor.step()
            executor.process = False
            executor.stage = "over"


def _staged_by_jobs() -> Any:
    return replace_struct(HpcSettings().envs, build_on="compute")


def replace_struct(struct: Any, **changes: Any) -> Any:
    return msgspec.structs.replace(struct, **changes)


def ours(site: PretendedSite, jobs: Iterable[JobId]) -> bool:
    return set(jobs).isdisjoint(STRANGERS)
