"""The daemon ends a run or sends it back to its queue, while others change the task or parts of the server are away."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import msgspec
import pytest
from faulty_server import AWAY, EMPTY, faulty_server

from hpc_agent.api.client import Client
from hpc_agent.clock import SYSTEM
from hpc_agent.config.load import load
from hpc_agent.config.settings import AllSettings, HpcSettings
from hpc_agent.daemon.conclude import CONSOLE_PATIENCE_S, Concluder
from hpc_agent.daemon.run_state import RunDirectoryState, read
from hpc_agent.domain.actions import MarkDone, Requeue, SetFinalStatus
from hpc_agent.domain.attempt import attempt_for
from hpc_agent.domain.decide import decide
from hpc_agent.domain.ids import QueueId, TaskId, WorkerId
from hpc_agent.domain.snapshot import AttemptSnapshot
from hpc_agent.domain.status import TaskStatus
from hpc_agent.errors import ServerUnreachableError
from hpc_agent.retry import ONCE, Budget
from hpc_agent.runs.attempt_records import ClaimRecord, ExitReport, SubmissionRecord
from hpc_agent.runs.directory import RunDirectory, RunsFolder
from hpc_agent.telemetry.spool import Spool

pytestmark = pytest.mark.peers

WORKER = WorkerId("n1:slurm:7")
FAILED_NODE = Requeue("node n1 failed", restart=True)
TOO_LONG = SetFinalStatus(TaskStatus.FAILED, "time limit 01:00:00 reached")


@dataclass
class Run:
    """A task whose job has won it, runs it, and is gone."""

    client: Client
    settings: AllSettings
    queue: QueueId
    task: TaskId
    directory: RunDirectory

    @property
    def concluder(self) -> Concluder:
        return Concluder(self.client, self.settings, WorkerId("login"), SYSTEM)

    @property
    def files(self) -> RunDirectoryState:
        return read(self.directory)

    def put_back(self) -> None:
        self.concluder.requeue(self.directory.attempt, self.files, FAILED_NODE)

    def settle(self) -> None:
        self.concluder.set_final_status(self.directory.attempt, self.files, TOO_LONG)

    def finish(self) -> None:
        self.concluder.publish_exit_report(self.directory.attempt, self.files)

    def age(self, seconds: float) -> None:
        """As if its report had been written so long ago."""
        report = self.directory.exit_report()
        assert report is not None
        self.directory.write_exit_report(msgspec.structs.replace(report, at=report.at - timedelta(seconds=seconds)))

    @property
    def report(self) -> ExitReport:
        report = self.directory.exit_report()
        assert report is not None
        return report

    @property
    def status(self) -> TaskStatus:
        return self.client.tasks.get_states([self.task])[self.task].status

    @property
    def is_queued(self) -> bool:
        return self.client.queues.queue_of(self.task) is not None

    def console(self) -> str:
        return "".join(event["msg"] for event in self.client.events.console_after(self.task, 0))

    def through(self, url: str) -> Run:
        """The same, with a proxy before the real server."""
        api = msgspec.structs.replace(self.client.session.settings, api_server=url)
        return replace(self, client=Client(api, budget=Budget(2)))


@pytest.fixture
def run(clearml_server: Any, tmp_path: Path) -> Run:
    api = load(clearml_server.conf, {}).settings.api
    client = Client(api)
    queue = client.queues.resolve(f"conclude-{uuid.uuid4().hex[:8]}", create=True)
    task = client.tasks.create({"name": "run", "type": "training"})
    directory = RunsFolder(tmp_path / "runs").of(attempt_for("c", queue, task, "t")).create()
    now = datetime.now(timezone.utc)
    directory.write_submission(SubmissionRecord(state="accepted", at=now, queue=queue, cluster="c", job="7"))
    directory.write_claim(
        ClaimRecord(
            state="won", at=now, owner="job:7", queue=queue, cluster="c", worker=WORKER, user_process_started=True
        )
    )
    client.tasks.enqueue(task, queue)
    assert client.queues.remove_task(queue, task)
    client.tasks.set_run_token(task, f"{directory.attempt.id}.0", {}, budget=ONCE)
    client.tasks.started(task, "", "")
    client.workers.report(WORKER, task=task)
    return Run(client, AllSettings(hpc=HpcSettings(root=tmp_path)), queue, task, directory)


@contextmanager
def troubled(run: Run, faults: dict[str, str]) -> Iterator[Run]:
    with faulty_server(run.client.session.settings.api_server, faults) as url:
        yield run.through(url)


def taken_by_another_agent(run: Run, *, reset: bool) -> None:
    """Its user enqueued it again, and an agent of another kind, which knows nothing of stamps, runs it."""
    run.client.session.call("tasks.reset" if reset else "tasks.stopped", {"task": run.task, "force": True})
    run.client.tasks.enqueue(run.task, run.queue)
    assert run.client.queues.remove_task(run.queue, run.task)
    run.client.tasks.started(run.task, "", "")
    run.client.workers.report(WorkerId("other:gpu0"), task=run.task)


@pytest.mark.parametrize("reset", [True, False])
@pytest.mark.parametrize("how", ["put_back", "settle"])
def test_the_run_of_another_agent_is_left_alone(run: Run, how: str, reset: bool) -> None:
    taken_by_another_agent(run, reset=reset)
    getattr(run, how)()
    assert (run.status, run.is_queued) == (TaskStatus.IN_PROGRESS, False)
    assert run.report.posted


def test_the_worker_of_a_run_before_says_nothing_of_this_one(run: Run) -> None:
    """Where this run's agent could not introduce itself."""
    run.client.session.call("tasks.stopped", {"task": run.task})
    run.client.workers.report(WorkerId("n9:slurm:1"), task=run.task)
    run.client.tasks.started(run.task, "", "")
    run.settle()
    assert run.status is TaskStatus.FAILED


