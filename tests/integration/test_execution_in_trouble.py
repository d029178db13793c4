"""The claim and the start of a task, while its user, other agents and the network do what they do."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from faults.troubled import Trouble, Troubled, troubled
from manual_clock import ManualClock
from waiting import wait_until

from hpc_agent.api.client import Client
from hpc_agent.clock import SYSTEM
from hpc_agent.config.clearml_settings import ApiSettings
from hpc_agent.config.load import load
from hpc_agent.domain.attempt import Attempt
from hpc_agent.domain.ids import AttemptId, JobId, TaskId, WorkerId
from hpc_agent.domain.status import TaskStatus
from hpc_agent.executor.agent_identity import AgentIdentity
from hpc_agent.executor.claim import Claimer, Lost, Won
from hpc_agent.executor.console import Console
from hpc_agent.executor.report import Reporter
from hpc_agent.executor.stop_conditions import StopReason, StopRequest
from hpc_agent.executor.task_outcome import ExitContext, ended
from hpc_agent.executor.task_run import FENCE_S
from hpc_agent.executor.watch import Meters, Watch, WatchedRun
from hpc_agent.file_records import remove_tree, write_record
from hpc_agent.retry import ONCE
from hpc_agent.runs.attempt_records import ClaimRecord
from hpc_agent.runs.directory import RunDirectory, RunsFolder
from hpc_agent.schedulers.base import NullCurrentJob
from hpc_agent.staging import TaskStager
from hpc_agent.telemetry.shipper import ConsoleSource
from hpc_agent.telemetry.usage import GpuReader, UsageReader

OURS, ANOTHER = AttemptId("0000000a"), AttemptId("0000000b")


class Bench:
    """One task in one queue of a real server, and run directories."""

    def __init__(self, server: Any, folder: Path, proxy: Troubled) -> None:
        self.server = server
        self.folder = folder
        self.proxy = proxy
        settings = load(server.conf, {}).settings.api
        self.direct = Client(settings)
        values = {name: getattr(settings, name) for name in ("access_key", "secret_key")}
        self.settings = ApiSettings(api_server=proxy.url, **values)
        self.clock = ManualClock(SYSTEM.now())
        self.runs = RunsFolder(folder / "runs")
        self.queue = self.direct.queues.resolve(f"q-{uuid.uuid4().hex[:8]}", create=True)
        script = {"entry_point": "run.py", "working_dir": ".", "diff": "print('ran')\n", "requirements": {"pip": ""}}
        self.task = self.direct.tasks.create({"name": "claimed", "type": "training", "script": script})
        self.enqueue()

    def enqueue(self) -> None:
        self.direct.tasks.enqueue(self.task, self.queue)

    def call(self, endpoint: str, **values: Any) -> None:
        self.direct.session.call(endpoint, {"task": self.task, **values})

    def run_of(self, attempt: AttemptId = OURS) -> RunDirectory:
        return self.runs.of(Attempt(self.task, attempt))

    def claimed_by(self, attempt: AttemptId, state: Any = "won", worker: str = "node:slurm:7") -> None:
        claim = ClaimRecord(state=state, at=SYSTEM.now(), owner="job:7", host="away", worker=worker)
        self.run_of(attempt).create().write_claim(claim)

    def stamp(self, attempt: AttemptId) -> None:
        self.direct.tasks.set_run_token(self.task, f"{attempt}.0", {}, budget=ONCE)

    def claim(self, restarts: int = 0) -> Won | Lost:
        me = AgentIdentity(
            worker=WorkerId("node:slurm:7"),
            host="here",
            owner="job:7",
            job=JobId("7"),
            restart_count=restarts,
            run_dir=self.run_of().path,
            cluster="c",
            pid=os.getpid(),
        )
        client = Client(self.settings, clock=self.clock)
        task = self.direct.tasks.get(self.task)
        return Claimer(client, self.run_of(), me, self.clock).claim(task, require_queue=True)

    @property
    def status(self) -> TaskStatus:
        return self.direct.tasks.get_states([self.task])[self.task].status

    @property
    def reason(self) -> str:
        return self.direct.tasks.get_states([self.task])[self.task].reason

    @property
    def console(self) -> str:
        return "".join(event["msg"] for event in self.direct.events.console_after(self.task, 0))

    def is_queued(self) -> bool:
        return self.direct.queues.queue_of(self.task) is not None

    def conf(self) -> Path:
        conf = self.folder / "through.conf"
        hpc = f'root: "{self.folder}", scratch_dir: "{self.folder}/scratch"'
        conf.write_text(f'include "{self.server.conf}"\napi {{ api_server: "{self.proxy.url}" }}\nhpc {{ {hpc} }}\n')
        return conf

    def execute(self, *flags: str, **env: str) -> subprocess.CompletedProcess[str]:
        """A real ``hpc-agent execute`` that reaches the server through the proxy."""
        return subprocess.run(
            [sys.executable, "-m", "hpc_agent", "execute", "--id", self.task, "--require-queue", *flags],
            env={**self.server.env, "CLEARML_CONFIG_FILE": str(self.conf()), "HOME": str(self.folder), **env},
            text=True,
            capture_output=True,
            timeout=120,
            check=False,
        )

    def execute_as_job(self, *flags: str, restarts: int = 0) -> subprocess.CompletedProcess[str]:
        """As the job that a daemon watches."""
        run_dir = self.run_of().create().path
        return self.execute(
            *flags, HPC_AGENT_RUN_DIR=str(run_dir), SLURM_JOB_ID="7", SLURM_RESTART_COUNT=str(restarts or "")
        )


@pytest.fixture
def bench(clearml_server: Any, tmp_path: Path) -> Iterator[Bench]:
    with troubled(clearml_server.url) as proxy:
        yield Bench(clearml_server, tmp_path, proxy)


def once_at(endpoint: str, act: Callable[[], Trouble | None]) -> Callable[[str], Trouble | None]:
    """``act`` before the first call of an endpoint goes on; its answer is what happens to that call."""
    done: list[str] = []

    def choose(called: str) -> Trouble | None:
        if called != endpoint or done:
            return None
        done.append(called)
        return act()

    return choose


# ---------------------------------------------------------------- a job that the scheduler starts again


def test_a_requeued_job_leaves_a_task_alone_that_its_user_enqueued_again(bench: Bench) -> None:
    assert isinstance(bench.claim(), Won)
    bench.call("tasks.started")
    bench.call("tasks.reset", force=True)
    bench.enqueue()
    lost = bench.claim(restarts=1)
    assert isinstance(lost, Lost) and "again" in lost.reason
    assert bench.is_queued()


def test_a_requeued_job_leaves_a_task_alone_that_another_run_has(bench: Bench) -> None:
    assert isinstance(bench.claim(), Won)
    bench.call("tasks.started")
    bench.stamp(ANOTHER)
    lost = bench.claim(restarts=1)
    assert isinstance(lost, Lost) and str(ANOTHER) in lost.reason
    bench.stamp(OURS)
    assert isinstance(bench.claim(restarts=1), Won)


# ---------------------------------------------------------------- a task that waits in a queue, and shows as running


def test_a_start_that_came_too_late_to_say_so_does_not_keep_the_next_one_out(bench: Bench) -> None:
    bench.claimed_by(ANOTHER, "over")
    bench.stamp(ANOTHER)
    bench.call("tasks.started")
    assert bench.is_queued()
    assert isinstance(bench.claim(), Won)


@pytest.mark.parametrize("case", ["no run of ours", "a run that it was not taken from", "an agent of another kind"])
def test_a_task_that_runs_elsewhere_and_was_enqueued_by_mistake_is_left_alone(case: str, bench: Bench) -> None:
    if case != "no run of ours":
        bench.claimed_by(ANOTHER, "won" if case == "a run that it was not taken from" else "over")
        bench.stamp(ANOTHER)
    bench.call("tasks.started")
    if case == "an agent of another kind":
        bench.direct.workers.report(WorkerId("stranger:0"), task=bench.task)
    assert isinstance(bench.claim(), Lost)
    assert bench.is_queued()


# ---------------------------------------------------------------- a removal whose answer was lost


def test_a_removal_whose_answer_was_lost_is_ours_if_no_other_run_turns_up(bench: Bench) -> None:
    bench.proxy.choose = once_at("queues.remove_task", lambda: Trouble.LOST)
    assert isinstance(bench.claim(), Won)
    assert not bench.is_queued()


@pytest.mark.parametrize("sign", ["stamps", "starts"])
def test_time_in_which_the_server_is_away_does_not_make_it_ours(sign: str, bench: Bench) -> None:
    """Another one has won, and waits for the server as we do: it shows itself when both get answers again."""

    def taken() -> Trouble:
        bench.direct.queues.remove_task(bench.queue, bench.task)
        bench.proxy.choose = lambda _endpoint: Trouble.RESET
        return Trouble.RESET

    def back() -> None:
        bench.proxy.choose = lambda _endpoint: None
        show = {"stamps": lambda: bench.stamp(ANOTHER), "starts": lambda: bench.call("tasks.started")}
        bench.clock.at(bench.clock.seconds + 20, show[sign])

    bench.proxy.choose = once_at("queues.remove_task", taken)
    bench.clock.at(45, back)
    assert isinstance(bench.claim(), Lost)
    assert bench.run_of().claim() is None


# ---------------------------------------------------------------- between the claim and the start


def test_an_abort_after_the_claim_is_obeyed(bench: Bench) -> None:
    def abort() -> None:
        bench.proxy.on_answer = lambda *_: None
        bench.call("tasks.stop")

    bench.proxy.on_answer = lambda called, *_: abort() if called == "queues.remove_task" else None
    done = bench.execute()
    assert bench.status is TaskStatus.STOPPED, done.stderr
    assert "ran" not in done.stdout + bench.console


def test_an_abort_before_the_last_look_is_obeyed(bench: Bench) -> None:
    """Run token and look are under way at the same time: the token's answer may come after the look."""
    bench.proxy.choose = once_at("tasks.get_all", lambda: bench.call("tasks.stop"))
    done = bench.execute()
    assert bench.status is TaskStatus.STOPPED, done.stderr
    assert "ran" not in done.stdout + bench.console


