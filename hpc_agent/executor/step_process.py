"""Process of a task that the scheduler starts, as a step of the job, for a command of ours such as srun.

It does not descend from that command, which would take a SIGTERM as an order to kill the step at once. So the process
is found on this node by its environment, and signalled itself.
"""

from __future__ import annotations

import signal
from collections.abc import Callable

from hpc_agent.process.supervised import Supervised
from hpc_agent.telemetry.node_processes import NodeProcesses

STEP_OF = "HPC_AGENT_STEP_OF"
"""Variable by which the processes are found."""


class StepProcess:
    """See ``supervise.Stoppable``. ``command``: what asked the scheduler for the step; it ends with it."""

    def __init__(self, command: Supervised, processes: NodeProcesses) -> None:
        self._command = command
        self._processes = processes
        self._killed = False

    @property
    def pid(self) -> int:
        return self._command.pid

    def wait(self, timeout: float | None = None) -> int | None:
        return self._command.wait(timeout)

    def signal(self, number: int) -> bool:
        """Signal the process and what it has started; the command where they have not begun, or do not end."""
        found = self._processes.signal(number)
        if number != signal.SIGKILL:
            return bool(found) or self._command.signal(number)
        # The scheduler kills what the command asked for, if that is asked to end; killed, it could order nothing.
        self._command.signal(signal.SIGKILL if self._killed else signal.SIGTERM)
        self._killed = True
        return self._command.poll() is None

    def signal_chosen(self, number: int, chosen: Callable[[int], bool]) -> list[int]:
        return self._processes.signal_chosen(number, chosen)

    def has_left_processes(self) -> bool:
        """The scheduler ends with a step all that it has started."""
        return self._command.has_left_processes()

    def reap_orphans(self) -> None:
        self._command.reap_orphans()

    def sweep(self, pause: Callable[[], None]) -> None:
        self._command.sweep(pause)
