"""Supervision of the user's process: waits for its end, and ends it when a stop is requested.

The signals: SIGTERM; for a person's abort SIGINT to programs whose SDK keeps SIGTERM from them (``sdk_signals``);
SIGKILL after ``hpc.term_grace``.
"""

from __future__ import annotations

import signal
from collections.abc import Callable
from typing import Protocol

from hpc_agent.clock import Clock
from hpc_agent.domain.termination_cause import TerminationCause
from hpc_agent.executor.sdk_signals import has_sdk_handlers
from hpc_agent.executor.stop_conditions import CAUSE_S, StopConditions, StopReason
from hpc_agent.process.supervised import StopTimeouts

_TICK_S = 0.2
"""How long a stop waits to be noticed at most; the process's own end is noticed at once."""
_SIGNAL_LAG_S = 0.5
"""How long after the end of the task's process the job's SIGTERM may reach this one."""
_OUTPUT_S = 2.0
"""How long to read the end of the job's output may take."""
_TERMINATED = (-signal.SIGTERM, 128 + signal.SIGTERM)
_BY_SCHEDULER = frozenset(TerminationCause) - {TerminationCause.EXTERNAL_SIGNAL, TerminationCause.UNKNOWN}
_REPORT_S = 10.0
"""Of the time ahead of a limit, what is kept for the report."""
_BY_PERSON = frozenset({StopReason.ABORT, StopReason.TAKEN_BACK, StopReason.INTERRUPT})
"""Reasons for which SIGINT follows. At a time limit or a preemption a program may need all of its grace period for a
SIGTERM handler of its own, which SIGINT would interrupt; for an abort it can register an abort callback."""


class Stoppable(Protocol):
    """What a supervisor needs of a process, or of the ranks of a task; see ``process.supervised.Supervised``."""

    @property
    def pid(self) -> int: ...

    def wait(self, timeout: float | None = None) -> int | None: ...

    def signal(self, number: int) -> bool: ...

    def signal_chosen(self, number: int, chosen: Callable[[int], bool]) -> list[int]: ...

    def has_left_processes(self) -> bool: ...

    def reap_orphans(self) -> None: ...

    def sweep(self, pause: Callable[[], None]) -> None: ...


