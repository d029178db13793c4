"""Parts of an executor where something is unusual: a site's build script, a server's odd answer, a stalled share."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import pytest
from manual_clock import ManualClock

from hpc_agent.api.client import Client
from hpc_agent.api.events import EventsApi
from hpc_agent.cancellation import CancellableClock, Cancelled
from hpc_agent.clock import SYSTEM, Waitable
from hpc_agent.config.settings import AllSettings
from hpc_agent.domain.attempt import Attempt, attempt_for
from hpc_agent.domain.ids import AttemptId, QueueId, TaskId, WorkerId
from hpc_agent.domain.queue import Queue, QueueEntry
from hpc_agent.domain.status import TaskStatus
from hpc_agent.errors import EnvironmentBuildError
from hpc_agent.executor.agent_identity import AgentIdentity, identify
from hpc_agent.executor.build_script import BuildScript, add_init
from hpc_agent.executor.console import Console
from hpc_agent.executor.stall_guard import StallGuard
from hpc_agent.executor.stop_conditions import StopConditions, StopReason, StopRequest, handled_signals
from hpc_agent.executor.task_outcome import ExitContext, ended
from hpc_agent.executor.watch import Meters, Watch, WatchedRun
from hpc_agent.runs.attempt_records import ClaimRecord
from hpc_agent.runs.directory import RUN_DIR, RunsFolder
from hpc_agent.schedulers.base import NullCurrentJob
from hpc_agent.sources.workspace import EntryKind, EntryPoint, Workspace
from hpc_agent.telemetry.shipper import ConsoleSource
from hpc_agent.telemetry.usage import UsageReader
from hpc_agent.wire.task_state import RUN_TOKEN, TaskState

TASK = TaskId("a" * 32)
QUEUE = QueueId("q" * 32)


class TestIdentity:
    """Whose run directory a start of an agent uses."""

    @staticmethod
    def of(**environ: str) -> AgentIdentity:
        return identify(AllSettings(), environ)

    def test_the_daemons_if_it_submitted_the_job(self, tmp_path: Path) -> None:
        me = self.of(**{RUN_DIR: str(tmp_path / "run"), "SLURM_JOB_ID": "7"})
        assert me.daemon_managed
        assert me.directory(RunsFolder(tmp_path), TASK, None).path == tmp_path / "run"

    def test_that_of_the_queue_entry(self, tmp_path: Path) -> None:
        me, runs = self.of(SLURM_JOB_ID="7", SLURM_CLUSTER_NAME="c"), RunsFolder(tmp_path)
        queue = Queue(QUEUE, "gpu", (QueueEntry(TASK, "t"),))
        assert me.directory(runs, TASK, queue).path == runs.of(attempt_for("c", QUEUE, TASK, "t")).path

    def test_one_of_its_own_without_an_entry(self, tmp_path: Path) -> None:
        runs = RunsFolder(tmp_path)
        first, second = (self.of(SLURM_JOB_ID=job).directory(runs, TASK, Queue(QUEUE, "gpu")).path for job in "78")
        assert first != second

    def test_that_of_its_start_before(self, tmp_path: Path) -> None:
        runs = RunsFolder(tmp_path)
        for number, owner in enumerate(("job:8", "job:7")):
            run = runs.of(Attempt(TASK, AttemptId(f"{number:08}"))).create()
            run.write_claim(ClaimRecord(state="won", at=ManualClock().now(), owner=owner))
        restarted = self.of(SLURM_JOB_ID="7", SLURM_RESTART_COUNT="1")
        assert restarted.directory(runs, TASK, None).path.name == "00000001"
        other = self.of(SLURM_JOB_ID="9", SLURM_RESTART_COUNT="1")
        assert other.directory(runs, TASK, None).path.name not in ("00000000", "00000001")

    @pytest.mark.parametrize(
        ("environ", "owner", "worker"),
        [
            ({"SLURM_JOB_ID": "9", "SLURM_ARRAY_JOB_ID": "7", "SLURM_ARRAY_TASK_ID": "2"}, "job:7_2", "slurm:7_2"),
            ({"SLURM_JOB_ID": "7"}, "job:7", "slurm:7"),
            ({"HPC_AGENT_JOB_ID": "7"}, "job:7", "job:7"),
        ],
    )
    def test_its_names(self, environ: Mapping[str, str], owner: str, worker: str) -> None:
        me = self.of(**environ)
        assert me.owner == owner
        assert me.worker.endswith(f":{worker}")

    def test_an_agent_without_a_job(self) -> None:
        assert self.of().owner == f"agent:{self.of().host}:{os.getpid()}"


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    (tmp_path / "train.py").write_text("print('a')\n", encoding="utf-8")
    return Workspace(tmp_path, tmp_path, EntryPoint(EntryKind.PYTHON, "train.py"))


class TestInit:
    """``agent.force_task_init``."""

    def test_it_is_added_once(self, workspace: Workspace) -> None:
        assert add_init(workspace) == "Added a call of Task.init to train.py"
        assert add_init(workspace) == "train.py calls Task.init itself"
        assert (workspace.cwd / "train.py").read_text(encoding="utf-8").count("Task.init") == 1

    @pytest.mark.parametrize(
        "entry", [EntryPoint(EntryKind.PROGRAM, "run.sh", "bash"), EntryPoint(EntryKind.PYTHON, "note.ipynb")]
    )
    def test_other_files_stay_as_they_are(self, workspace: Workspace, entry: EntryPoint) -> None:
        (workspace.cwd / entry.text).write_text("a", encoding="utf-8")
        other = Workspace(workspace.root, workspace.cwd, entry)
        assert add_init(other) == "agent.force_task_init changes Python scripts only"
        assert (workspace.cwd / entry.text).read_text(encoding="utf-8") == "a"


class TestBuildScript:
    """``agent.custom_build_script``."""

    @pytest.fixture
    def run(self, workspace: Workspace, tmp_path: Path) -> Callable[..., tuple[object, list[str]]]:
        def run(text: str | None, **script: str) -> tuple[object, list[str]]:
            program = tmp_path / "build.sh"
            if text is not None:
                program.write_text(f"#!/bin/sh\n{text}\n", encoding="utf-8")
                program.chmod(0o755)
            said: list[str] = []
            build = BuildScript(str(program), {"script": script}, workspace, tmp_path / "build")
            return build.run({"PATH": os.environ["PATH"]}, said.append), said

        return run

    def test_what_it_chose_is_used(self, run: Callable[..., tuple[object, list[str]]], workspace: Workspace) -> None:
        chosen = '{"binary": "/bin/sh", "entry_point": "%s/train.py", "working_dir": "%s"}'
        text = chosen % (workspace.root, workspace.root)
        built, said = run(f"echo building; echo '{text}' > \"$CLEARML_CUSTOM_BUILD_OUTPUT\"")
        assert built is not None
        assert said[-1] == "building"

    @pytest.mark.parametrize(
        ("text", "why"),
        [
            (None, "does not exist"),
            ("true", "chose nothing"),
            ("echo 5 > $CLEARML_CUSTOM_BUILD_OUTPUT", "cannot be read"),
            (
                'echo \'{"binary":"/none","entry_point":"/n","working_dir":"/n"}\' > $CLEARML_CUSTOM_BUILD_OUTPUT',
                "chose /none, which does not exist",
            ),
        ],
    )
    def test_without_a_choice_the_usual_way_goes_on(
        self, run: Callable[..., tuple[object, list[str]]], text: str | None, why: str
    ) -> None:
        built, said = run(text)
        assert built is None
        assert why in said[-1] and said[-1].endswith("going on without it")

    def test_its_failure_is_the_tasks(self, run: Callable[..., tuple[object, list[str]]]) -> None:
        with pytest.raises(EnvironmentBuildError, match="ended with exit code 3"):
            run("exit 3")

    def test_a_long_diff_does_not_keep_it_from_starting(self, run: Callable[..., tuple[object, list[str]]]) -> None:
        _, said = run("printf '%s' \"$CLEARML_CUSTOM_BUILD_TASK_CONFIG_JSON\"", diff="x" * 200_000, binary="python")
        assert '"diff":""' in said[1] and '"binary":"python"' in said[1]


class TestStallGuard:
    """A shared file system that does not answer."""

    def test_an_answer_and_an_error_are_handed_on(self) -> None:
        guard = StallGuard()
        assert guard.call(lambda: 5, 0) == 5
        with pytest.raises(OSError, match="stale"):
            guard.call(lambda: _raise(OSError("stale")), 0)

    def test_it_is_waited_for_until_it_answers_again(self) -> None:
        guard, answers = StallGuard(), threading.Event()
        assert guard.call(lambda: answers.wait(60), default=None) is None
        answers.set()
        assert guard.call(lambda: 5, default=0) == 5


def _raise(error: BaseException) -> int:
    raise error


@dataclass
class Tasks:
    """The server's answers to the looks of a watch."""

    seen: TaskState | None = None
    error: Exception | None = None
    looks: int = 0

    def get_states(self, tasks: list[TaskId], **_options: object) -> dict[TaskId, TaskState]:
        self.looks += 1
        if self.error is not None and self.looks == 1:
            raise self.error
        return dict.fromkeys(tasks, self.seen) if self.seen else {}


