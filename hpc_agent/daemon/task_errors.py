"""Unforeseen errors of single tasks, met while one is prepared, submitted or decided on.

Its user reads of them at once, in the task's status message. After a few tries the task fails with the sentence, so
that it does not wait forever. What is wrong with the machine, and not with the task, fails none: a full disk would end
every task of the queue.
"""

from __future__ import annotations

import contextlib
import errno

import msgspec

from hpc_agent.clock import Clock
from hpc_agent.daemon.act import Actor
from hpc_agent.daemon.run_state import read
from hpc_agent.domain.actions import RejectTask
from hpc_agent.domain.attempt import Attempt
from hpc_agent.domain.outcome import in_one_line
from hpc_agent.domain.queue import Queue
from hpc_agent.domain.status import TaskStatus
from hpc_agent.errors import AuthError, HpcAgentError
from hpc_agent.file_records import CorruptFileError
from hpc_agent.logs import EventLog
from hpc_agent.redact import without_secrets
from hpc_agent.runs.attempt_records import TaskError
from hpc_agent.runs.directory import RunDirectory, RunsFolder

log = EventLog("task_errors")

TRIES = 3
PAUSES_S = (10.0, 30.0)
"""Between the first try and the second, and before every later one."""
_FORGOTTEN_AFTER_S = 3600.0
"""Seconds after which an error is counted from one again."""
_OF_THE_MACHINE = frozenset(
    getattr(errno, name)
    for name in (
        *("ENOSPC", "EDQUOT", "EROFS", "EIO", "ESTALE", "EACCES", "EPERM", "EMFILE", "ENFILE", "ENOMEM", "EAGAIN"),
        *("EINTR", "EBUSY", "ETIMEDOUT", "ENOTCONN", "ECONNREFUSED", "ECONNRESET", "EHOSTDOWN", "EHOSTUNREACH"),
        *("ENETDOWN", "ENETUNREACH", "ENODEV", "ENXIO", "EREMOTEIO", "ENOLCK", "EDEADLK", "EPIPE"),
    )
)


class UnreadableAttempt(msgspec.Struct, frozen=True):
    """Waiting task whose records do not show what was done before. ``has_job``: the scheduler knows a job of it."""

    queue: Queue
    error: Exception
    has_job: bool


class TaskErrorReporter:
    """Reporter of unforeseen errors to the users of their tasks."""

    def __init__(self, actor: Actor, runs: RunsFolder, clock: Clock) -> None:
        self._actor = actor
        self._runs = runs
        self._clock = clock
        self._known: dict[Attempt, TaskError] = {}
        self._due: dict[Attempt, float] = {}
        """When the next error of an attempt counts as another try."""

    def report(self, attempt: Attempt, error: Exception, queue: Queue, *, may_fail: bool) -> None:
        """Show the error on the task, and fail the task when it was tried often enough and ``may_fail``.

        Raises:
            HpcAgentError, OSError: as whatever this takes; the next pass meets the error again.
        """
        if self._clock.monotonic() < self._due.get(attempt, 0.0):
            return
        directory = self._runs.of(attempt)
        message = in_one_line(without_secrets(_describe(error)))
        if isinstance(error, AuthError) or _is_of_the_machine(error):
            self._pause(attempt, 1)
            self._actor.show_error(attempt, f"Waiting: the daemon has an error and tries again: {message}")
            return
        counted = self._count(attempt, directory, message)
        self._pause(attempt, counted.tries)
        if counted.tries >= TRIES and may_fail:
            self._fail(attempt, directory, queue, error, message)
        else:
            tries = f"try {counted.tries} of {TRIES}" if may_fail else "its job goes on"
            self._actor.show_error(attempt, f"The daemon could not go on with this task ({tries}): {message}")

    def pause(self, attempt: Attempt) -> float:
        """Seconds until it is worth another try."""
        return max(self._due.get(attempt, 0.0) - self._clock.monotonic(), 0.0)

    def forget(self, attempt: Attempt) -> None:
        """Drop the errors of an attempt that went well."""
        self._due.pop(attempt, None)
        if self._known.pop(attempt, None) is not None:
            self._runs.of(attempt).drop_task_error()

    def _count(self, attempt: Attempt, directory: RunDirectory, message: str) -> TaskError:
        before = self._known.get(attempt)
        if before is None:
            # Of a process before: `daemon --once` is a new one each time.
            with contextlib.suppress(OSError, CorruptFileError):
                before = directory.task_error()
        now = self._clock.now()
        is_old = before is None or (now - before.at).total_seconds() > _FORGOTTEN_AFTER_S
        counted = TaskError(at=now, tries=1 if before is None or is_old else before.tries + 1, message=message)
        self._known[attempt] = counted
        # Where it cannot be written this process counts alone.
        with contextlib.suppress(OSError):
            directory.create().write_task_error(counted)
        return counted

    def _pause(self, attempt: Attempt, tries: int) -> None:
        self._due[attempt] = self._clock.monotonic() + PAUSES_S[min(tries, len(PAUSES_S)) - 1]

    def _fail(self, attempt: Attempt, directory: RunDirectory, queue: Queue, error: Exception, message: str) -> None:
        log.error("task.given_up", task=attempt.task, attempt=attempt.id, error=error)
        reason = (
            f"hpc-agent could not go on with this task in {TRIES} tries: {message}; the daemon's log has the details: "
            "change what it names, or report it, and enqueue the task again"
        )
        if not _is_readable(directory):
            directory.set_aside()
        self._actor.reject(attempt, directory, queue, RejectTask(TaskStatus.FAILED, reason))
        self._due.pop(attempt, None)
        self._known.pop(attempt, None)


def _describe(error: Exception) -> str:
    """A sentence of ours, or the name of what happened with whatever it says."""
    if isinstance(error, HpcAgentError):
        return str(error)
    return f"{type(error).__name__}: {error}"


def _is_of_the_machine(error: Exception) -> bool:
    if isinstance(error, (MemoryError, ImportError)):
        return True  # modules are imported late: a package that is being upgraded lacks some of them
    return isinstance(error, OSError) and error.errno in _OF_THE_MACHINE


def _is_readable(directory: RunDirectory) -> bool:
    try:
        read(directory)
    except (CorruptFileError, OSError):
        return False
    return True
