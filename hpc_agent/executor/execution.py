"""Execution of one task on one node: claim it, and run it (``task_run``)."""

from __future__ import annotations

import os

from hpc_agent.domain.ids import TaskId
from hpc_agent.domain.task import Task
from hpc_agent.errors import NotFoundError, NotQueuedError
from hpc_agent.executor.claim import Claimer, Lost
from hpc_agent.executor.prefetch import EnvPrefetch
from hpc_agent.executor.task_nodes import is_one_of_many
from hpc_agent.executor.task_run import ExecutionContext, ExecutionOptions, TaskRun
from hpc_agent.logs import EventLog
from hpc_agent.runs.directory import RunDirectory, RunsFolder
from hpc_agent.schedulers import backends

log = EventLog("executor")


class Executor(ExecutionContext, frozen=True):
    """Executor of one task on this node; ``execute`` once."""

    def execute(self, task_id: TaskId, options: ExecutionOptions, prefetch: EnvPrefetch | None = None) -> int:
        """Claim and run the task; returns the exit code to end with: 0 in a daemon's job whose task another one runs.

        Args:
            prefetch: of ``begin_prefetch``, where that was called.

        Raises:
            NotFoundError, InputError: it cannot be run as asked; nothing was started.
            NotQueuedError: it was to be taken off its queue and is not queued, or another one took it. Not in a
                daemon's job, nor in one of whose processes another one runs it.
            ServerUnreachableError, AuthError: the server did not let it start; nothing has run, and the daemon puts
                the task back.
        """
        job = backends.job_variables()
        if job is not None and job.process_index and is_one_of_many(job, os.environ):
            log.info("task.run_by_first_process", task=task_id, process=job.process_index)
            return 0
        task = self._task(task_id, options)
        directory = self._directory(task)
        claimed = Claimer(self.client, directory, self.identity, self.clock).claim(
            task, require_queue=options.require_queue
        )
        if isinstance(claimed, Lost):
            log.info("task.not_claimed", task=task_id, reason=claimed.reason)
            if self.identity.daemon_managed or claimed.by_this_job:
                return 0
            raise NotQueuedError(f"task {task_id} was not run: {claimed.reason}")
        log.info("task.claimed", task=task_id, attempt=directory.attempt.id, job=self.identity.job)
        return TaskRun(self, task, directory, claimed, prefetch).run(options)

    def _task(self, task_id: TaskId, options: ExecutionOptions) -> Task:
        try:
            return self.client.tasks.get(task_id)
        except NotFoundError as error:
            if not options.require_queue or self.identity.daemon_managed:
                raise
            raise NotQueuedError(
                f"task {task_id} was not run: the server has no such task, or does not show it to this account"
            ) from error

    def _directory(self, task: Task) -> RunDirectory:
        queue = None if self.identity.daemon_managed else self.client.queues.queue_of(task.id)
        return self.identity.directory(RunsFolder(self.settings.hpc.runs), task.id, queue)
