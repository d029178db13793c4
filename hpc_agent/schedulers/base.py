"""Interface of backends: all that the daemon needs of a batch scheduler. A missing answer is never evidence of an
end."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Protocol, runtime_checkable

import msgspec

from hpc_agent.clock import Clock
from hpc_agent.config.settings import HpcSettings
from hpc_agent.domain.capacity import Capacity
from hpc_agent.domain.ids import JobId
from hpc_agent.domain.job import CurrentJob, JobRecord, LiveJob, SubmitResult
from hpc_agent.domain.resources import Resources
from hpc_agent.schedulers.cluster import ClusterClient

if TYPE_CHECKING:
    from hpc_agent.schedulers.inspector import JobInspector

CLOCK_SKEW = timedelta(seconds=60)
"""How far the controller's clock may be behind ours; ids are reused after days, not minutes."""
ANY_CLOCK = timedelta(days=1)
"""How far it may be off where a job's name alone tells whose it is."""


class SubmitRequest(msgspec.Struct, frozen=True):
    """A rendered script, ready to be submitted."""

    script: Path
    job_name: str
    workdir: Path
    """Where the job starts; exists."""
    output: Path
    """File that takes the job's own stdout and stderr; its folder exists."""
    resources: Resources
    """What the script asks for; for schedulers that do not read ``#SBATCH`` lines."""
    queue: str = ""
    """Name of the queue whose pilots may run it; empty: it must be a job of its own."""
    signal_ahead: float = 0.0
    """Seconds before its time limit at which its agent ends the task; 0: not at all."""


class JobOrigin(msgspec.Struct, frozen=True):
    """Description of the system that runs the jobs, for users."""

    name: str
    """With its version where it has one: ``Slurm 24.11.5``."""
    notes: Sequence[str] = ()
    """What follows from it, a sentence each."""


class Scheduler(Protocol):
    """A batch scheduler, or this machine: one class in the package of each backend (``schedulers.registry``)."""

    @property
    def name(self) -> str:
        """The backend's name in the registry."""

    def cluster(self) -> str:
        """The cluster's name, part of every attempt's identity."""

    def about(self) -> JobOrigin:
        """
        Raises:
            SchedulerUnavailableError: no usable answer.
        """

    def submit(self, request: SubmitRequest) -> SubmitResult:
        """Submit once. Never raises for what the scheduler says or fails to say: the four answers cover it."""

    def live_jobs(self) -> Sequence[LiveJob]:
        """All jobs of this user that the scheduler still lists, in one query.

        Raises:
            SchedulerUnavailableError: no usable answer; nothing is known, not even that a job is gone.
        """

    def room(self) -> Capacity:
        """What may be submitted now, as the last ``live_jobs`` saw it. More than that would only wait here, where
        its order cannot be changed, and not in its queue."""

    def find(self, job_name: str, since: datetime) -> JobId | None:
        """The job submitted under this name at or after ``since``, live or ended; None if certainly none is known.

        Raises:
            SchedulerUnavailableError: no usable answer.
        """

    def records(self, jobs: Mapping[JobId, datetime]) -> Mapping[JobId, JobRecord]:
        """What is known of jobs that it lists no more, each with the time of our own submission (ids are reused).

        A final record is a verdict. One that is not final says that there is none yet: a source has the job for alive,
        or one that may know more gave no answer (``job.unanswered``). A job without an entry is known to none of the
        sources, and all of them answered. A record's name is empty where the scheduler does not know it yet. The
        number of queries does not depend on that of the jobs.

        Raises:
            SchedulerUnavailableError: no usable answer from any source.
        """

    def cancel(self, jobs: Sequence[JobId], *, only_pending: bool = False) -> None:
        """Cancel these jobs; with ``only_pending`` those that started meanwhile are left alone.

        Each must be known for the one that is meant. Its id alone is not evidence: it may have been read out of a
        site's greeting, or be used again. A job is known when the scheduler lists it, or did so before, under the name
        that it was submitted with and not submitted before that; or when it wrote its id down itself, from within. What
        was known once stays so: people rename their jobs, and so do the jobs. Any other job is left alone, and the log
        says so, and the task where there is one.

        Raises:
            SchedulerUnavailableError: it is not known whether the request arrived.
        """

    def release(self, jobs: Sequence[JobId]) -> None:
        """Let jobs try again that the scheduler holds because it could not start them.

        Raises:
            SchedulerUnavailableError: it is not known whether the request arrived, or they are held by others.
        """


