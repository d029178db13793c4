"""Node agent: prepares one node of a job of many for its ranks, keeps their output, passes signals on to them.

The agent of the job's first node starts one on each node (``node_step``); it orders on stdin and reads messages from
stdout (``node_messages``).
"""

from __future__ import annotations

import json
import os
import queue
import shutil
import signal
import sys
import threading
from collections.abc import Mapping
from pathlib import Path

import msgspec

from hpc_agent import rank_launcher
from hpc_agent.api.client import Client
from hpc_agent.cancellation import Cancelled, cancelled_when
from hpc_agent.clock import Clock
from hpc_agent.config.load import Configuration
from hpc_agent.domain.failure_cause import failure_cause
from hpc_agent.domain.ids import WorkerId
from hpc_agent.domain.launch_plan import Launcher
from hpc_agent.errors import ContainerError, HpcAgentError, InputError
from hpc_agent.executor.agent_identity import AgentIdentity
from hpc_agent.executor.claim import ClaimWatch, still_ours
from hpc_agent.executor.console import Console
from hpc_agent.executor.launch_commands import (
    RANK_OF,
    launcher_command,
    rank_mark,
    starter,
    work_folder,
)
from hpc_agent.executor.node_messages import NodeMessage, Order
from hpc_agent.executor.prepare import ExecuteOptions, PreparedTask, Preparer
from hpc_agent.executor.rank_collector import RankCollector
from hpc_agent.executor.sdk_signals import has_sdk_handlers
from hpc_agent.executor.task_nodes import SINGLE_TASK
from hpc_agent.executor.watch import CLAIM_INTERVAL_S
from hpc_agent.file_records import CorruptFileError, ensure_directory, read_record, write_atomic, write_record
from hpc_agent.logs import EventLog
from hpc_agent.relay.proxy_variables import PROXY_VARIABLES
from hpc_agent.retry import Budget
from hpc_agent.runs import node_files
from hpc_agent.runs.attempt_records import ClaimRecord
from hpc_agent.runs.directory import RunDirectory
from hpc_agent.runs.node_files import LaunchRecord
from hpc_agent.schedulers import backends
from hpc_agent.struct_types import decodable
from hpc_agent.telemetry import rank_output
from hpc_agent.telemetry.job_usage import JobUsage
from hpc_agent.telemetry.node_processes import NodeProcesses
from hpc_agent.telemetry.shipper import INTERVAL_S, ConsoleSource

log = EventLog("node")

_SAMPLE_S = 1.0
_INTERRUPT_S = 0.2
_REQUESTS_A_SECOND = 20.0
"""With the console of all nodes together, at most."""
_LAST_OUTPUT_S = 5.0
"""How long ranks that have ended may leave their output open, to processes of theirs that live on."""


