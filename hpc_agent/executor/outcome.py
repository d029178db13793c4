"""How a run ended, as a status, a reason and an exit code. Pure."""

from __future__ import annotations

import signal
from dataclasses import dataclass
from typing import Literal

from hpc_agent.domain.verdict import in_one_line
from hpc_agent.executor.stop import Why

Final = Literal["completed", "failed", "stopped", "none"]


@dataclass(frozen=True)
class Outcome:
    status: Final
    reason: str
    exit_code: int
    """Of this program: the user's process's own, 128 + n for signal n, 1 when it never started."""
    interrupted: bool = False
    started: bool = True
    """False if the user's process never ran; the console then has the reason in full."""

    @property
    def last_line(self) -> str:
        """What the console ends with, in the reference's words where it has some."""
        if self.status == "completed":
            return "Process completed successfully"
        if not self.started:
            return "The task could not be prepared"
        if self.status == "failed":
            return f"Process failed: {self.reason}"
        return f"Process terminated: {self.reason}"


def ended(code: int, why: Why | None) -> Outcome:
    """The process ended with ``code`` (negative: signal), after ``why`` if somebody asked it to."""
    exit_code = 128 - code if code < 0 else code
    if why is Why.TAKEN_BACK:
        return Outcome("none", why.value, exit_code or 1)
    if why is Why.SIGNAL:
        return Outcome(
            "stopped", f"{why.value} (cancelled, preempted or out of time)", exit_code or 1, interrupted=True
        )
    if why is not None:
        return Outcome("stopped", why.value, exit_code or 1)
    if code == 0:
        return Outcome("completed", "worker execution done", 0)
    if code < 0:
        return Outcome("failed", f"worker execution was ended by {_signal(-code)}", exit_code)
    return Outcome("failed", f"worker execution exit code {code}", exit_code)


def never_started(reason: str) -> Outcome:
    """The task could not be prepared."""
    return Outcome("failed", in_one_line(reason), 1, started=False)


def _signal(number: int) -> str:
    try:
        name = signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
    hint = ", as the kernel does when memory runs out" if number == signal.SIGKILL else ""
    return f"{name}{hint}"
