"""Memory of the job of a task's run, written down while the run goes on."""

from __future__ import annotations

import signal

from hpc_agent.domain.outcome import out_of_memory
from hpc_agent.runs.attempt_records import MemoryRecord
from hpc_agent.runs.directory import RunDirectory
from hpc_agent.schedulers.base import JobVariables
from hpc_agent.telemetry.memory import JobMemory

_KILLED = (-signal.SIGKILL, 128 + signal.SIGKILL)


class MemoryMonitor:
    """Memory of the job, written down for the daemon in case this agent is killed along with the task."""

    def __init__(self, directory: RunDirectory, job: JobVariables | None) -> None:
        self._directory = directory
        granted = job.memory_mb if job else None
        self._memory = JobMemory(granted, is_shared=bool(job and job.shares_control_group))
        self._written_mb = 0.0

    def update(self) -> None:
        self._memory.look()
        peak = self._memory.peak_mb
        if peak > 1.05 * self._written_mb:
            self._written_mb = peak
            self._directory.write_memory(MemoryRecord(used_mb=peak, limit_mb=self._memory.limit_mb))

    def explain(self, code: int) -> str:
        """Sentence for an exit code that means that memory ran out; empty for any other."""
        memory = self._memory
        if memory.has_run_out() or (code in _KILLED and memory.is_short):
            return out_of_memory(memory.peak_mb, memory.limit_mb)
        return ""
