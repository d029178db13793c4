"""Actions of a daemon that another one, a job or a death has come before."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import cast

import msgspec
import pytest
from manual_clock import ManualClock
from msgspec.structs import replace

from hpc_agent.api.client import Client
from hpc_agent.config.settings import AllSettings, HpcSettings
from hpc_agent.daemon.act import Actor
from hpc_agent.daemon.head_starts import HeadStarts, LeftToOthers
from hpc_agent.daemon.job_launch import JobLaunchConfig
from hpc_agent.daemon.nodes import BadNodes
from hpc_agent.daemon.options import DaemonOptions, JobNaming
from hpc_agent.daemon.registration import DaemonRecord, DaemonRegistry, RegistrationError
from hpc_agent.daemon.run_state import RunDirectoryState
from hpc_agent.daemon.submitter import TRY_TIMEOUT_S, CapacityAllocator, PreparedJob, Submitter
from hpc_agent.domain.actions import FindByName, MarkDone, RejectTask, Requeue, SetStatusMessage
from hpc_agent.domain.attempt import attempt_for
from hpc_agent.domain.capacity import Capacity
from hpc_agent.domain.ids import JobId, QueueId, TaskId, WorkerId
from hpc_agent.domain.job import Accepted, LimitReached, Refused
from hpc_agent.domain.job import SubmitResult as Answer
from hpc_agent.domain.queue import Queue
from hpc_agent.domain.status import TaskStatus
from hpc_agent.domain.task import Task
from hpc_agent.errors import ServerUnreachableError
from hpc_agent.process_id import ProcessId, process_id
from hpc_agent.runs.attempt_records import ClaimRecord, ExitReport, SubmissionRecord
from hpc_agent.runs.directory import RunDirectory, RunsFolder
from hpc_agent.schedulers.base import Scheduler, SubmitRequest
from hpc_agent.schedulers.slurm.script import SbatchScript
from hpc_agent.schedulers.slurm.settings import SlurmSettings
from hpc_agent.submission.render import Renderer
from hpc_agent.wire.task_state import TaskState

QUEUE = Queue(QueueId("q" * 32), "gpu")
ATTEMPT = attempt_for("c", QUEUE.id, TaskId("a" * 32), "t")
WORKER = WorkerId("login:daemon")


@dataclass
class Server:
    """A ClearML server whose task is ended, or goes on, as is set."""

    status: TaskStatus = TaskStatus.QUEUED
    message: str = ""
    known: bool = True
    holds: bool = True
    refuses_events: bool = False
    put_first_with: list[str] = field(default_factory=list)
    """The reasons of each task that was put at the head of its queue."""
    said: list[str] = field(default_factory=list)
    pings: int = 0
    concluded: list[tuple[TaskStatus, str]] = field(default_factory=list)

    def get_states(self, tasks: list[TaskId], **_options: object) -> dict[TaskId, TaskState]:
        return dict.fromkeys(tasks, TaskState(self.status, self.message, "", {})) if self.known else {}

    def set_status_message(self, _task: TaskId, message: str, **_options: object) -> None:
        self.said.append(message)

    def ping(self, _task: TaskId, **_options: object) -> None:
        self.pings += 1

    def get(self, task: TaskId, **_options: object) -> Task:
        return Task(task, status=self.status)

    def set_final_status(self, _task: TaskId, status: TaskStatus, reason: str, _by: str, **_options: object) -> None:
        self.concluded.append((status, reason))

    def timestamps(self, *_arguments: object, **_options: object) -> set[int]:
        return set()

    def latest(self, _task: TaskId, **_options: object) -> int:
        return 0

    def add(self, events: Sequence[object], **_options: object) -> int:
        if self.refuses_events:
            raise ServerUnreachableError("no answer", uncertain=False)
        return len(events)

    def queue_of(self, _task: TaskId) -> Queue | None:
        return QUEUE if self.holds else None

    def enqueue_at_head(self, _queue: QueueId, _task: TaskId, why: str) -> None:
        self.put_first_with.append(why)

    def remove_task(self, _queue: QueueId, _task: TaskId) -> bool:
        removed, self.holds = self.holds, False
        return removed


@dataclass
class _Services:
    tasks: Server
    queues: Server
    events: Server


@dataclass
class Cluster:
    """A scheduler that answers as is set."""

    answers: list[Answer] = field(default_factory=list)
    found: JobId | None = None
    searched_since: datetime | None = None
    submitted: list[SubmitRequest] = field(default_factory=list)

    def cluster(self) -> str:
        return "c"

    def find(self, _name: str, since: datetime) -> JobId | None:
        self.searched_since = since
        return self.found

    def submit(self, request: SubmitRequest) -> Answer:
        self.submitted.append(replace(request))
        return self.answers.pop(0)


class Site:
    """A daemon's hands on one attempt."""

    def __init__(self, folder: Path, user_map: Mapping[str, str] | None = None) -> None:
        self.settings = AllSettings(hpc=HpcSettings(root=folder, user_map=dict(user_map or {})))
        self.clock, self.server, self.cluster = ManualClock(), Server(), Cluster()
        self.client = cast(Client, _Services(self.server, self.server, self.server))
        self.run: RunDirectory = RunsFolder(self.settings.hpc.runs).of(ATTEMPT)
        self.actor = Actor(self.client, cast(Scheduler, self.cluster), self.settings, WORKER, self.clock)
        launch = JobLaunchConfig(
            folder / "clearml.conf", ["hpc-agent"], DaemonOptions(batch_system="slurm"), JobNaming(WORKER, "login")
        )
        self.submitter = Submitter(
            self.client,
            cast(Scheduler, self.cluster),
            self.settings,
            launch,
            None,
            Renderer(SbatchScript(SlurmSettings())),
            HeadStarts(lambda: pytest.fail("the queue has no head start"), self.settings.hpc, self.clock),
            self.clock,
        )

    def refuse(self) -> None:
        self.actor.reject(ATTEMPT, self.run, QUEUE, RejectTask(TaskStatus.FAILED, "no such partition"))

    def claim(self, owner: str, state: str = "intent") -> ClaimRecord:
        claim = ClaimRecord(state=state, at=self.clock.now(), owner=owner)  # type: ignore[arg-type]
        self.run.create().write_claim(claim)
        return claim

    def submission(self, submit_count: int = 1) -> SubmissionRecord:
        record = SubmissionRecord(
            state="intended", at=self.clock.now(), queue=QUEUE.id, cluster="c", submit_count=submit_count
        )
        self.run.create().write_submission(record)
        return record

    def submit(self, number: int = 1) -> object:
        job = self.submitter.prepare(ATTEMPT, QUEUE, self.run, number, CapacityAllocator(Capacity()), wait=False)
        return self.submitter.hand_over(job) if isinstance(job, PreparedJob) else job


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


