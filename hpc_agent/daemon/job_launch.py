"""Launch of jobs: how each job calls this program, with which configuration, and which limits its queue sets.

A job's configuration is a file of its own in the run directory, readable by its owner alone; what is in it is in no
argument list and no exported environment.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import msgspec

from hpc_agent.api.client import Client
from hpc_agent.api.credentials import KeyPair
from hpc_agent.api.session import login_of
from hpc_agent.clock import SYSTEM, Clock
from hpc_agent.config.job_config import job_config_write
from hpc_agent.config.load import Configuration
from hpc_agent.config.resource_settings import QueueSettings
from hpc_agent.config.settings import HpcSettings
from hpc_agent.daemon.options import DaemonOptions, JobNaming, exports
from hpc_agent.domain.attempt import Attempt
from hpc_agent.domain.job_phase import doubt_seconds
from hpc_agent.domain.resources import Resources
from hpc_agent.domain.snapshot import AttemptPolicy
from hpc_agent.domain.task import Task
from hpc_agent.file_batches import write_together
from hpc_agent.file_records import Durability
from hpc_agent.runs.directory import RunDirectory
from hpc_agent.submission.render import JobContext


class JobLaunchConfig(msgspec.Struct, frozen=True):
    """Server and keys are in ``config_file``, readable by its owner only; ``agent`` is the program as a list.
    ``staged_agent``: as jobs of one node call it whose code and environment are staged; ``agent`` where it is empty."""

    config_file: Path
    agent: Sequence[str]
    options: DaemonOptions
    naming: JobNaming
    job_configs: JobConfigs | None = None
    """Where jobs call the server with credentials of their own."""
    staged_agent: Sequence[str] = ()

    def context(
        self, task: Task, attempt: Attempt, queue: QueueSettings, resources: Resources, job: JobPlace, *, staged: bool
    ) -> JobContext:
        """What the task's script is made from. ``staged``: code and environment are ready when the job starts."""
        # A copy on one node is not on the others, and cannot build environments.
        is_copied = staged and resources.nodes == 1
        return JobContext(
            task=task,
            attempt=attempt,
            queue_name=job.queue_name,
            resources=resources,
            run_dir=job.directory.path,
            output=job.directory.job_output,
            config_file=job.directory.owner_config if self.job_configs else self.config_file,
            agent=(self.staged_agent if is_copied else ()) or self.agent,
            flags=[*(["--standalone-mode"] if staged else []), *self.options.flags()],
            exports=exports(self.options, self.naming, task.id),
            signal_ahead=queue.signal_ahead,
            requeue=queue.max_restarts > 0,
            launch=self.options.launch,
        )


class JobPlace(msgspec.Struct, frozen=True):
    """Where a job comes from, and where its files are."""

    queue_name: str
    directory: RunDirectory


BEFORE_INTENT = Durability.EITHER
"""What is written after it, and before the job is submitted, syncs the same folder."""


class JobConfigs(Protocol):
    """Writes a configuration for each job."""

    def read_ahead(self, attempts: Sequence[Attempt]) -> None:
        """Get together what the configurations of these jobs, which may be written next, need of the server.

        Raises:
            ServerUnreachableError: no usable answer.
        """

    def write(self, jobs: Sequence[tuple[Task, RunDirectory]]) -> None:
        """Write ``owner_config`` of each.

        Raises:
            InputError: the server gives no credentials for one of them.
            ServerUnreachableError: no usable answer.
        """


class OwnerConfigs:
    """``--use-owner-token``: a token of the task's owner, in place of our own credentials."""

    def __init__(self, client: Client, configuration: Configuration) -> None:
        self._client = client
        self._configuration = configuration

    def read_ahead(self, attempts: Sequence[Attempt]) -> None:
        """The server gives one token at a time."""

    def write(self, jobs: Sequence[tuple[Task, RunDirectory]]) -> None:
        writes = []
        for task, directory in jobs:
            token = self._client.owners.token(task.user)
            changes = {
                "api.credentials": {},
                "api.auth_token": token.reveal(),
                "api.login_token": "",
                "agent.worker_id": "",
            }
            writes.append(job_config_write(self._configuration, directory.owner_config, changes))
        write_together(writes, BEFORE_INTENT)


_AHEAD_S = 1800.0
"""How long a pair that was made ahead is used: half the time after which the server drops those of a task that ended,
and may have been put back into its queue since. One that was reset is another attempt."""


class _PairAhead(msgspec.Struct, frozen=True):
    """``made_at``: monotonic time."""

    pair: KeyPair
    made_at: float


class TaskConfigs:
    """A key pair of the task's own, which ends with the task, in place of our own credentials."""

    def __init__(self, client: Client, configuration: Configuration, clock: Clock = SYSTEM) -> None:
        self._client = client
        self._configuration = configuration
        self._clock = clock
        self._ahead: dict[Attempt, _PairAhead] = {}
        """Made ahead. A task may be asked for in each pass for hours before its environment is built, and the server
        keeps each pair until the task has ended."""

    def read_ahead(self, attempts: Sequence[Attempt]) -> None:
        # Other threads take from it.
        for attempt, pair in list(self._ahead.items()):
            if self._is_old(pair):
                self._ahead.pop(attempt, None)
        missing = [attempt for attempt in attempts if attempt not in self._ahead]
        if len(missing) > 1:
            found = self._client.task_credentials.create_possible([attempt.task for attempt in missing])
            at = self._clock.monotonic()
            self._ahead |= {a: _PairAhead(found[a.task], at) for a in missing if a.task in found}

    def _is_old(self, pair: _PairAhead) -> bool:
        return self._clock.monotonic() - pair.made_at > _AHEAD_S

    def _made_ahead(self, attempt: Attempt) -> KeyPair | None:
        pair = self._ahead.pop(attempt, None)
        return None if pair is None or self._is_old(pair) else pair.pair

    def write(self, jobs: Sequence[tuple[Task, RunDirectory]]) -> None:
        ahead = {task.id: self._made_ahead(directory.attempt) for task, directory in jobs}
        found = {task: pair for task, pair in ahead.items() if pair is not None}
        missing = [task.id for task, _ in jobs if task.id not in found]
        pairs = {**found, **self._client.task_credentials.create(missing)}
        writes = []
        for task, directory in jobs:
            pair = pairs[task.id]
            changes = {
                "api.credentials": {"access_key": pair.access_key, "secret_key": pair.secret_key.reveal()},
                "api.auth_token": "",
                "api.login_token": login_of(pair.access_key, pair.token).reveal(),
                "agent.worker_id": "",
            }
            writes.append(job_config_write(self._configuration, directory.owner_config, changes))
        write_together(writes, BEFORE_INTENT)


def job_configs(client: Client, configuration: Configuration, *, owner_tokens: bool) -> JobConfigs | None:
    """How each job gets credentials of its own; None where the server has none and jobs share ours."""
    if owner_tokens:
        return OwnerConfigs(client, configuration)
    return TaskConfigs(client, configuration) if client.task_credentials.offered() else None


def rules(hpc: HpcSettings, queue: str) -> AttemptPolicy:
    """The policy for attempts of a queue, given by name."""
    settings = hpc.queue(queue)
    lost_after = hpc.lost_after
    return AttemptPolicy(
        look_up_seconds=doubt_seconds(lost_after),
        requeue_after=doubt_seconds(lost_after),
        lost_after=lost_after,
        stop_grace=hpc.term_grace + 40,
        requeue_on_time_limit=settings.on_time_limit == "requeue",
        max_restarts=settings.max_restarts,
    )