def test_an_abort_as_the_requeued_job_starts_is_obeyed(bench: Bench) -> None:
    bench.claimed_by(OURS)
    bench.direct.queues.remove_task(bench.queue, bench.task)
    bench.stamp(OURS)
    bench.call("tasks.started")
    bench.direct.workers.report(WorkerId("node:slurm:7"), task=bench.task)
    # The job has seen the task running; its user aborts it before it says that it goes on.
    bench.proxy.choose = once_at("tasks.get_all", lambda: bench.call("tasks.stop"))
    done = bench.execute_as_job(restarts=1)
    assert (bench.status, bench.reason) == (TaskStatus.STOPPED, "aborted by its user"), done.stderr
    assert "ran" not in bench.console
    report = bench.run_of().exit_report()
    assert report is not None and report.posted


def test_an_end_that_comes_after_a_reset_leaves_the_task_as_it_is(bench: Bench) -> None:
    """Its user resets it while the agent sends the console, and has stopped it again before the agent's last look."""

    def reset() -> None:
        bench.call("tasks.reset", force=True)
        bench.call("tasks.stopped", force=True)

    bench.proxy.choose = once_at("events.add_batch", reset)
    bench.execute_as_job()
    assert bench.status is TaskStatus.STOPPED


def test_a_start_that_the_server_refuses_leaves_the_task_to_the_daemon(bench: Bench) -> None:
    bench.proxy.choose = once_at("tasks.edit", lambda: setattr(bench.proxy, "largest", 0))
    done = bench.execute_as_job()
    assert done.returncode
    assert bench.status is TaskStatus.QUEUED
    claim = bench.run_of().claim()
    assert claim is not None and (claim.state, claim.user_process_started) == ("won", False)
    assert bench.run_of().exit_report() is None  # the daemon finds nothing posted, and puts it back