class TestRefusal:
    def test_a_job_that_came_first_has_the_task(self, site: Site) -> None:
        site.claim("job:7")
        site.refuse()
        assert site.server.holds
        assert site.run.exit_report() is None

    def test_a_task_that_has_left_its_queue_is_nobodys(self, site: Site) -> None:
        site.server.holds = False
        site.refuse()
        assert site.run.claim() is None
        assert site.run.exit_report() is None

    @pytest.mark.parametrize("died", [False, True], ids=["at once", "after a daemon died in it"])
    def test_the_task_gets_the_reason(self, site: Site, died: bool) -> None:
        if died:
            site.claim("daemon:login:1")
        # Its user has deleted it meanwhile: no status is wanted.
        site.server.known = False
        site.refuse()
        claim, report = site.run.claim(), site.run.exit_report()
        assert claim is not None and claim.owner.startswith("daemon:")
        assert report is not None and (report.status, report.reason) == ("failed", "no such partition")
        assert not site.server.holds


class TestPutBack:
    def test_a_daemon_that_died_in_it_is_gone_on_from(self, site: Site) -> None:
        """What the one before decided, without a line for the console."""
        site.server.status, site.server.holds = TaskStatus.IN_PROGRESS, False
        report = ExitReport(status="again", reason="preempted", exit_code=1, at=site.clock.now(), last_line="")
        site.run.create().write_exit_report(report)
        files = RunDirectoryState(site.run, site.submission(), site.claim("job:7", "won"), report)
        site.actor.concluder.requeue(ATTEMPT, files, Requeue("another reason"))
        assert site.server.put_first_with == ["preempted"]
        found = site.run.exit_report()
        assert found is not None and found.posted
        claim = site.run.claim()
        assert claim is not None and claim.state == "over"