@dataclass
class _Services:
    tasks: Tasks


def seen(status: TaskStatus = TaskStatus.IN_PROGRESS, stamp: str = "1.7", worker: str = "n1:7") -> TaskState:
    return TaskState(status, "", "", {RUN_TOKEN: stamp} if stamp else {}, worker)


class TestWatch:
    """What ends a run: its user, another run, or nothing."""

    @staticmethod
    def stopped_by(tasks: Tasks, run: WatchedRun, *, at_least: int = 1) -> StopReason | None:
        stop, looked = StopRequest(), threading.Event()

        class Clock(ManualClock):
            """No look waits."""

            def wait(self, event: Waitable, seconds: float) -> bool:
                if tasks.looks > at_least + 1:
                    looked.set()
                return event.wait(0.001)

        watch = Watch(
            cast(Client, _Services(tasks)),
            run,
            stop,
            Clock(),
            ping_interval=1e9,
            callback_limit=0,
            meters=Meters(cast(UsageReader, None)),
        )
        watch.start()
        try:
            while stop.reason is None and not looked.wait(0.01):
                pass
        finally:
            watch.finish()
        return stop.reason

    RUN = WatchedRun(TASK, WorkerId("n1:7"), "1.7")

    @pytest.mark.parametrize(
        ("answer", "why"),
        [
            (seen(), None),
            (seen(stamp="", worker=""), None),
            (None, StopReason.TAKEN_BACK),
            (seen(stamp="2.8"), StopReason.FENCED),
            (seen(stamp="", worker="n2:8"), StopReason.FENCED),
            (seen(TaskStatus.STOPPED), StopReason.ABORT),
            (seen(TaskStatus.COMPLETED), None),  # by the script itself
            (seen(TaskStatus.CREATED, stamp="", worker=""), StopReason.TAKEN_BACK),
        ],
        ids=["ours", "not stamped yet", "deleted", "another run", "another agent", "stopped", "completed", "reset"],
    )
    def test_what_the_server_shows(self, answer: TaskState | None, why: StopReason | None) -> None:
        assert self.stopped_by(Tasks(answer), self.RUN) is why

    def test_no_answer_ends_nothing(self) -> None:
        tasks = Tasks(seen(), LookupError("an odd answer"))
        assert self.stopped_by(tasks, self.RUN, at_least=2) is None
        assert tasks.looks > 2

    def test_the_run_directory_is_anothers(self) -> None:
        run = WatchedRun(TASK, WorkerId("n1:7"), "1.7", still_ours=lambda: False)
        # Another thread looks at the claim; the looks at the server may be a few ahead of it.
        assert self.stopped_by(Tasks(seen()), run, at_least=1000) is StopReason.FENCED