@runtime_checkable
class ArrayScheduler(Scheduler, Protocol):
    """A scheduler that takes many jobs in one submission. Each is a job like any other one: the methods of
    ``Scheduler`` know it by its own id and name."""

    def array_size(self) -> int:
        """Jobs of one submission, at most; less than 2 where there are none of many.

        Raises:
            SchedulerUnavailableError: no usable answer.
        """

    def array_key(self, script: str) -> object | None:
        """Jobs whose scripts have equal keys may go together; None: this one goes alone."""

    def submit_array(self, requests: Sequence[SubmitRequest]) -> Sequence[SubmitResult]:
        """Submit once, jobs with equal keys; the answer of each, of one kind for all. The scripts are on disk and stay
        there as long as their jobs.

        Raises:
            OSError: nothing was submitted.
        """


class CurrentJobClient(Protocol):
    """Client with which a job asks about itself and requeues itself."""

    def look(self) -> CurrentJob | None:
        """What the scheduler says of it; None where it gives no answer."""

    def is_end_announced(self) -> bool | None:
        """Whether the scheduler has written into this process's output that it ends the job; None: not known."""

    def requeue(self) -> str:
        """Have it started again from its first line; empty, or why that cannot be."""

    def release(self) -> None:
        """Say that the task's process has ended and only its report is left: what the job was granted may go to
        others."""


class NullCurrentJob:
    """For a process in no job of a batch system, and for backends whose jobs cannot be asked about."""

    def look(self) -> CurrentJob | None:
        return None

    def is_end_announced(self) -> bool | None:
        return False

    def requeue(self) -> str:
        return "this process is not in a job that can be requeued"

    def release(self) -> None:
        """All of the job ends together."""


class JobVariables(msgspec.Struct, frozen=True):
    """Variables of the environment that describe the current job."""

    backend: str
    """The backend's name in the registry."""
    job: JobId
    worker: str
    """Last part of the worker id of the job's agent: ``slurm:123``."""
    restart_count: int = 0
    """How often the scheduler has started this job again."""
    step_processes: int = 1
    """Processes that the scheduler starts in this step of the job, each with the same command."""
    cluster: str = ""
    nodes: int = 1
    cpus: float | None = None
    """CPUs granted on this node; None: not known, or all of them."""
    memory_mb: float | None = None
    """Memory granted on this node; None: not known, or all of it."""
    control_group: str = ""
    """Name of the control group that the scheduler makes for the job on each node; empty: it makes none."""
    gpu_variables: Sequence[str] = ()
    """Variables that name the job's GPUs as the node counts them, the most reliable first; empty: the usual ones."""
    node_name: str = ""
    """This node, as the scheduler calls it."""
    node_index: int = 0
    """Number of this node among the job's, from 0."""
    process_index: int = 0
    """Number of this process in its step, from 0."""
    shares_control_group: bool = False
    """Whether other tasks run in the same control group: its figures are not this task's."""
    in_step: bool = False
    """Whether a step of the job started this process, and not the job's script."""


class RankVariables(msgspec.Struct, frozen=True):
    """Names of the variables by which a process that a step starts knows its place."""

    node: str
    """The node's name."""
    rank: str
    local_rank: str


class RankFailure(msgspec.Struct, frozen=True):
    """The first rank of a step that failed, as the scheduler reports it."""

    node: str
    rank: int
    code: int
    """Exit code; negative: the signal."""


class JobSteps(Protocol):
    """Steps of the current job: commands that start processes on its nodes."""

    @property
    def variables(self) -> RankVariables: ...

    def hosts(self) -> Sequence[str]:
        """Names of the job's nodes, the first one first.

        Raises:
            SchedulerUnavailableError: the scheduler does not say.
        """

    def on_each_node(self, argv: Sequence[str], nodes: int) -> list[str]:
        """A command that runs ``argv`` once on each node, next to other steps."""

    def ranks(self, argv: Sequence[str], nodes: int, per_node: int) -> list[str]:
        """A command that runs ``argv`` ``per_node`` times on each node, and ends all when one fails."""

    def first_failure(self, text: str) -> RankFailure | None:
        """The first rank that failed, from what such a command printed; None where it does not say."""

    def scheduler_failure(self, text: str) -> str:
        """Why the scheduler did not start all ranks, or ended them by mistake, from what such a command printed; empty
        where it did neither."""

    def of_one_process(self, environ: Mapping[str, str]) -> Sequence[str]:
        """Variables of ``environ`` that are true for one process of a step only."""


