"""Waits for the user's process, and climbs the ladder TERM → KILL when it has to end."""

from __future__ import annotations

import signal
from collections.abc import Callable

from hpc_agent.clock import Clock
from hpc_agent.domain.termination import TerminationCause
from hpc_agent.executor.interruption import CAUSE_S, Deadline, Interruption
from hpc_agent.executor.stop import StopReason, StopRequest
from hpc_agent.process import StopTimeouts, Supervised

_TICK_S = 0.2
"""How long a stop waits to be noticed at most; the process's own end is noticed at once."""
_SIGNAL_LAG_S = 0.5
"""How long after the end of the task's process the job's SIGTERM may reach this one."""
_TERMINATED = (-signal.SIGTERM, 128 + signal.SIGTERM)
_BY_SCHEDULER = frozenset(TerminationCause) - {TerminationCause.SOMEBODY, TerminationCause.UNKNOWN}
_REPORT_S = 10.0
"""Of the time ahead of a limit, what is kept for the report."""


class ProcessSupervisor:
    """``run`` once. ``say`` takes lines for the task's console; ``at_limit`` is what the process gets then."""

    def __init__(
        self,
        child: Supervised,
        say: Callable[[str], None],
        stop: StopRequest,
        interruption: Interruption,
        deadline: Deadline,
        clock: Clock,
        grace: StopTimeouts,
        at_limit: signal.Signals = signal.SIGTERM,
    ) -> None:
        self._child = child
        self._say = say
        self._stop = stop
        self._interruption = interruption
        self._deadline = deadline
        self._clock = clock
        self._grace = grace
        self._at_limit = at_limit
        self._kill_after: float | None = None
        """Set once the process was told to end."""
        self._kill_at: float | None = None
        self._hurried = False
        self.by_itself = False
        """Whether the process ended before anything asked it to."""

    def run(self) -> int:
        """Until the process ended and all it started is gone; returns its exit code (negative: the signal).

        One that outlives SIGKILL has it for its end: it was told to end for a reason, and that is how the task ends.
        """
        while (code := self._child.wait(_TICK_S)) is None:
            if self._deadline.is_due():
                self._stop.ask(StopReason.TIME_LIMIT)
            if self._stop.signalled:
                self._interruption.ask()
            self._ladder(self._clock.monotonic())
            self._child.reap_orphans()
            if self._hangs(self._clock.monotonic()):
                return -signal.SIGKILL
        self.by_itself = self._stop.why is None
        # Whatever it left behind must not outlive it: nobody would count its time or read its output.
        self._child.sweep(lambda: self._clock.sleep(0.05))
        if code:
            self._await_signal(terminated=code in _TERMINATED)
        return code

    def _await_signal(self, *, terminated: bool) -> None:
        """Find out whether the process failed because its job is being ended.

        The scheduler signals the processes of a job one after the other, and this one may be the last; on a busy
        machine some time after the process has ended. ``terminated``: it ended by SIGTERM, so the scheduler is asked.
        """
        until = self._clock.monotonic() + _SIGNAL_LAG_S
        while self._stop.why is None and self._clock.monotonic() < until:
            self._clock.sleep(_SIGNAL_LAG_S / 10)
        if self._stop.why is None and terminated and self._interruption.cause(CAUSE_S) in _BY_SCHEDULER:
            self._stop.ask(StopReason.SIGNAL)

    def _ladder(self, now: float) -> None:
        if self._stop.why is None or self._stop.is_held(now):
            return
        if self._kill_after is None:
            self._kill_after = now + self._begin(self._stop.why)
        if self._stop.signalled and not self._hurried:
            # Whatever it was promised before: Slurm's own patience (KillWait) runs now.
            self._hurried = True
            self._kill_after = min(self._kill_after, now + self._grace.term)
        if now >= self._kill_after:
            self._kill(now)

    def _begin(self, why: StopReason) -> float:
        """Tell the process; returns the seconds that it has."""
        if why is StopReason.FENCED:
            return 0.0
        number, grace = signal.SIGTERM, self._grace.term
        if why is StopReason.TIME_LIMIT:
            number = self._at_limit
            grace = max(self._deadline.ahead - _REPORT_S, self._deadline.ahead / 2)
        self._child.signal(number)
        self._say(f"Stopping: {why.value}; {number.name} is sent, and it has {grace:g} s to end")
        return grace

    def _kill(self, now: float) -> None:
        self._child.signal(signal.SIGKILL)
        if self._kill_at is None:
            self._kill_at = now
            self._say("Still running when its time was over: killing it")

    def _hangs(self, now: float) -> bool:
        if self._kill_at is None or now - self._kill_at <= self._grace.kill:
            return False
        self._say(
            f"Process {self._child.pid} is still there {self._grace.kill:g} s after SIGKILL: it hangs in the kernel, "
            "usually on a file system"
        )
        return True