class ProcessSupervisor:
    """Supervisor of one process; ``run`` once.

    ``write_line`` takes lines for the task's console; ``at_limit`` is the signal ahead of the time limit.
    """

    def __init__(
        self,
        child: Stoppable,
        write_line: Callable[[str], None],
        stop: StopConditions,
        clock: Clock,
        timeouts: StopTimeouts,
        at_limit: signal.Signals = signal.SIGTERM,
    ) -> None:
        self._child = child
        self._write_line = write_line
        self._stop = stop
        self._request = stop.request
        self._clock = clock
        self._timeouts = timeouts
        self._at_limit = at_limit
        self._kill_after: float | None = None
        """Monotonic time of the SIGKILL, once the process was signalled."""
        self._interrupt_after: float | None = None
        """Monotonic time from which programs with the SDK's handlers get SIGINT."""
        self._interrupted: set[int] = set()
        self._had_handlers: set[int] = set()
        self._killed_at: float | None = None
        self._shortened = False
        self.ended_by_itself = False
        """Whether the process ended before anything asked it to."""

    def run(self) -> int:
        """Until the process ended and all it started is gone; returns its exit code (negative: the signal).

        One that outlives SIGKILL counts as ended by it: the task ends for the reason of its stop request.
        """
        while (code := self._child.wait(_TICK_S)) is None:
            if self._stop.deadline.is_due():
                self._request.request(StopReason.TIME_LIMIT)
            if self._request.sigterm_received:
                self._stop.termination.start()
            self._escalate(self._clock.monotonic())
            self._child.reap_orphans()
            if self._hangs(self._clock.monotonic()):
                return -signal.SIGKILL
        # First: what it started gets its grace period only if the job is known to be ending.
        self._await_signal(code)
        self.ended_by_itself = self._request.reason is None
        self._wait_for_descendants()
        # What it left behind must not outlive it: its time would not be counted, nor its output read.
        self._child.sweep(lambda: self._clock.sleep(0.05))
        return code

    def _await_signal(self, code: int) -> None:
        """Find out whether the process ended because its job is being ended.

        The scheduler signals the processes of a job one after the other, and this one may be the last; on a busy
        machine some time after the process has ended. One that saves at SIGTERM and ends with 0 has not completed.
        """
        announced = self._stop.termination.is_announced(_OUTPUT_S) if self._request.reason is None else False
        if code == 0 and announced is False:
            return
        until = self._clock.monotonic() + _SIGNAL_LAG_S
        while self._request.reason is None and self._clock.monotonic() < until:
            self._clock.sleep(_SIGNAL_LAG_S / 10)
        if self._request.reason is not None or not (announced or code in _TERMINATED):
            return
        if self._stop.termination.cause(CAUSE_S) in _BY_SCHEDULER:
            self._request.request(StopReason.SIGNAL)

    def _wait_for_descendants(self) -> None:
        """At a stop let what the process started end as well: a shell ends at once, its program saves."""
        self._request.release_hold()  # an abort callback ended with its process
        while self._request.is_made() and self._killed_at is None and self._child.has_left_processes():
            self._escalate(self._clock.monotonic())
            self._clock.sleep(_TICK_S)
            self._child.reap_orphans()

    def _escalate(self, now: float) -> None:
        if self._request.reason is None or self._request.is_held(now):
            return
        if self._kill_after is None:
            grace = self._terminate(self._request.reason)
            self._kill_after = now + grace
            if self._request.reason in _BY_PERSON and self._timeouts.interrupt:
                self._interrupt_after = now + min(self._timeouts.interrupt, grace / 2)
        if self._request.sigterm_received and not self._shortened:
            # The scheduler kills soon (Slurm: after KillWait), however long the process was given before.
            self._shortened = True
            self._kill_after = min(self._kill_after, now + self._timeouts.term)
        if now >= self._kill_after:
            self._kill(now)
        elif self._interrupt_after is not None and now >= self._interrupt_after:
            self._interrupt()

    def _terminate(self, reason: StopReason) -> float:
        """Signal the process; returns the seconds that it has to end."""
        if reason is StopReason.FENCED:
            return 0.0
        number, grace = signal.SIGTERM, self._timeouts.term
        if reason is StopReason.TIME_LIMIT:
            number = self._at_limit
            grace = max(self._stop.deadline.ahead - _REPORT_S, self._stop.deadline.ahead / 2)
        self._child.signal(number)
        self._write_line(f"Stopping: {reason.value}; {number.name} is sent, and it has {grace:g} s to end")
        return grace

    def _interrupt(self) -> None:
        """Send SIGINT once to each program with the SDK's handlers, also to those that a pool starts meanwhile."""
        found = self._child.signal_chosen(signal.SIGINT, self._is_to_be_interrupted)
        if found and not self._interrupted:
            self._write_line("Still running after SIGTERM, which ClearML's SDK may have kept from it: SIGINT is sent")
        self._interrupted |= set(found)

    def _is_to_be_interrupted(self, pid: int) -> bool:
        if pid in self._interrupted or not has_sdk_handlers(pid):
            return False
        # At its first look it may be about to become another program, which would not catch the signal.
        seen_before = pid in self._had_handlers
        self._had_handlers.add(pid)
        return seen_before

    def _kill(self, now: float) -> None:
        self._child.signal(signal.SIGKILL)
        if self._killed_at is None:
            self._killed_at = now
            self._write_line("Still running when its time was over: killing it")

    def _hangs(self, now: float) -> bool:
        if self._killed_at is None or now - self._killed_at <= self._timeouts.kill:
            return False
        self._write_line(
            f"Process {self._child.pid} is still there {self._timeouts.kill:g} s after SIGKILL: it hangs in the "
            "kernel, usually on a file system"
        )
        return True