class TestStopRequest:
    """Several may ask for an end; a task with an abort callback of its own is given time."""

    def test_the_first_one_says_why(self) -> None:
        stop = StopRequest()
        stop.request(StopReason.ABORT, hold_until=30)
        stop.request(StopReason.INTERRUPT)
        assert (stop.reason, stop.is_held(29)) == (StopReason.ABORT, True)

    @pytest.mark.parametrize("why", [StopReason.SIGNAL, StopReason.FENCED])
    def test_the_scheduler_and_another_run_do_not_wait(self, why: StopReason) -> None:
        stop = StopRequest()
        stop.request(StopReason.ABORT, hold_until=30)
        stop.request(why)
        assert (stop.reason, stop.is_held(0)) == (StopReason.ABORT, False)


class TestSignals:
    """What a signal means to an executor that prepares its task."""

    @pytest.fixture
    def stop(self) -> StopConditions:
        return StopConditions(NullCurrentJob(), 0, 60, ManualClock())

    @pytest.mark.parametrize(
        ("number", "reason"), [(signal.SIGINT, StopReason.INTERRUPT), (signal.SIGTERM, StopReason.SIGNAL)]
    )
    def test_it_ends_the_preparation(self, stop: StopConditions, number: signal.Signals, reason: StopReason) -> None:
        def prepare() -> None:
            os.kill(os.getpid(), number)
            CancellableClock(SYSTEM).sleep(300)

        with pytest.raises(Cancelled), handled_signals(stop.request, stop.deadline):
            stop.request.run_cancellable(prepare, "prepare")
        assert (stop.reason, stop.request.sigterm_received) == (reason, number == signal.SIGTERM)

    def test_the_warning_of_a_time_limit_ends_nothing(self, stop: StopConditions) -> None:
        with handled_signals(stop.request, stop.deadline):
            signal.raise_signal(signal.SIGUSR1)
            assert stop.request.run_cancellable(lambda: 7, "prepare") == 7
        assert stop.reason is None


@pytest.mark.parametrize(
    ("code", "context", "status", "reason"),
    [
        (0, ExitContext(out_of_memory="used 4 GB"), "completed", "worker execution done"),
        (-9, ExitContext(out_of_memory="used 4 GB of 4 GB"), "failed", "used 4 GB of 4 GB"),
        (-9, ExitContext(), "failed", "worker execution was ended by SIGKILL"),
        (-63, ExitContext(), "failed", "worker execution was ended by signal 63"),
        (3, ExitContext(), "failed", "worker execution exit code 3"),
    ],
)
def test_how_a_process_ended_is_said(code: int, context: ExitContext, status: str, reason: str) -> None:
    outcome = ended(code, context)
    assert (outcome.status, outcome.reason) == (status, reason)


def test_a_console_that_is_anothers_now_is_left_before_it_began(tmp_path: Path) -> None:
    """With --disable-monitoring nothing is sent either."""
    run = RunsFolder(tmp_path).of(Attempt(TASK, AttemptId("00000001"))).create()
    source = ConsoleSource(TASK, WorkerId("n1:7"), False)
    console = Console(run, source, cast(EventsApi, None), ManualClock(), ours=lambda: False, ship=False)
    console.drop()
    assert console.write_error == ""