def test_a_start_that_the_server_refuses_is_reported_where_no_daemon_is(bench: Bench) -> None:
    bench.proxy.refuses = "tasks.edit"
    done = bench.execute()
    assert done.returncode == 1
    assert bench.status is TaskStatus.FAILED
    assert "the server did not let it start" in bench.reason


def test_the_environment_is_unpacked_before_the_server_has_answered_anything(bench: Bench) -> None:
    settings = load(bench.conf(), {}).settings
    staged = TaskStager(settings, SYSTEM).stage(bench.direct.tasks.get(bench.task), lambda _line: None)
    write_record(bench.run_of().create().stage, staged)
    scratch = bench.folder / "scratch"
    remove_tree(scratch)
    unpacked: list[bool] = []

    def arrived(endpoint: str) -> None:
        if endpoint == "auth.login":
            wait_until("the environment", lambda: any(scratch.glob(f"*/envs/{staged.env}/bin/python")), timeout=90)
            unpacked.append(True)

    bench.proxy.choose = arrived
    bench.execute_as_job("--standalone-mode")
    assert unpacked == [True]
    assert bench.status is TaskStatus.COMPLETED


def test_the_look_before_the_start_does_not_wait_for_the_answer_about_the_token(bench: Bench) -> None:
    """The server closes each connection, so that a second one at the same time costs nothing: either may come first."""
    looked = threading.Event()
    met: list[bool] = []

    def arrived(endpoint: str) -> None:
        if endpoint == "tasks.get_all":
            looked.set()

    def answered(endpoint: str, _request: bytes, _status: int) -> None:
        if endpoint == "tasks.edit":
            met.append(looked.wait(60))

    bench.proxy.choose, bench.proxy.on_answer = arrived, answered
    bench.execute_as_job()
    assert met == [True]
    assert bench.status is TaskStatus.COMPLETED


