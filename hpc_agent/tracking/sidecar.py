"""Sidecar process of a user's own script in its job: it sends console and usage, and obeys an abort of the task.

It is started by the lines of ``hook`` before the script's first line, is not a child of the script, and gets killed by
Slurm when the script ends; ``follow`` sends what it could not. Whatever happens to it, the script goes on.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import socket
import stat
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec
import psutil

from hpc_agent.api.client import Client
from hpc_agent.clock import Clock
from hpc_agent.config.settings import AllSettings
from hpc_agent.domain.gpu_ids import visible_gpus
from hpc_agent.domain.ids import JobId, WorkerId
from hpc_agent.errors import HpcAgentError, InputError
from hpc_agent.executor.stop_conditions import StopReason, StopRequest
from hpc_agent.executor.watch import Meters, Watch, WatchedRun
from hpc_agent.logs import EventLog
from hpc_agent.retry import Budget
from hpc_agent.schedulers.slurm.current_job import SlurmCurrentJob
from hpc_agent.telemetry.checkpoint import Checkpoint
from hpc_agent.telemetry.shipper import ConsoleSource, Shipper
from hpc_agent.telemetry.spool import Spool
from hpc_agent.telemetry.usage import GpuReader, UsageReader
from hpc_agent.tracking.task_start import StartReport, job_id, start_task
from hpc_agent.tracking.tracked_records import (
    OutputStream,
    SidecarRecord,
    TrackedDirectory,
    TrackedJobRecord,
    TrackingPlan,
)
from hpc_agent.wire.task_requests import job_runtime

log = EventLog("sidecar")

STREAMS = (3, 4)
"""The descriptors under which the hook passes on the script's stdout and stderr."""
_LOOK_S = 0.25
_BEGIN_AGAIN_S = 5.0
_LAST = Budget(3)
"""Slurm leaves us no more, if any: the script is over."""
_IGNORED = (
    signal.SIGTERM,
    signal.SIGINT,
    signal.SIGHUP,
    signal.SIGQUIT,
    signal.SIGUSR1,
    signal.SIGUSR2,
    signal.SIGALRM,
)
"""Slurm may send them to all processes of a job; they are meant for the script."""


