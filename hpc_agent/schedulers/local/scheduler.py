"""The scheduler of a machine without Slurm: first in, first out, a bounded number of jobs, each with GPUs of its own.

Several daemons may share the folder. The lock only spares them doubled work; what must happen once (a number, the start
of a job) is an atomic rename or link, so that a death on any line loses nothing and starts nothing twice.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path

from hpc_agent import file_records
from hpc_agent.clock import Clock
from hpc_agent.domain.capacity import Capacity
from hpc_agent.domain.ids import JobId
from hpc_agent.domain.job import Accepted, JobRecord, JobState, LiveJob, OutcomeUnknown, Refused, SubmitResult
from hpc_agent.errors import ProcessError, SchedulerUnavailableError
from hpc_agent.file_lock import locked_within
from hpc_agent.file_records import CorruptFileError
from hpc_agent.logs import EventLog
from hpc_agent.process import background, programs
from hpc_agent.process_id import process_id
from hpc_agent.schedulers.base import JobOrigin, Share, SubmitRequest
from hpc_agent.schedulers.job_environment import scrubbed
from hpc_agent.schedulers.local import gpu_inventory
from hpc_agent.schedulers.local.jobs import (
    CancelRequest,
    DeviceClaim,
    JobFolder,
    JobsFolder,
    LocalExit,
    Spec,
)
from hpc_agent.schedulers.local.settings import LocalSettings

log = EventLog("schedulers.local")

_NAME = "Local"
"""What its jobs are called in sentences."""
_KEPT = timedelta(days=7)
_START_TIMEOUT = 30.0
"""Seconds a supervisor may take to start: an interpreter on a busy machine, from a cold file system."""


class LocalScheduler:
    """Jobs of this machine, kept in a folder of its own."""

    name = "local"

    def __init__(
        self,
        settings: LocalSettings,
        folder: Path,
        clock: Clock,
        *,
        cluster: str = "",
        grace: float = 30,
        environ: Mapping[str, str] | None = None,
        share: Share | None = None,
    ) -> None:
        """``folder`` belongs to this machine alone; ``grace`` are the seconds from TERM to KILL of a cancelled job;
        ``share`` is the part of the machine that is ours, all of it when not given."""
        self._folder = folder
        self._jobs = JobsFolder(folder / "jobs")
        self._clock = clock
        self._cluster = cluster or socket.gethostname()
        self._grace = grace
        own = os.environ if environ is None else environ
        self._environ = scrubbed(own)
        self._given = share
        self._share = share or Share("", settings.max_jobs, gpu_inventory.names(settings.gpus, own))
        self._room = Capacity(0, 0, 0)

    def cluster(self) -> str:
        return self._cluster

    def about(self) -> JobOrigin:
        return JobOrigin("this machine", ("jobs run on this machine, without Slurm",))

    def submit(self, request: SubmitRequest) -> SubmitResult:
        wanted = request.resources
        available = len(self._share.gpus)
        if wanted.gpus > available:
            return Refused(f"the job asks for {wanted.gpus} GPUs, but this machine has {available} to hand out")
        if wanted.nodes > 1:
            return Refused(f"the job asks for {wanted.nodes} nodes, but without Slurm there is this machine only")
        try:
            script = request.script.read_bytes()
            if not script.startswith(b"#!"):
                return Refused(f"{request.script} does not start with #! and the path of an interpreter")
            now = self._clock.now()
            limit = wanted.time_minutes * 60 if wanted.time_minutes else None
            spec = Spec(
                request.job_name, str(request.workdir), str(request.output), wanted.gpus, limit, now, self._given
            )
            job = self._jobs.add(spec, script)
            self._jobs.clear_away(now - _KEPT)
        except (OSError, CorruptFileError) as error:
            return OutcomeUnknown(f"the job could not be written to {self._folder}: {error}")
        return Accepted(job.id)

    def live_jobs(self) -> Sequence[LiveJob]:
        """Also starts what waits and has room."""
        with self._understood(), self._lock():
            return self._advance()

    def find(self, job_name: str, since: datetime) -> JobId | None:
        with self._understood():
            for job in reversed(self._jobs.all()):
                spec = job.spec()
                if spec is not None and spec.name == job_name and spec.submitted >= since:
                    return job.id
        return None

    def records(self, jobs: Mapping[JobId, datetime]) -> Mapping[JobId, JobRecord]:
        records = {}
        with self._understood():
            for id, submitted in jobs.items():
                job = self._jobs.get(id)
                spec = job.spec()
                if spec is None or spec.submitted < submitted:
                    continue
                ending = job.ending()
                if ending is not None:
                    records[id] = _record(id, spec, job.claim(), ending, self._cluster)
        return records

    def cancel(self, jobs: Sequence[JobId], *, only_pending: bool = False) -> None:
        with self._understood():
            for job in map(self._jobs.get, jobs):
                if job.spec() is None or job.ending() is not None or job.take(DeviceClaim(self._clock.now())):
                    continue
                if not only_pending:
                    self._stop(job)

    def release(self, jobs: Sequence[JobId]) -> None:
        """None is ever held."""

    def _stop(self, job: JobFolder) -> None:
        """Ask the supervisor; without one, TERM to the job itself, and KILL if asked again after the grace."""
        now, asked = self._clock.now(), job.cancel_request()
        if asked is None:
            job.write_cancel_request(CancelRequest(now))
        claim, child = job.claim(), job.child()
        if claim and claim.process and claim.process.is_running():
            programs.kill_group(claim.process.pid, signal.SIGTERM)
        elif child and child.is_running():
            late = asked is not None and (now - asked.at).total_seconds() > self._grace
            programs.kill_group(child.pid, signal.SIGKILL if late else signal.SIGTERM)

    def room(self) -> Capacity:
        return self._room

    def _advance(self) -> list[LiveJob]:
        """Start waiting jobs in their order while there is room; returns all that wait or run."""
        live: list[LiveJob] = []
        waiting: list[tuple[JobFolder, Spec]] = []
        use = _ResourceUse()
        for job in self._jobs.all():
            spec = None if job.is_closed() else job.spec()
            if spec is None:
                continue
            if (ending := job.ending()) is not None:
                job.write_ending(ending)
            elif (claim := job.claim()) is None:
                waiting.append((job, spec))
            else:
                use.add(self._share_of(spec), claim)
                live.append(_live(job, spec, JobState.RUNNING, nodes=self._cluster))
        live += self._start_in_order(waiting, use)
        ours = [spec for job, spec in waiting if job.claim() is None and self._share_of(spec) == self._share]
        free = len(use.free(self._share)) - sum(spec.gpus for spec in ours)
        slots = self._share.max_jobs - use.running(self._share) - len(ours)
        self._room = Capacity(slots, max(free, 0), len(self._share.gpus))
        return live

    def _start_in_order(self, waiting: Sequence[tuple[JobFolder, Spec]], use: _ResourceUse) -> list[LiveJob]:
        live: list[LiveJob] = []
        blocked: dict[str, str] = {}
        for job, spec in waiting:
            share = self._share_of(spec)
            free = use.free(share)
            reason = blocked.get(share.owner) or use.no_room(spec, share) or self._start(job, free[: spec.gpus])
            if reason:
                live.append(_live(job, spec, JobState.PENDING, reason=reason))
                # Later ones do not overtake it.
                blocked.setdefault(share.owner, f"behind job {job.id}")
            elif (claim := job.claim()) and claim.process:
                use.add(share, claim)
                live.append(_live(job, spec, JobState.RUNNING, nodes=self._cluster))
        return live

    def _share_of(self, spec: Spec) -> Share:
        return spec.share or self._share

    def _start(self, job: JobFolder, gpus: Sequence[str]) -> str:
        """Start a supervisor and wait for its claim; returns why the job does not run, or nothing.

        The next holder of the lock may start another supervisor: only one of them gets the claim.
        """
        argv = [sys.executable, "-m", "hpc_agent.schedulers.local.supervisor", str(job.path), str(self._grace), *gpus]
        output = job.path / "supervisor.log"
        try:
            pid = background.spawn_detached(argv, env=self._environ, cwd=job.path, output=output)
        except ProcessError as error:
            return self._not_started(job, str(error))
        supervisor = process_id(pid)
        deadline = self._clock.monotonic() + _START_TIMEOUT
        while job.claim() is None and supervisor and supervisor.is_running() and self._clock.monotonic() < deadline:
            self._clock.sleep(0.02)
        if job.claim() is None:
            return self._not_started(job, f"its supervisor could not start, see {output}")
        return ""

    def _not_started(self, job: JobFolder, reason: str) -> str:
        log.error("job.start_failed", job=job.id, reason=reason)
        return reason

    @contextmanager
    def _lock(self) -> Iterator[None]:
        """One daemon at a time looks for room; the kernel gives the lock back when its holder dies."""
        path = file_records.ensure_directory(self._folder, mode=0o700) / "lock"
        with (
            path.open("w", encoding="utf-8") as lock,
            locked_within(lock.fileno(), 2 * _START_TIMEOUT, self._clock) as is_ours,
        ):
            if not is_ours:
                raise SchedulerUnavailableError(f"another daemon keeps {path} locked")
            yield

    @contextmanager
    def _understood(self) -> Iterator[None]:
        """A record that cannot be read is not information."""
        try:
            yield
        except (OSError, CorruptFileError) as error:
            raise SchedulerUnavailableError(
                f"the local scheduler's folder {self._folder} cannot be used: {error}"
            ) from error


class _ResourceUse:
    """Resources in use by the running jobs of all shares."""

    def __init__(self) -> None:
        self._jobs: Counter[str] = Counter()
        self._gpus: set[str] = set()

    def add(self, share: Share, claim: DeviceClaim) -> None:
        self._jobs[share.owner] += 1
        self._gpus.update(claim.gpus)

    def running(self, share: Share) -> int:
        return self._jobs[share.owner]

    def free(self, share: Share) -> list[str]:
        return [gpu for gpu in share.gpus if gpu not in self._gpus]

    def no_room(self, spec: Spec, share: Share) -> str:
        """Why this job has to wait, or nothing."""
        running, free = self.running(share), len(self.free(share))
        if running >= share.max_jobs:
            return f"{running} of at most {share.max_jobs} jobs are running"
        if spec.gpus > free:
            return f"waiting for {spec.gpus} GPUs, {free} of {len(share.gpus)} are free"
        return ""


def _live(job: JobFolder, spec: Spec, state: JobState, *, reason: str = "", nodes: str = "") -> LiveJob:
    return LiveJob(
        id=job.id, name=spec.name, state=state, raw_state=state.value, reason=reason, nodes=nodes, scheduler=_NAME
    )


def _record(id: JobId, spec: Spec, claim: DeviceClaim | None, ending: LocalExit, node: str) -> JobRecord:
    started = claim.at if claim and claim.process else None
    return JobRecord(
        id=id,
        state=ending.state,
        raw_state=ending.state.value,
        name=spec.name,
        exit_code=ending.exit_code,
        signal=ending.signal,
        submitted=spec.submitted,
        started=started,
        ended=ending.at,
        nodes=node if started else "",
        reason=ending.reason,
        scheduler=_NAME,
    )