def test_a_look_that_overtook_the_token_is_repeated(bench: Bench) -> None:
    """The look before the start has to come after the token, from which others tell whose run it is."""
    looked = threading.Event()
    order: list[str] = []

    def arrived(endpoint: str) -> None:
        if endpoint == "tasks.edit":
            looked.wait(60)

    def answered(endpoint: str, _request: bytes, _status: int) -> None:
        if endpoint in ("tasks.edit", "tasks.get_all", "tasks.started"):
            order.append(endpoint)
        if endpoint == "tasks.get_all":
            looked.set()

    bench.proxy.choose, bench.proxy.on_answer = arrived, answered
    bench.execute_as_job()
    assert order[:4] == ["tasks.get_all", "tasks.edit", "tasks.get_all", "tasks.started"]
    assert bench.status is TaskStatus.COMPLETED


# ---------------------------------------------------------------- the end


def reporting(bench: Bench) -> tuple[Reporter, Console]:
    """Of a run that has just ended."""
    run = bench.run_of().create()
    bench.direct.queues.remove_task(bench.queue, bench.task)
    bench.call("tasks.started")
    bench.claimed_by(OURS)
    claim = run.claim()
    assert claim is not None
    client = Client(bench.settings, clock=bench.clock)
    me = AgentIdentity(WorkerId("node:1"), "here", claim.owner, None, 0, None, "c", os.getpid())
    console = Console(run, ConsoleSource(bench.task, me.worker), client.events, bench.clock, ours=lambda: True)
    return Reporter(client, me, run, claim, NullCurrentJob(), bench.clock), console


def test_a_status_is_not_set_on_a_run_that_began_meanwhile(bench: Bench) -> None:
    """Its user reset the task, and another attempt has it, while this one waited to tell how it ended."""
    reporter, console = reporting(bench)
    bench.direct.tasks.set_run_token(bench.task, f"{ANOTHER}.0", {}, budget=ONCE)
    reporter.report(console, ended(3, ExitContext()))
    assert bench.status is TaskStatus.IN_PROGRESS


def test_a_status_does_not_wait_for_a_console_that_is_not_taken(bench: Bench) -> None:
    """The events of the server alone fail, and no daemon goes on where this agent ends."""
    run, clock = bench.run_of(), bench.clock
    reporter, console = reporting(bench)
    console.write_line("what it printed")
    bench.proxy.choose = lambda endpoint: Trouble.UNAVAILABLE if endpoint == "events.add_batch" else None
    seen: list[TaskStatus] = []

    def back() -> None:
        seen.append(bench.status)
        bench.proxy.choose = lambda _endpoint: None

    clock.at(600, back)
    reporter.report(console, ended(0, ExitContext()))
    assert seen == [TaskStatus.COMPLETED]
    assert "what it printed" in bench.console
    report = run.exit_report()
    assert report is not None and report.posted


def test_after_an_outage_the_console_comes_before_the_status(bench: Bench) -> None:
    """Who waits for the status reads the console then."""
    reporter, console = reporting(bench)
    console.write_line("what it printed")
    bench.proxy.choose = lambda _endpoint: Trouble.UNAVAILABLE
    order: list[str] = []
    bench.proxy.on_answer = lambda endpoint, _request, status: order.append(endpoint) if status == 200 else None
    bench.clock.at(300, lambda: setattr(bench.proxy, "choose", lambda _endpoint: None))
    reporter.report(console, ended(0, ExitContext()))
    assert bench.status is TaskStatus.COMPLETED
    assert order.index("events.add_batch") < order.index("tasks.completed")
    assert "what it printed" in bench.console


# ---------------------------------------------------------------- a later start takes over


def test_a_server_that_does_not_answer_hides_no_later_start(bench: Bench) -> None:
    """It accepts, and says nothing: each call waits for a minute."""
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen(16)
        settings = ApiSettings(
            api_server=f"http://127.0.0.1:{silent.getsockname()[1]}",
            access_key="a",
            secret_key=bench.settings.secret_key,
        )
        ours, stop = threading.Event(), StopRequest()
        ours.set()
        watch = Watch(
            Client(settings, timeouts=(5, 60)),
            WatchedRun(TaskId(bench.task), WorkerId("w"), still_ours=ours.is_set),
            stop,
            SYSTEM,
            ping_interval=60,
            callback_limit=0,
            meters=Meters(UsageReader(SYSTEM, GpuReader([]))),
        )
        watch.start()
        time.sleep(4)  # it waits for its first answer
        assert not stop.is_made()
        ours.clear()
        wait_until("the run to be fenced", lambda: stop.reason is StopReason.FENCED, timeout=FENCE_S)
    watch.finish()
