"""One task on one node: claim it, and run it if it is ours."""

from __future__ import annotations

from dataclasses import dataclass
from typing import IO

from hpc_agent.api.client import Client
from hpc_agent.clock import Clock
from hpc_agent.config.load import Configuration
from hpc_agent.domain.ids import TaskId
from hpc_agent.domain.task import Task
from hpc_agent.executor.agent_identity import AgentIdentity
from hpc_agent.executor.claim import Claimer, Lost
from hpc_agent.executor.prepare import ExecuteOptions
from hpc_agent.executor.task_run import TaskRun
from hpc_agent.logs import EventLog
from hpc_agent.runs.directory import RunDirectory, RunsFolder

log = EventLog("executor")


@dataclass(frozen=True)
class ExecutionOptions:
    """The flags of ``execute``, beside those that shape the process."""

    require_queue: bool = False
    report: bool = True
    """False with ``--disable-monitoring``: the console goes to standard output only."""
    echoes: tuple[IO[bytes], ...] = ()


class Execution:
    """``run`` once."""

    def __init__(
        self,
        client: Client,
        configuration: Configuration,
        me: AgentIdentity,
        wishes: ExecuteOptions,
        options: ExecutionOptions,
        clock: Clock,
    ) -> None:
        self._client = client
        self._configuration = configuration
        self._me = me
        self._wishes = wishes
        self._options = options
        self._clock = clock

    def run(self, task_id: TaskId) -> int:
        """Claim and run the task; returns the exit code to end with (0 if it is not ours to run).

        Raises:
            NotFoundError, InputError, ServerUnreachableError: nothing was started.
        """
        task = self._client.tasks.get(task_id)
        directory = self._directory(task)
        claimed = Claimer(self._client, directory, self._me, self._clock).claim(
            task, require_queue=self._options.require_queue
        )
        if isinstance(claimed, Lost):
            log.info("task.not_claimed", task=task_id, reason=claimed.why)
            return 0
        run = TaskRun(self._client, self._configuration, self._me, self._wishes, self._clock, task, directory, claimed)
        return run.run_to_end(echoes=self._options.echoes, report=self._options.report)

    def _directory(self, task: Task) -> RunDirectory:
        queue = None if self._me.watched else self._client.queues.queue_of(task.id)
        return self._me.directory(RunsFolder(self._configuration.settings.hpc.runs), task.id, queue)
