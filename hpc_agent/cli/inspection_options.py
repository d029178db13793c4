"""What the commands about tasks and their jobs share: what they look at, and which task a word of a person means."""

from __future__ import annotations

import socket
from collections.abc import Sequence
from typing import TYPE_CHECKING

import msgspec

from hpc_agent.cli.shared_options import Shared, check_folders
from hpc_agent.clock import SYSTEM
from hpc_agent.errors import InputError, ServerUnreachableError

if TYPE_CHECKING:
    from hpc_agent.api.client import Client
    from hpc_agent.api.task_views import TaskViews
    from hpc_agent.config.load import Configuration
    from hpc_agent.daemon.registration import DaemonRecord
    from hpc_agent.domain.ids import TaskId
    from hpc_agent.inspection.cancel_task import TaskCanceller
    from hpc_agent.inspection.find_task import TaskFinder
    from hpc_agent.inspection.jobs_observer import JobsObserver
    from hpc_agent.inspection.task_facts import FactsReader
    from hpc_agent.runs.directory import RunsFolder
    from hpc_agent.schedulers.inspector import JobInspector
    from hpc_agent.tracking.tracked_records import TrackedRoot


class InspectedSite(msgspec.Struct, frozen=True):
    """Everything that these commands read."""

    configuration: Configuration
    client: Client
    views: TaskViews
    inspector: JobInspector
    runs: RunsFolder
    tracked: TrackedRoot

    def daemons(self) -> list[DaemonRecord]:
        """Daemons that share our root and may be running."""
        from hpc_agent.daemon.registration import DaemonRegistry

        folder = self.configuration.settings.hpc.root / "daemons"
        registry = DaemonRegistry(folder, socket.gethostname(), SYSTEM)
        return [daemon for daemon in registry.all() if registry.is_running(daemon) is not False]

    def served(self) -> set[str]:
        """Names or ids of the queues that running daemons were started with."""
        return {queue for daemon in self.daemons() for queue in daemon.queues}

    def queue_names(self, words: Sequence[str]) -> list[str]:
        """Names of the queues that a person means by these names or ids; as they are where the server is away.

        Raises:
            InputError: there is no such queue.
        """
        try:
            queues = [self.client.queues.resolve(word) for word in words]
            return [queue.name for queue in self.client.queues.get_many(queues)] if queues else []
        except ServerUnreachableError:
            return list(words)

    def observer(self, queues: Sequence[str] = ()) -> JobsObserver:
        from hpc_agent.inspection.jobs_observer import JobsObserver

        served = {*self.served(), *self.configuration.settings.hpc.queues, *queues}
        return JobsObserver(self.views, self.inspector, self.runs, self.tracked, served, SYSTEM)

    def facts_reader(self) -> FactsReader:
        from hpc_agent.inspection.task_facts import FactsReader

        return FactsReader(self.client, self.views, self.inspector, self.runs, self.tracked, self.served(), SYSTEM)

    def canceller(self) -> TaskCanceller:
        from hpc_agent.inspection.cancel_task import TaskCanceller

        grace = self.configuration.settings.hpc.term_grace
        return TaskCanceller(self.client, self.views, self.inspector, self.runs, self.tracked, grace)

    def job_output(self, task: TaskId) -> str:
        """What the job of the task's last attempt printed itself.

        Raises:
            InputError: there is no such file here.
        """
        from hpc_agent.inspection.task_facts import newest_run

        run = newest_run(self.runs, task)
        if run is None:
            raise InputError(f"there is no run directory of task {task} in {self.runs.path}")
        try:
            return run.directory.job_output.read_text(encoding="utf-8", errors="replace")
        except FileNotFoundError:
            raise InputError(f"the job of task {task} has printed nothing yet ({run.directory.job_output})") from None

    def find(self, word: str) -> TaskId:
        """The task that a person means by an id, the beginning of one, a job's number, or a name.

        Raises:
            InputError: none, or several.
        """
        return self._finder().find(word)

    def find_own(self, word: str) -> TaskId:
        """The same, where a task is to be changed.

        Raises:
            InputError: as ``find``, or a name that is of another user's task.
        """
        return self._finder().find_own(word)

    def _finder(self) -> TaskFinder:
        from hpc_agent.inspection.find_task import TaskFinder

        return TaskFinder(self.client, self.views, self.runs, self.tracked)


def inspect_site(shared: Shared) -> InspectedSite:
    """
    Raises:
        ConfigError: the configuration is wrong, or names no server.
    """
    from hpc_agent.api.task_views import TaskViews
    from hpc_agent.retry import INTERACTIVE
    from hpc_agent.runs.directory import RunsFolder
    from hpc_agent.schedulers import backends
    from hpc_agent.tracking.tracked_records import TrackedRoot

    shared.start_log("ERROR")
    configuration = shared.configuration()
    settings = configuration.settings
    check_folders(settings)
    client = shared.client(configuration, INTERACTIVE)
    return InspectedSite(
        configuration,
        client,
        TaskViews(client),
        backends.inspector(settings.hpc, SYSTEM),
        RunsFolder(settings.hpc.runs),
        TrackedRoot.under(settings.hpc.root),
    )