class TestLookUp:
    def test_a_job_that_is_found_is_the_submission(self, site: Site) -> None:
        site.cluster.found = JobId("7")
        files = RunDirectoryState(site.run, site.submission())
        assert not site.actor.find_by_name(ATTEMPT, files, FindByName(2, give_up=True))
        found = site.run.submission()
        assert found is not None and (found.state, found.job) == ("accepted", "7")

    def test_the_first_look_that_found_none_is_noted(self, site: Site) -> None:
        files = RunDirectoryState(site.run, site.submission())
        assert site.actor.find_by_name(ATTEMPT, files, FindByName(2, give_up=True))
        found = site.run.submission()
        assert found is not None and found.looked_at == site.clock.now()

    def test_a_job_of_the_try_before_is_not_taken_for_this_one(self, site: Site) -> None:
        for submit_count, since in ((1, 24 * 3600), (2, 0)):
            files = RunDirectoryState(site.run, site.submission(submit_count))
            site.actor.find_by_name(ATTEMPT, files, FindByName(3, give_up=False))
            assert site.cluster.searched_since is not None
            assert (site.clock.now() - site.cluster.searched_since).total_seconds() == since


class TestMessages:
    def test_they_change_so_often(self, site: Site) -> None:
        for message in ("Waiting", "Priority", "Resources"):
            site.actor.set_status_message(ATTEMPT, SetStatusMessage(message), site.run)
        assert site.server.said == ["Waiting"]
        site.clock.advance(HpcSettings().wait_message_interval)
        site.actor.set_status_message(ATTEMPT, SetStatusMessage("Resources"), site.run)
        site.actor.show_error(ATTEMPT, "broken")
        site.actor.show_error(ATTEMPT, "broken")
        assert site.server.said == ["Waiting", "Resources", "broken"]
        site.actor.forget_message(ATTEMPT)
        site.actor.set_status_message(ATTEMPT, SetStatusMessage("Priority"), site.run)
        assert site.server.said[3:] == ["Priority"]

    @pytest.mark.parametrize(("known", "message"), [(False, ""), (True, "Stopping by its user")])
    def test_none_takes_the_place_of_an_abort(self, site: Site, known: bool, message: str) -> None:
        site.server.status, site.server.known, site.server.message = TaskStatus.IN_PROGRESS, known, message
        site.actor.set_status_message(ATTEMPT, SetStatusMessage("requeued", ping=True), site.run)
        assert (site.server.said, site.server.pings) == ([], 1)


class TestClose:
    @pytest.mark.parametrize(("status", "left"), [("completed", 0), ("again", 1)])
    def test_restarts_are_counted_until_the_task_is_over(self, site: Site, status: str, left: int) -> None:
        site.run.create().count_requeue(0)
        report = ExitReport(
            status=status,  # type: ignore[arg-type]
            reason="",
            exit_code=0,
            at=site.clock.now(),
            last_line="",
        )
        site.run.write_exit_report(report)
        assert site.actor.mark_done(ATTEMPT, RunDirectoryState(site.run, report=report), MarkDone("done"))
        assert site.run.settled() is not None
        assert len(site.run.requeue_budget().requeues) == left

    def test_not_before_the_rest_of_its_console_is_sent(self, site: Site) -> None:
        site.run.create().notes.text.write_bytes(b"a line\n")
        site.server.refuses_events = True
        action = MarkDone("done", ship=True)
        assert not site.actor.mark_done(ATTEMPT, RunDirectoryState(site.run), action)
        assert site.run.settled() is None
        site.server.refuses_events = False
        assert site.actor.mark_done(ATTEMPT, RunDirectoryState(site.run), action)
        assert site.run.settled() is not None

    def test_without_a_run_directory_nothing_is_written(self, site: Site) -> None:
        assert site.actor.mark_done(ATTEMPT, RunDirectoryState(site.run), MarkDone("left its queue"))
        assert not site.run.path.exists()