class Share(msgspec.Struct, frozen=True):
    """One daemon's part of a machine without a batch system. It is kept with each job, so that any daemon can start
    the job with the right part."""

    owner: str
    max_jobs: int
    gpus: tuple[str, ...]
    """Names as in CUDA_VISIBLE_DEVICES. Shares may overlap: a GPU is lent to one job at a time."""


class ScriptLanguage(Protocol):
    """Language of a backend's job scripts: how they ask for resources, and the templates that render them."""

    @property
    def prefix(self) -> str:
        """What a line with options begins with: ``#SBATCH``."""

    @property
    def templates(self) -> Path:
        """Folder of the backend's own templates."""

    @property
    def default_template(self) -> str:
        """For queues that name none."""

    @property
    def staging_template(self) -> str:
        """For the job that builds an environment."""

    @property
    def pilot_template(self) -> str:
        """For the job that runs many tasks; empty where there is none."""

    @property
    def probe_template(self) -> str:
        """For the job that tells what its node can do."""

    def directive(self, text: str) -> str:
        """One word of a line with options, quoted as the scheduler reads it. ``text`` has no control characters.

        Raises:
            TemplateError: it cannot be quoted.
        """

    def variables(self, resources: Resources, signal_ahead: float, requeue: bool) -> Mapping[str, object]:
        """Variables of templates in addition to the task: the requests in the scheduler's own options, as text.

        ``signal_ahead``: seconds before the time limit at which the agent is warned by SIGUSR1; 0: not at all.
        """


class UserCommands(msgspec.Struct, frozen=True):
    """The scheduler's own commands by which a person looks for what is wrong; by default ours, where there is one."""

    is_up: str = "hpc-agent free"
    own_jobs: str = "hpc-agent jobs"
    accounts: str = "hpc-agent init --dry-run"
    partitions: str = "hpc-agent free"


class Backend(ABC):
    """Backend: everything about one kind of scheduler. ``schedulers.registry`` lists them."""

    name: ClassVar[str]
    """In the registry, in ``hpc.scheduler``, and of its section of the settings."""
    is_batch_system: ClassVar[bool]
    """Whether jobs run on other machines, whose GPUs the scheduler hands out; else they run here, and the daemon hands
    out those of this machine."""
    job_prefixes: ClassVar[Sequence[str]] = ()
    """What the names of the variables begin with that the scheduler gives to a job's programs."""

    command_variables: ClassVar[Sequence[str]] = ()
    """Variables of a person's shell by which its commands find the scheduler."""

    user_commands: ClassVar[UserCommands] = UserCommands()

    @abstractmethod
    def is_installed(self) -> bool:
        """Whether its commands are found here."""

    @abstractmethod
    def create(
        self, settings: HpcSettings, clock: Clock, *, share: Share | None = None, timeout: float | None = None
    ) -> Scheduler:
        """
        Args:
            share: the daemon's part of this machine, where there is no batch system.
            timeout: the longest that a query may take, in seconds; the settings' own when not given.
        """

    def cluster_client(self, settings: HpcSettings) -> ClusterClient | None:
        """For questions about the cluster as a whole; None where only jobs can be asked about."""
        return None

    def inspector(self, settings: HpcSettings, clock: Clock) -> JobInspector:
        """For commands that show jobs to a person."""
        from hpc_agent.schedulers.inspector import JobInspector

        return JobInspector(self.create(settings, clock))

    @abstractmethod
    def script(self, settings: HpcSettings) -> ScriptLanguage:
        """How its job scripts are written."""

    @abstractmethod
    def job_variables(self, environ: Mapping[str, str]) -> JobVariables | None:
        """None: ``environ`` is not that of a job of this backend."""

    def current_job(self, job: JobId, environ: Mapping[str, str]) -> CurrentJobClient:
        """For the job itself, to ask about itself; by default nothing can be asked."""
        return NullCurrentJob()

    def job_steps(self, settings: HpcSettings, environ: Mapping[str, str]) -> JobSteps | None:
        """Steps of the job whose environment this is; None where a job has one process only."""
        return None

    @abstractmethod
    def foreign(self, environ: Mapping[str, str]) -> Iterable[str]:
        """The variables of ``environ`` that belong to one job of this scheduler, or change what its commands do, so
        that neither its commands nor other jobs may inherit them."""

    def time_limit_in(self, script: str) -> float | None:
        """Seconds that a job script of ours asks for; None: it does not say, or this backend cannot tell."""
        return None

    def job_launch_failure(self, output: str) -> str:
        """The line of a job's own output in which the scheduler says that it could not start the script; else empty."""
        return ""
