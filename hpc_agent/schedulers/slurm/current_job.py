"""Current job: how a job asks Slurm why it gets SIGTERM, how much time is left, and to be requeued."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Mapping
from pathlib import Path

from hpc_agent.domain.ids import JobId
from hpc_agent.domain.job import CurrentJob
from hpc_agent.errors import ProcessError
from hpc_agent.logs import EventLog
from hpc_agent.process import programs
from hpc_agent.process.programs import CompletedProcess
from hpc_agent.schedulers.slurm import answers, commands
from hpc_agent.schedulers.slurm.commands import for_queries
from hpc_agent.schedulers.slurm.delimited_table import new_delimiter

log = EventLog("schedulers.slurm.current_job")

_TIMEOUT_S = 8.0
"""Between SIGTERM and SIGKILL lie 30 s (KillWait), and most of them are the task's."""
_TRIES = 3
_CANCEL_TIMEOUT_S = 60.0
_END_ANNOUNCED = re.compile(rb"error: \*\*\* (?:JOB|STEP) .* CANCELLED AT ")
_TAIL = 16 * 1024
_OUTPUTS = (1, 2)


class SlurmCurrentJob:
    """See ``schedulers.base.CurrentJobClient``."""

    def __init__(self, job: JobId, environ: Mapping[str, str]) -> None:
        self._job = job
        self._environ = for_queries(environ)

    def look(self) -> CurrentJob | None:
        delimiter = new_delimiter()
        try:
            answer = self._asked(commands.squeue_own(self._job, delimiter))
            if answer.ok:
                return answers.parse_own_job(answer.stdout, delimiter)
            log.warning("job.state_unavailable", job=self._job, answer=answer.last_words)
        except (ProcessError, ValueError) as error:
            log.warning("job.state_unavailable", job=self._job, error=error)
        return None

    def _asked(self, query: list[str]) -> CompletedProcess:
        """Run again what Slurm's signal ended: it signals a job's processes one after the other, and so those too that
        the job starts once it has its own signal."""
        for _ in range(_TRIES):
            answer = programs.run(query, timeout=_TIMEOUT_S, env=self._environ)
            if answer.returncode >= 0:
                break
        return answer

    def is_end_announced(self) -> bool | None:
        """slurmstepd writes it before it signals the first process (docs/slurm.md#how-slurm-ends-a-job).

        It may be of an earlier start of the job, whose output goes on in the same file.
        """
        found = [_tail(number) for number in _OUTPUTS]
        if any(text is not None and _END_ANNOUNCED.search(text) for text in found):
            return True
        return None if None in found else False

    def cancel(self) -> str:
        """Cancel it, as its owner would: SIGTERM, and SIGKILL after Slurm's KillWait. Empty, or why that cannot be."""
        try:
            answer = programs.run(commands.scancel([self._job]), timeout=_CANCEL_TIMEOUT_S, env=self._environ)
        except ProcessError as error:
            return str(error)
        return "" if answer.ok else answer.last_words

    def requeue(self) -> str:
        try:
            answer = programs.run(commands.requeue(self._job), timeout=_TIMEOUT_S, env=self._environ)
        except ProcessError as error:
            return str(error)
        return "" if answer.ok else answer.last_words

    def release(self) -> None:
        """Slurm takes back what a job has when all of it has ended."""


def _tail(number: int) -> bytes | None:
    """The end of the file that this process has open as ``number``; None where it is of another kind, or unreadable."""
    try:
        if not stat.S_ISREG(os.fstat(number).st_mode):
            return None
        with Path(f"/proc/self/fd/{number}").open("rb") as file:
            file.seek(max(os.fstat(number).st_size - _TAIL, 0))
            return file.read(_TAIL)
    except OSError:
        return None
