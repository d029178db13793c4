"""The daemon's staging in threads: one user's tasks do not hold up another's, and each ends with a sentence."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from manual_clock import ManualClock
from msgspec.structs import replace
from silent_server import silent_server
from waiting import equals, wait_until

from hpc_agent.clock import SYSTEM, Clock
from hpc_agent.config.load import load
from hpc_agent.config.settings import AllSettings
from hpc_agent.daemon.login_staging import PREPARING, LoginStaging
from hpc_agent.domain.attempt import Attempt, attempt_for
from hpc_agent.domain.ids import QueueId, TaskId
from hpc_agent.domain.queue import Queue
from hpc_agent.domain.task import Requirements, Task, TaskContainer, TaskScript
from hpc_agent.errors import ContainerError, SourceError
from hpc_agent.staging import StagedTask, TaskStager, UnexpectedStagingError, retry_staging
from hpc_agent.wake_up import WakeUp

QUEUE = Queue(QueueId("q"), "gpu")


@pytest.fixture
def settings(tmp_path: Path) -> AllSettings:
    conf = tmp_path / "clearml.conf"
    conf.write_text(f'hpc {{ root: "{tmp_path}/hpc", scratch_dir: "{tmp_path}/scratch" }}\n')
    return load(conf, {}).settings


class Pool:
    """A daemon's pool, and what its loop does with it."""

    def __init__(self, settings: AllSettings, clock: Clock = SYSTEM) -> None:
        self.done = WakeUp()
        self.pool = LoginStaging(TaskStager(settings, SYSTEM), self.done, clock)

    def start(self, task: Task) -> Attempt:
        attempt = attempt_for("cluster", QUEUE.id, task.id, "now")
        assert self.pool.get(attempt, task, QUEUE, wait=False) is None
        return attempt

    def wait(self, attempt: Attempt, task: Task) -> StagedTask:
        for _ in range(120):
            if staged := self.pool.get(attempt, task, QUEUE, wait=False):
                return staged
            self.done.wait(0.5)
        raise AssertionError("it was not staged")


def script(text: str = "print(1)\n", **fields: object) -> TaskScript:
    return TaskScript(entry_point="run.py", diff=text, requirements=Requirements(pip=()), **fields)  # type: ignore[arg-type]


def test_repositories_that_never_answer_hold_up_their_user_only(settings: AllSettings, tmp_path: Path) -> None:
    pool = Pool(settings)
    with silent_server() as address:
        for number in range(8):
            silent = script("", repository=f"http://{address}/{number}.git", branch="main")
            pool.start(Task(TaskId(f"eve{number}"), user="eve", script=silent))
        repository = tmp_path / "code"
        git = ["git", "-c", "user.name=a", "-c", "user.email=a@b", "-C", str(repository)]
        repository.mkdir()
        (repository / "run.py").write_text("print(1)\n")
        for words in (["init", "--quiet", "-b", "main"], ["add", "."], ["commit", "--quiet", "-m", "x"]):
            subprocess.run([*git, *words], check=True)
        mine = script("", repository=f"file://{repository}", branch="main")
        task = Task(TaskId("ann"), user="ann", script=mine)
        assert pool.wait(pool.start(task), task).source.commit


@pytest.mark.parametrize(
    "task",
    [
        Task(TaskId("t"), script=script(repository="ssh://127.0.0.1:-1/x")),
        Task(TaskId("t"), script=script(repository="http://[::1/x.git")),
        Task(TaskId("t"), script=script(repository="https://host:port/x.git")),
        Task(TaskId("t"), script=script(repository="x" * 150_000)),
        Task(TaskId("t"), script=script(repository="\ud800")),
        Task(TaskId("t"), script=script(binary="python\0")),
        Task(TaskId("t"), script=script("\udfff")),
        Task(TaskId("t"), script=replace(script(), entry_point="a" * 150_000)),
        Task(TaskId("t"), script=replace(script(), working_dir="a\0b")),
    ],
    ids=range(9),
)
def test_task_with_a_value_that_nothing_can_use_fails_with_a_sentence(settings: AllSettings, task: Task) -> None:
    pool = Pool(settings)
    with pytest.raises(SourceError, match=r"repository|task's") as error:
        pool.wait(pool.start(task), task)
    assert not isinstance(error.value, UnexpectedStagingError)
    assert len(str(error.value)) < 1000


def test_the_step_of_a_staging_that_takes_long_is_shown(tmp_path: Path) -> None:
    program, go_on = tmp_path / "apptainer", tmp_path / "go on"
    program.write_text(
        f"#!/bin/sh\nuntil [ -e '{go_on}' ]; do sleep 0.1; done; echo 'FATAL: manifest unknown'; exit 1\n"
    )
    program.chmod(0o755)
    conf = tmp_path / "clearml.conf"
    conf.write_text(
        f'hpc {{ root: "{tmp_path}/hpc", scratch_dir: "{tmp_path}/scratch" }}\n'
        f'hpc.container {{ runtime: apptainer, program: "{program}" }}\n'
    )
    clock = ManualClock()
    pool = Pool(load(conf, {}).settings, clock)
    task = Task(TaskId("t"), script=script(), container=TaskContainer("lab/tools:1"))
    attempt = pool.start(task)
    assert pool.pool.status_message(attempt) == PREPARING
    clock.sleep(60)
    step = f"{PREPARING}: Fetching the image lab/tools:1 into {tmp_path}/hpc/images"
    wait_until("the step", lambda: pool.pool.status_message(attempt), equals(step))
    go_on.touch()
    with pytest.raises(ContainerError, match="its registry has no image of this name and tag"):
        pool.wait(attempt, task)
    assert pool.pool.status_message(attempt) == PREPARING


@pytest.mark.parametrize("error", [ValueError("no int"), IndexError("3"), RecursionError(), OSError(5, "I/O error")])
def test_an_unforeseen_error_is_tried_a_few_times_and_ends_with_a_message(error: Exception) -> None:
    said: list[str] = []
    tries = []

    def fail() -> None:
        tries.append(1)
        raise error

    with pytest.raises(SourceError, match=type(error).__name__):
        retry_staging(fail, said.append, ManualClock())
    assert len(tries) == len(said) == 3
    assert "cannot be prepared" in said[0]