class Sidecar:
    """Sidecar of one script in its job: ``run`` once; it returns when the script is over."""

    def __init__(
        self, client: Client, settings: AllSettings, folder: TrackedDirectory, environ: Mapping[str, str], clock: Clock
    ) -> None:
        self._client = client
        self._settings = settings
        self._folder = folder
        self._environ = environ
        self._clock = clock
        self._job = job_id(environ)
        self._host = socket.gethostname()
        self._worker = WorkerId(f"{settings.agent.name}:slurm:{self._job}")
        self._stop = StopRequest()

    def run(self, script: int) -> None:
        """``script``: the process id of the script's shell.

        Raises:
            InputError: the folder is not there: the task has its final status already.
        """
        plan = self._folder.plan()
        if plan is None:
            raise InputError(f"{self._folder.path} is gone, there is nothing to report to")
        shell = _process(script)
        _detach()
        self._record_process()
        streams, shippers = self._shippers()
        record = SidecarRecord(host=self._host, worker=self._worker, streams=streams)
        self._folder.write_sidecar(record)
        if self._started(plan, shell):
            complete = self._accompany(shell, shippers)
            self._folder.write_sidecar(msgspec.structs.replace(record, over=complete))

    def _record_process(self) -> None:
        """Who called sbatch may have died, got no clear answer, or read another number out of it."""
        noted, own = self._folder.job(), TrackedJobRecord(id=self._job, known=True)
        if noted != own:
            self._folder.write_job(own)
            if noted is not None and noted.id != own.id:
                log.warning("job.id_corrected", noted=noted.id, job=own.id)

    def _accompany(self, script: psutil.Process | None, shippers: Sequence[Shipper]) -> bool:
        """Until the script is over; True if all that it printed is sent."""
        for shipper in shippers:
            shipper.start()
        self._introduce()
        watch = self._watch()
        watch.start()
        self._until_over(script)
        watch.finish()
        sent = [shipper.finish(_LAST) for shipper in shippers]
        return all(sent)

    def _shippers(self) -> tuple[tuple[OutputStream, ...], list[Shipper]]:
        streams: list[OutputStream] = []
        shippers = []
        source = ConsoleSource(self._folder.task, self._worker, self._settings.agent.suppress_carriage_return)
        for descriptor in STREAMS:
            stream = _stream(descriptor)
            if stream is None or stream in streams:
                continue
            number = len(streams)
            # Through the descriptor: the script may rename the file, or be in a file system of its own.
            spool = Spool(Path(f"/proc/self/fd/{descriptor}"), self._folder.mark(number))
            _set_mark(spool, self._size_before(descriptor), appends=_appends(descriptor))
            streams.append(stream)
            shippers.append(Shipper(spool, source, self._client.events, self._clock, rewritable=True))
        return tuple(streams), shippers

    def _size_before(self, descriptor: int) -> int:
        """How long the file was when the job began to append to it."""
        try:
            return int(self._folder.sizes.read_text(encoding="utf-8").split()[STREAMS.index(descriptor)])
        except (OSError, ValueError, IndexError):
            return 0

    def _watch(self) -> Watch:
        return Watch(
            self._client,
            WatchedRun(self._folder.task, self._worker),
            self._stop,
            self._clock,
            ping_interval=self._settings.agent.task_ping_interval_sec,
            callback_limit=self._settings.agent.abort_callback_max_timeout,
            meters=Meters(UsageReader(self._clock, GpuReader(visible_gpus(dict(self._environ))))),
        )

    def _started(self, plan: TrackingPlan, script: psutil.Process | None) -> bool:
        """Set the task started; False if that came to nothing before the script's end, or is not to be."""
        while _is_alive(script):
            try:
                start = start_task(self._client, self._folder, plan, self._job, self._clock)
            except HpcAgentError as error:
                log.warning("task.start_failed", task=self._folder.task, error=error)
                self._clock.sleep(_BEGIN_AGAIN_S)
                continue
            if start is StartReport.WITHDRAWN:
                self._cancel("its task was aborted while it waited")
            return start is StartReport.STARTED
        return False

    def _introduce(self) -> None:
        try:
            self._client.tasks.add_runtime(self._folder.task, job_runtime(self._job, self._host))
            self._client.tasks.set_properties(self._folder.task, {"slurm_job_id": self._job})
            self._client.workers.report(self._worker, task=self._folder.task)
        except HpcAgentError as error:
            log.warning("task.node_not_shown", task=self._folder.task, error=error)

    def _until_over(self, script: psutil.Process | None) -> None:
        cancelled = False
        while _is_alive(script):
            held = self._stop.is_held(self._clock.monotonic())
            if self._stop.reason is StopReason.ABORT and not held and not cancelled:
                self._cancel("its task was aborted")
                cancelled = True
            self._clock.sleep(_LOOK_S)

    def _cancel(self, why: str) -> None:
        log.info("job.cancelled", job=self._job, why=why)
        if failure := SlurmCurrentJob(JobId(self._job), self._environ).cancel():
            log.error("job.not_cancelled", job=self._job, error=failure)


def _detach() -> None:
    """Out of the script's process group (it may say ``kill 0``), deaf to what is meant for it, and behind it."""
    with contextlib.suppress(OSError):
        os.setsid()
    os.nice(10)
    for number in _IGNORED:
        signal.signal(number, signal.SIG_IGN)
    # If memory runs out, the kernel takes us and not the script.
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000", encoding="utf-8")


def _process(pid: int) -> psutil.Process | None:
    try:
        return psutil.Process(pid)
    except psutil.NoSuchProcess:
        return None


def _is_alive(script: psutil.Process | None) -> bool:
    try:
        # Knows a process that merely has the same number.
        return script is not None and script.is_running() and script.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _stream(descriptor: int) -> OutputStream | None:
    """The file behind a descriptor; None for what cannot be read again, such as /dev/null."""
    try:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode):
            return None
        return OutputStream(path=str(Path(f"/proc/self/fd/{descriptor}").readlink()), inode=found.st_ino)
    except OSError:
        return None


def _appends(descriptor: int) -> bool:
    return bool(fcntl.fcntl(descriptor, fcntl.F_GETFL) & os.O_APPEND)


def _set_mark(spool: Spool, before: int, *, appends: bool) -> None:
    """Where to begin: a file that Slurm appends to holds what was there before, and of a requeued job what was sent."""
    mark = spool.mark()
    offset = max(before, mark.offset) if appends else 0
    if offset > spool.size():
        offset = 0
    if offset != mark.offset:
        spool.remember(Checkpoint(offset, mark.timestamp_ms))
