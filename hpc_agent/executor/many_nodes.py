"""Run of a task on many nodes, seen from its first agent (docs/many-nodes.md)."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

from hpc_agent.cancellation import CancellableClock
from hpc_agent.clock import Clock
from hpc_agent.config.settings import AllSettings
from hpc_agent.domain.launch_plan import Launcher, LaunchPlan
from hpc_agent.domain.task import Task
from hpc_agent.errors import NodesLostError
from hpc_agent.executor.agent_identity import AgentIdentity
from hpc_agent.executor.console import Console
from hpc_agent.executor.launch_commands import RANK_OF, launch, launcher_command, rank_mark, work_folder
from hpc_agent.executor.node_step import NodeStep
from hpc_agent.executor.rank_group import RankGroup
from hpc_agent.executor.rendezvous import free_port, master_address
from hpc_agent.executor.report import RunInputs
from hpc_agent.executor.step_process import StepProcess
from hpc_agent.executor.stop_conditions import StopRequest
from hpc_agent.executor.supervise import Stoppable
from hpc_agent.executor.task_nodes import job_number
from hpc_agent.file_records import CorruptFileError, read_record, write_record
from hpc_agent.logs import EventLog
from hpc_agent.process.supervised import Supervised
from hpc_agent.runs import node_files
from hpc_agent.runs.directory import RunDirectory
from hpc_agent.runs.node_files import LaunchRecord
from hpc_agent.schedulers import backends
from hpc_agent.schedulers.base import JobSteps, JobVariables
from hpc_agent.telemetry.job_usage import UsageSummary
from hpc_agent.telemetry.node_processes import NodeProcesses

log = EventLog("nodes")

_TRIES = 5
"""Starts of the agents of a job's nodes; a large step fails now and then on one of them."""
_PAUSE_S = 5.0
"""Between two starts, and longer each time: the scheduler's daemon on a node may be away for a moment."""