class NodeAgent:
    """Agent of one node; ``run`` once."""

    def __init__(
        self,
        client: Client,
        configuration: Configuration,
        identity: AgentIdentity,
        options: ExecuteOptions,
        clock: Clock,
        directory: RunDirectory,
        *,
        ship: bool,
    ) -> None:
        """
        Raises:
            InputError: this process is in no job, or its first node decided nothing.
        """
        job = backends.job_variables()
        steps = backends.job_steps(configuration.settings.hpc)
        record = read_record(node_files.launch_file(directory, identity.restart_count), LaunchRecord)
        if job is None or steps is None or record is None:
            raise InputError("--node-of is for the steps of a task on many nodes, which its first agent starts")
        self._client = client
        self._configuration = configuration
        self._settings = configuration.settings
        self._options = options
        self._clock = clock
        self._directory = directory
        self._start = identity.restart_count
        self._job = job
        self._folder = work_folder(self._settings, directory, self._start)
        self._launcher = launcher_command(record.folder, directory, self._start, steps, rank_launcher.RANK)
        self._record = record
        self._index = job.process_index
        self._name = job.node_name
        # True for this process alone: a container, or the ranks, must not find them.
        for name in steps.of_one_process(os.environ):
            del os.environ[name]
        own = f"{identity.worker}:{self._name}" if self._index else identity.worker
        self._worker = WorkerId(own)
        claim = directory.claim()
        self._claim = claim
        self._console = Console(
            directory,
            ConsoleSource(record.task.id, self._worker, self._settings.agent.suppress_carriage_return),
            client.events,
            clock,
            start=self._start,
            ours=lambda: claim is None or still_ours(directory, claim),
            # -1: only the first node reports; what the others print is kept in the run directory.
            ship=ship and (self._index == 0 or os.environ.get(SINGLE_TASK) != "-1"),
            node=self._index,
            interval=max(INTERVAL_S, record.nodes / _REQUESTS_A_SECOND),
        )
        self._orders: queue.SimpleQueue[Order | None] = queue.SimpleQueue()
        self._over = threading.Event()
        self._lock = threading.Lock()
        self._workdir = self._make_workdir()
        self._mark = rank_mark(self._folder, self._name)
        self._processes = NodeProcesses(RANK_OF, self._mark)

    def run(self) -> int:
        """Until the first agent's last order, or its end; returns the exit code."""
        for number in rank_output.IGNORED:
            signal.signal(number, signal.SIG_IGN)
        threading.Thread(target=self._read_orders, name="orders", daemon=True).start()
        threading.Thread(target=self._watch_run, name="fence", daemon=True).start()
        prepared: PreparedTask | None = None
        try:
            self._console.start()
            with cancelled_when(self._over.is_set):
                prepared = self._prepare()
            return self._accompany(prepared)
        except Cancelled:
            return 0
        except HpcAgentError as error:
            self._fail(str(error))
        except Exception as error:  # noqa: BLE001 - whatever it was, the first agent gets the reason
            log.error("node.failed", error=error, trace=True)
            self._fail(f"{type(error).__name__}: {error}")
        finally:
            if prepared is not None:
                prepared.clean_up()
            shutil.rmtree(self._workdir, ignore_errors=True)
        return 1

    # ---------------------------------------------------------------- preparation

    def _make_workdir(self) -> Path:
        """The same path on all nodes; where nodes share the file system, a name of its own for each but the first."""
        folder = self._folder
        own = folder.with_name(f"{folder.name}.{self._name}")
        ensure_directory(folder.parent, mode=0o700)
        # Left by an agent of this node that was killed: ranks would print into FIFOs that are read by nothing.
        shutil.rmtree(own, ignore_errors=True)
        try:
            folder.mkdir(mode=0o700)
        except FileExistsError:
            folder = ensure_directory(own, mode=0o700)
        if str(self._folder) != self._record.folder:
            location = node_files.location_file(self._directory, self._start, self._name)
            write_atomic(location, os.fsencode(folder), mode=0o600)
        return folder

    def _prepare(self) -> PreparedTask:
        """
        Raises:
            HpcAgentError: this node cannot run the task.
        """
        began = self._clock.monotonic()
        preparer = Preparer(
            self._configuration,
            self._worker,
            self._options,
            self._clock,
            self._write_line,
            self._client.tasks.get_object,
        )
        prepared = preparer.prepare(self._record.task, self._directory, self._workdir)
        self._check_container(prepared)
        if self._index == 0:
            write_record(node_files.inputs_file(self._directory, self._start), prepared.inputs, mode=0o600)
        self._write_node_record(prepared)
        log.info("node.prepared", node=self._name, seconds=round(self._clock.monotonic() - began, 2))
        return prepared

    def _check_container(self, prepared: PreparedTask) -> None:
        """
        Raises:
            ContainerError: this launcher does not reach into such a container.
        """
        launcher = Launcher(self._record.launcher)
        if prepared.forwards_signals and launcher is not Launcher.NONE:
            raise ContainerError(
                "the ranks of a task on many nodes cannot run in containers of a container daemon: use a runtime that "
                "starts them as the user's own processes (hpc.container.runtime = apptainer)"
            )
        if prepared.in_container and launcher in (Launcher.TORCHRUN, Launcher.ACCELERATE):
            raise ContainerError(
                f"the launcher {launcher.value} starts ranks outside of the task's container, where its packages are "
                f"not: use the launcher {Launcher.STEP.value}, which sets the same variables"
            )

    def _write_line(self, line: str) -> None:
        """The first node speaks for all: the others do the same at the same time."""
        if self._index == 0:
            self._console.write_line(line)

    def _write_node_record(self, prepared: PreparedTask) -> None:
        """For the ranks, and for programs that start them; it may hold secrets of the task's environment."""
        # The ranks inherit the first agent's environment, where the relay's proxy is that of its own node.
        inherited = {name: value for name, value in os.environ.items() if name not in PROXY_VARIABLES}
        environ = prepared.environ
        record = {
            "node": self._name,
            "index": self._index,
            "nodes": self._record.nodes,
            "ranks_per_node": self._record.ranks_per_node,
            "folder": str(self._workdir),
            "cwd": str(prepared.cwd),
            "argv": prepared.marked(RANK_OF, self._mark),
            "starter": starter(self._record, self._index, self._launcher),
            "set": {
                **{name: value for name, value in environ.items() if inherited.get(name) != value},
                **self._rendezvous(environ),
                **({} if prepared.in_step else {RANK_OF: self._mark}),
            },
            "unset": [name for name in os.environ if name not in environ],
        }
        path = self._workdir / rank_launcher.RECORD
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8", errors="surrogateescape") as file:
            json.dump(record, file, ensure_ascii=False)

    def _rendezvous(self, environ: Mapping[str, str]) -> dict[str, str]:
        found = {
            "MASTER_ADDR": self._record.master_addr,
            "MASTER_PORT": str(self._record.master_port),
            "NNODES": str(self._record.nodes),
        }
        found.update((name, value) for name, value in _defaults(self._record.interface) if name not in environ)
        return found

    # ---------------------------------------------------------------- ranks

    def _accompany(self, prepared: PreparedTask) -> int:
        """Collect what the ranks print, and carry out orders, until the last one."""
        ranks = self._record.ranks_per_node
        first = self._index * ranks
        prefixes = [f"[{self._name}:{first + local}] " if first + local else "" for local in range(ranks)]
        collector = RankCollector(
            self._workdir, prefixes, self._console.sink, lambda local, tail: self._ended(first + local, tail)
        )
        usage = JobUsage(os.environ, self._clock, self._job.control_group, self._processes)
        sampling = threading.Thread(target=self._sample, args=(usage,), name="usage", daemon=True)
        sampling.start()
        self._say(NodeMessage(kind="ready", index=self._index, node=self._name))
        finish = self._carry_out()
        self._end_ranks(0.0 if finish else self._settings.hpc.term_grace)
        self._over.set()
        sampling.join(timeout=2)
        collector.finish(_LAST_OUTPUT_S)
        write_record(node_files.usage_file(self._directory, self._start, self._index), usage.summary())
        seconds = finish.seconds if finish else 0.0
        sent = self._console.finish(Budget(seconds)) if seconds else False
        self._say(NodeMessage(kind="done", index=self._index, node=self._name, sent=sent))
        return 0

    def _carry_out(self) -> Order | None:
        """Until the order to finish; None where the first agent has ended without one."""
        interrupting: set[int] | None = None
        seen: set[int] = set()
        while True:
            try:
                order = self._orders.get(timeout=_INTERRUPT_S if interrupting is not None else None)
            except queue.Empty:
                assert interrupting is not None
                seen = self._interrupt(interrupting, seen)
                continue
            if order is None or order.kind == "finish":
                return order
            if order.kind == "interrupt":
                interrupting = interrupting or set()
            else:
                self._signal(order)

    def _end_ranks(self, seconds: float) -> None:
        """Kill what is left of the ranks, after this time. The scheduler does that as well, unless its daemon on this
        node is gone: then it gives the node up, and may start the task elsewhere."""
        until = self._clock.monotonic() + seconds
        while self._processes.find():
            if self._clock.monotonic() >= until:
                count = self._processes.signal(signal.SIGKILL)
                log.warning("node.ranks_killed", node=self._name, processes=count)
                return
            self._clock.sleep(_INTERRUPT_S)

    def _signal(self, order: Order) -> None:
        count = self._processes.signal(order.number, only_descendants=order.given)
        log.info("node.signalled", node=self._name, signal=order.number, processes=count)

    def _interrupt(self, interrupted: set[int], seen: set[int]) -> set[int]:
        """SIGINT, once, to each that has had the SDK's handlers at two looks; see ``supervise``."""
        found = {process.pid for process in self._processes.find() if has_sdk_handlers(process.pid)}
        for pid in found & seen - interrupted:
            try:
                os.kill(pid, signal.SIGINT)
            except ProcessLookupError:
                continue
            interrupted.add(pid)
        return found

    def _ended(self, rank: int, tail: str) -> None:
        """The output of a rank has ended: its last words go to the first agent, in case it failed."""
        cause = failure_cause(tail, 1)
        lines = [line for line in tail.splitlines() if line.strip()]
        text = str(cause) if cause else (lines[-1] if lines else "")
        self._say(NodeMessage(kind="ended", index=self._index, node=self._name, rank=rank, text=text))

    def _sample(self, usage: JobUsage) -> None:
        while not self._clock.wait(self._over, _SAMPLE_S):
            try:
                usage.sample()
            except Exception as error:  # noqa: BLE001 - figures that are missing must not cost the task anything
                log.warning("usage.not_sampled", node=self._name, error=error)

    # ---------------------------------------------------------------- the first agent

    def _read_orders(self) -> None:
        for line in sys.stdin.buffer:
            try:
                order = msgspec.json.decode(line, type=decodable(Order))
            except msgspec.DecodeError:
                log.warning("node.order_not_understood", node=self._name)
                continue
            self._orders.put(order)
            if order.kind == "finish":
                break
        self._orders.put(None)
        self._over.set()

    def _watch_run(self) -> None:
        """End what runs here once the run directory says that the run is over. Where the scheduler has given this node
        up, orders do not come any more, nor does their end."""
        if self._claim is None:
            return
        watch = ClaimWatch(self._directory, self._claim)
        while not self._clock.wait(self._over, CLAIM_INTERVAL_S):
            if not watch.still_ours() or self._is_reported(self._claim):
                log.warning("node.fenced", node=self._name)
                self._orders.put(Order(kind="finish"))
                self._over.set()

    def _is_reported(self, claim: ClaimRecord) -> bool:
        """Whether the server has the final status of this run; a report that cannot be read says nothing."""
        try:
            report = self._directory.exit_report()
        except (CorruptFileError, OSError):
            return False
        return report is not None and report.posted and report.at >= claim.at

    def _fail(self, text: str) -> None:
        self._say(NodeMessage(kind="failed", index=self._index, node=self._name, text=text))

    def _say(self, message: NodeMessage) -> None:
        with self._lock:
            try:
                os.write(1, message.encode())
            except OSError as error:
                log.warning("node.not_heard", node=self._name, error=error)


def _defaults(interface: str) -> list[tuple[str, str]]:
    """Variables that the task's own win over."""
    own = [(SINGLE_TASK, "2")]
    return [*own, ("GLOO_SOCKET_IFNAME", interface), ("NCCL_SOCKET_IFNAME", interface)] if interface else own
