"""Process of a task in a pilot: its script, whose agent waits at a gate until its slot is free, and goes on for a
moment when the task's own process has ended, to report that."""

from __future__ import annotations

import os
import signal
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import msgspec
import psutil

from hpc_agent.child_processes import end_with_parent
from hpc_agent.process import background, programs
from hpc_agent.schedulers.pilots.board import PilotTask, StopCause
from hpc_agent.schedulers.pilots.gate import GATE, Grant, has_ended, make_gate, open_gate, send_signal_at_end


class TaskProcess(msgspec.Struct):
    """One task's process, from its start to the moment when it is waited for. Times are monotonic."""

    number: int
    task: PilotTask
    pid: int
    gate: int
    """Our end of its agent's gate; -1 when it is closed."""
    grant: Grant = msgspec.field(default_factory=Grant)
    started: float = 0.0
    """When it got its slot."""
    has_slot: bool = False
    stop: StopCause | None = None
    kill_at: float = 0.0
    was_warned: bool = False

    def let_go(self, grant: Grant, now: float) -> None:
        """Give it its slot."""
        self.grant, self.started, self.has_slot = grant, now, True
        send_signal_at_end(self.gate)
        open_gate(self.gate, grant)

    def only_reports(self) -> bool:
        """Whether the task's own process has ended, and its agent says so; asked until it is true."""
        return has_ended(self.gate)

    def close_gate(self) -> None:
        """An agent that still waits there ends."""
        if self.gate >= 0:
            os.close(self.gate)
            self.gate = -1

    def signal(self, number: int) -> None:
        programs.kill_group(self.pid, number)

    def kill(self) -> None:
        """With all that descends from it, whatever group it moved to."""
        family = []
        with suppress(psutil.Error):
            family = psutil.Process(self.pid).children(recursive=True)
        self.signal(signal.SIGKILL)
        for process in family:
            with suppress(psutil.Error):
                process.kill()

    def poll(self) -> int | None:
        """Its exit code (negative: the signal), once; None while it runs. With it ends what is left of its group."""
        if os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
            return None
        # Not reaped yet: until then no other process can get this group's number.
        self.signal(signal.SIGKILL)
        _, status = os.waitpid(self.pid, 0)
        self.close_gate()
        return os.waitstatus_to_exitcode(status)

    def wait(self) -> None:
        """Until it has ended, which it does: it was killed."""
        os.waitpid(self.pid, 0)
        self.close_gate()


def start(number: int, task: PilotTask, env: Mapping[str, str]) -> TaskProcess:
    """Start a task's script up to its gate. Only for callers without other threads.

    Raises:
        ProcessError: it could not be started.
    """
    ours, theirs = make_gate()
    try:
        pid = background.spawn_detached(
            [task.script],
            env={**env, GATE: str(theirs)},
            cwd=Path(task.workdir),
            output=Path(task.output),
            first=end_with_parent,
            pass_fds=(theirs,),
        )
    except BaseException:
        os.close(ours)
        raise
    finally:
        os.close(theirs)
    return TaskProcess(number, task, pid, ours)


def kill_orphans(known: set[int]) -> None:
    """End and reap children of ours other than the tasks' own processes: ended tasks left them."""
    for child in psutil.Process().children():
        if child.pid not in known:
            with suppress(psutil.Error):
                child.kill()
            with suppress(ChildProcessError):
                os.waitpid(child.pid, os.WNOHANG)