class ManyNodes:
    """Nodes of one run: ``open``, ``wait_ready``, ``start``, ``finish``, ``end``, and ``close`` in any case."""

    def __init__(
        self,
        task: Task,
        directory: RunDirectory,
        plan: LaunchPlan,
        settings: AllSettings,
        identity: AgentIdentity,
        clock: Clock,
        write_line: Callable[[str], None],
    ) -> None:
        job, steps = backends.job_variables(), backends.job_steps(settings.hpc)
        assert job is not None and steps is not None
        self._task = task
        self._directory = directory
        self._plan = plan
        self._settings = settings
        self._start = identity.restart_count
        self._job: JobVariables = job
        self._steps: JobSteps = steps
        self._clock = clock
        self._write_line = write_line
        self._hosts: list[str] = []
        self._nodes: NodeStep | None = None
        self.group: RankGroup | None = None

    def open(self) -> None:
        """Start an agent on each node. Not in a thread, with whose end they would end
        (``process.supervised.Conversation``).

        Raises:
            InputError: the ranks find no way to each other.
            SchedulerUnavailableError: the job's nodes are not known.
            ProcessError: the agents could not be started.
        """
        self._began = self._clock.monotonic()
        self._hosts = list(self._steps.hosts())
        many = self._settings.hpc.many_nodes
        self._record = record = LaunchRecord(
            task=self._task,
            launcher=self._plan.launcher.value,
            nodes=self._plan.nodes,
            ranks_per_node=self._plan.ranks_per_node,
            master_addr=master_address(self._job.node_name, many.interface),
            master_port=free_port(many.port_range, job_number(self._job.job)),
            interface=many.interface,
            folder=str(work_folder(self._settings, self._directory, self._start)),
        )
        write_record(node_files.launch_file(self._directory, self._start), record, mode=0o600)
        agent = self._settings.hpc.agent_command or (sys.executable, "-m", "hpc_agent")
        argv = [*agent, *sys.argv[1:], "--node-of", str(self._directory.path)]
        step = self._steps.on_each_node(argv, self._plan.nodes)
        self._nodes = NodeStep(step, os.environ, self._hosts, self._steps, CancellableClock(self._clock))

    def wait_ready(self) -> None:
        """Until each node has the task's code and environment.

        Raises:
            EnvironmentBuildError: a node cannot run the task.
            Cancelled: as ``cancellation`` has it.
        """
        assert self._nodes is not None
        self._nodes.wait_ready()
        record, seconds = self._record, self._clock.monotonic() - self._began
        plan = self._plan
        ranks = f"{plan.world_size} ranks by {plan.launcher.value}, {record.master_addr}:{record.master_port}"
        if plan.launcher is Launcher.NONE:
            ranks = "the task's command runs on the first one"
        self._write_line(f"Nodes {_shown(self._hosts)} ready after {seconds:.1f} s: {ranks}")
        log.info("nodes.ready", task=self._task.id, nodes=len(self._hosts), seconds=round(seconds, 2))

    def start(self, console: Console, stop: StopRequest) -> Stoppable:
        """Start the ranks.

        Raises:
            ProcessError: their launcher could not be started.
        """
        assert self._nodes is not None
        command = partial(launcher_command, self._record.folder, self._directory, self._start, self._steps)
        argv = launch(self._plan, command, self._steps)
        launcher = Supervised(argv, env=os.environ, cwd=Path("/"), output=console.sink)
        if self._plan.launcher is Launcher.NONE:
            # In a container it may be a step, which the launcher only asks for.
            mark = rank_mark(Path(self._record.folder), self._job.node_name)
            return StepProcess(launcher, NodeProcesses(RANK_OF, mark))
        # mpirun is not a step: what the scheduler signals are its helpers.
        by_steps = self._plan.launcher is not Launcher.MPIRUN
        self.group = RankGroup(
            *(launcher, self._nodes, self._steps, self._clock),
            tail=console.tail,
            starter="" if self._plan.launcher in (Launcher.STEP, Launcher.MPIRUN) else self._plan.launcher.value,
            terminated=lambda: by_steps and stop.sigterm_received,
        )
        return self.group

    def inputs(self) -> RunInputs:
        """What the task runs with, as its first node found it."""
        try:
            return read_record(node_files.inputs_file(self._directory, self._start), RunInputs) or RunInputs()
        except CorruptFileError as error:
            log.warning("inputs.unreadable", error=error)
            return RunInputs()

    def finish(self, seconds: float, *, wait: float) -> None:
        """The ranks have ended: have the nodes send what they printed within ``seconds``, and end.

        ``wait``: seconds to wait for that here at most; ``end`` waits for all of it.
        """
        assert self._nodes is not None
        self._nodes.finish(seconds)
        self._nodes.wait_ended(wait)

    def end(self) -> Mapping[str, UsageSummary]:
        """After ``finish``: wait for the nodes; returns what each has used."""
        assert self._nodes is not None
        self._nodes.end()
        found = {}
        for index, host in enumerate(self._hosts):
            try:
                summary = read_record(node_files.usage_file(self._directory, self._start, index), UsageSummary)
            except CorruptFileError:
                summary = None
            if summary is not None:
                found[host] = summary
        return found

    @property
    def ranks_may_run(self) -> bool:
        """Whether a node did not say, since ``finish``, that its ranks are gone: it may live, lost to Slurm."""
        assert self._nodes is not None
        return not self._nodes.all_are_done

    def close(self) -> None:
        if self._nodes is not None:
            self._nodes.close()


def open_nodes(nodes: ManyNodes, stop: StopRequest, clock: Clock, write_line: Callable[[str], None]) -> None:
    """Start the nodes' agents and wait for them; again where the scheduler could not start one of them.

    Raises:
        Cancelled, HpcAgentError: as ``ManyNodes``.
    """
    for left in reversed(range(_TRIES)):
        nodes.open()
        try:
            stop.run_cancellable(nodes.wait_ready, "prepare")
        except NodesLostError as error:
            nodes.close()
            if not left:
                raise
            write_line(f"Starting the agents of the nodes again: {error}")
            stop.sleep((_TRIES - left) * _PAUSE_S, clock)
        else:
            return


def _shown(hosts: list[str]) -> str:
    return ", ".join(hosts) if len(hosts) <= 8 else f"{', '.join(hosts[:7])} … {hosts[-1]} ({len(hosts)})"