def test_a_run_goes_back_once_and_is_counted_once(run: Run) -> None:
    run.put_back()
    assert (run.status, run.is_queued) == (TaskStatus.QUEUED, True)
    assert len(run.directory.requeue_budget().requeues) == 1


def test_an_abort_on_its_way_back_is_obeyed(run: Run) -> None:
    run.client.session.call("tasks.stop", {"task": run.task})
    run.put_back()
    assert not run.is_queued
    assert not run.report.posted
    seen = run.client.tasks.get_states([run.task])[run.task]
    snapshot = AttemptSnapshot(
        run.directory.attempt,
        claimed=run.files.claimed,
        ended=run.files.ended,
        status=seen.status,
        abort_requested=seen.abort_requested,
    )
    [action] = decide(snapshot, datetime.now(timezone.utc))
    assert isinstance(action, SetFinalStatus)
    run.concluder.set_final_status(run.directory.attempt, run.files, action)
    assert run.status is TaskStatus.STOPPED
    assert run.report.posted


def test_a_task_whose_queue_was_deleted_is_failed(run: Run) -> None:
    run.client.session.call("queues.delete", {"queue": run.queue, "force": True})
    run.put_back()
    seen = run.client.tasks.get_states([run.task])[run.task]
    assert seen.status is TaskStatus.FAILED
    assert seen.reason == "node n1 failed; the queue that it came from was deleted: enqueue it on another"
    assert run.report.posted


@pytest.mark.parametrize("how", ["put_back", "settle"])
def test_neither_status_nor_queue_waits_forever_for_the_console(run: Run, how: str) -> None:
    spool = Spool(run.directory.console().text, run.directory.console().mark)
    spool.write(b"its last line\n")
    spool.close()
    with troubled(run, {"events.add_batch": AWAY}) as there:
        getattr(there, how)()
        assert (run.status, run.is_queued) == (TaskStatus.IN_PROGRESS, False)
        run.age(CONSOLE_PATIENCE_S + 1)
        there.put_back() if how == "put_back" else there.finish()
    queued = how == "put_back"
    assert (run.status, run.is_queued) == (TaskStatus.QUEUED if queued else TaskStatus.FAILED, queued)
    assert (run.report.posted, run.report.unsent, run.console()) == (True, True, "")
    if not queued:
        assert "the rest of its console follows" in run.client.tasks.get_states([run.task])[run.task].message
    snapshot = AttemptSnapshot(
        run.directory.attempt, claimed=run.files.claimed, ended=run.files.ended, status=run.status
    )
    [action] = decide(snapshot, datetime.now(timezone.utc))
    assert isinstance(action, MarkDone)
    assert action.ship
    assert run.concluder.ship(run.directory.attempt, run.files)
    assert run.console().startswith("its last line")


@pytest.mark.parametrize("how", ["put_back", "settle"])
def test_after_an_outage_of_the_whole_server_status_and_queue_come_after_the_console(run: Run, how: str) -> None:
    """Though it was away for longer than they wait: the first request for the console fails once more."""
    spool = Spool(run.directory.console().text, run.directory.console().mark)
    spool.write(b"its last line\n")
    spool.close()
    everything = {"events.add_batch": AWAY, "tasks.get_all": AWAY, "tasks.get_by_id": AWAY, "events.get_task_log": AWAY}
    with troubled(run, everything) as there, pytest.raises(ServerUnreachableError):
        getattr(there, how)()
    run.age(CONSOLE_PATIENCE_S + 1)
    with troubled(run, {"events.add_batch": AWAY}) as there:
        there.put_back() if how == "put_back" else there.finish()
        assert (run.status, run.is_queued) == (TaskStatus.IN_PROGRESS, False)
    run.put_back() if how == "put_back" else run.finish()
    assert run.console().startswith("its last line")
    assert (run.report.posted, run.report.unsent) == (True, False)


def test_a_list_that_lacks_a_task_does_not_delete_it(run: Run) -> None:
    with troubled(run, {"tasks.get_all": EMPTY}) as there:
        assert there.client.tasks.get_states([run.task])[run.task].status is TaskStatus.IN_PROGRESS
        there.settle()
    assert run.status is TaskStatus.FAILED


def test_nothing_is_concluded_where_the_state_of_the_task_is_unknown(run: Run) -> None:
    with troubled(run, {"tasks.get_all": EMPTY, "tasks.get_by_id": AWAY}) as there:
        assert there.client.tasks.get_states([run.task], budget=ONCE)[run.task].status is TaskStatus.UNKNOWN
        there.put_back()
        assert not run.report.posted
    run.put_back()
    assert run.is_queued


def test_a_deleted_task_is_let_go(run: Run) -> None:
    run.client.tasks.delete(run.task)
    assert run.client.tasks.get_states([run.task]) == {}
    run.settle()
    assert run.report.posted