class TestSubmission:
    """Of several daemons that see one entry, one submits it."""

    def test_one_that_another_daemon_has_begun(self, site: Site) -> None:
        site.submission()
        assert site.submit() is None
        assert site.cluster.submitted == []

    def test_a_second_try_that_another_daemon_has_begun(self, site: Site) -> None:
        before = site.submission()
        site.run.first_try(
            SubmissionRecord(state="intended", at=site.clock.now(), queue=QUEUE.id, cluster="c", submit_count=2)
        )
        assert site.submit(2) is None
        # That one died, or its try would have ended.
        site.clock.advance(TRY_TIMEOUT_S + 1)
        site.run.write_submission(before)
        site.cluster.answers = [Accepted(JobId("7"))]
        assert site.submit(2) == Accepted(JobId("7"))

    def test_a_try_that_is_not_the_next_one(self, site: Site) -> None:
        site.submission(submit_count=3)
        assert site.submit(2) is None

    @pytest.mark.parametrize("answer", [LimitReached("limit"), Refused("no")])
    def test_a_try_that_made_no_job_leaves_the_record_of_the_one_before(self, site: Site, answer: Answer) -> None:
        before = site.submission()
        site.cluster.answers = [answer]
        assert site.submit(2) == answer
        assert site.run.submission() == before
        site.cluster.answers = [Accepted(JobId("7"))]
        assert site.submit(2) == Accepted(JobId("7"))

    def test_where_all_nodes_are_avoided_they_are_not(self, site: Site) -> None:
        site.run.create()
        nodes = BadNodes(RunsFolder(site.settings.hpc.runs).nodes, site.clock)
        for number in range(2):
            nodes.blame("n1", attempt_for("c", QUEUE.id, TaskId(f"{number:032}"), "t"))
        site.cluster.answers = [Refused("node configuration is not available"), Accepted(JobId("7"))]
        assert site.submit() == Accepted(JobId("7"))
        assert [request.resources.exclude for request in site.cluster.submitted] == ["n1", ""]

    def test_another_linux_users_task_does_not_run_as_this_daemons_user(self, tmp_path: Path) -> None:
        """The server listed the queue's owners without it, and so it was kept."""
        site = Site(tmp_path, {"default": "alice"})
        assert site.submit() == LeftToOthers("left to the daemon of the Linux user alice", 0.0)
        assert not site.cluster.submitted and not site.run.script.exists()


class TestPresence:
    """Which daemons run on this machine."""

    LADDER = ((15, 0.0), (15, 0.0), (9, 5.0))

    @pytest.fixture
    def daemons(self, tmp_path: Path) -> DaemonRegistry:
        folder = tmp_path / "daemons"
        folder.mkdir()
        return DaemonRegistry(folder, "login", ManualClock(), cast("Sequence[tuple[object, float]]", self.LADDER))  # type: ignore[arg-type]

    @staticmethod
    def presence(process: ProcessId, host: str = "login") -> DaemonRecord:
        return DaemonRecord(WORKER, host, process, ManualClock().now())

    def test_a_record_that_cannot_be_read_is_none(self, daemons: DaemonRegistry) -> None:
        (daemons.folder / "broken.json").write_text("{", encoding="utf-8")
        assert daemons.all() == []

    def test_a_lock_that_another_keeps_holds_up_no_start_forever(self, daemons: DaemonRegistry) -> None:
        with (daemons.folder / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            entered = daemons.register(lambda _slot: WORKER, numbered=False, flags={})
        assert daemons.running() == [entered]
        daemons.unregister(entered)
        assert daemons.all() == []

    def test_one_of_another_machine_is_not_ended_here(self, daemons: DaemonRegistry) -> None:
        own = process_id(os.getpid())
        assert own is not None
        with pytest.raises(RegistrationError, match="runs on elsewhere: stop it there"):
            daemons.stop(self.presence(own, "elsewhere"))

    def test_a_number_that_is_another_processs_now_is_not_ended(self, daemons: DaemonRegistry) -> None:
        own = process_id(os.getpid())
        assert own is not None
        daemons.stop(self.presence(msgspec.structs.replace(own, ticks=own.ticks - 1)))

    def test_one_that_does_not_exist_any_more(self, daemons: DaemonRegistry) -> None:
        own = process_id(os.getpid())
        assert own is not None
        daemons.stop(self.presence(msgspec.structs.replace(own, pid=2**22 + 1)))

    def test_one_that_ignores_sigterm_is_killed(self, daemons: DaemonRegistry) -> None:
        program = "import signal, time; signal.signal(15, signal.SIG_IGN); print(1, flush=True); time.sleep(600)"
        with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE) as child:
            assert child.stdout is not None
            child.stdout.readline()
            process = process_id(child.pid)
            assert process is not None
            ended = DaemonRegistry(
                daemons.folder,
                "login",
                _System(),
                cast("Sequence[tuple[object, float]]", self.LADDER),  # type: ignore[arg-type]
            )
            ended.stop(self.presence(process))
            assert not process.is_running()


class _System(ManualClock):
    """Processes end in real time."""

    def sleep(self, seconds: float) -> None:
        import time

        time.sleep(0.01)
        super().sleep(0.01)
