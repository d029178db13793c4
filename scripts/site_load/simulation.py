"""Simulation of a site: daemons, each of a user with a queue and run directories of its own, and the tasks they run.

Real are the daemons, their run directories and records, the driver of Slurm, and what an executor asks for while its
task runs. Server and Slurm answer from memory and count. Time passes from one event to the next one.
"""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path

import msgspec

from hpc_agent.config.settings import AllSettings, HpcSettings
from hpc_agent.daemon.job_launch import JobLaunchConfig
from hpc_agent.daemon.loop import Daemon
from hpc_agent.daemon.loop_options import LoopOptions
from hpc_agent.daemon.options import DaemonOptions, JobNaming
from hpc_agent.daemon.worker_reports import REPORT_INTERVAL_S
from hpc_agent.domain.attempt import Attempt, attempt_for, parse_job_name
from hpc_agent.domain.ids import QueueId, TaskId, WorkerId
from hpc_agent.runs.attempt_records import ClaimRecord, ExitReport, SubmissionRecord
from hpc_agent.runs.directory import RunsFolder
from hpc_agent.runs.job_news import JobNews
from site_load.counting_server import CountedClient, CountingServer, Traffic
from site_load.counting_slurm import CLUSTER, CountingSlurm, SlurmJob
from site_load.executors import Executors, Work
from site_load.timeline import ProgramClock, Timeline

DAEMONS = "daemons"
"""Their name in counts."""
WAITING_JOBS = 20
"""Jobs of each daemon that wait in Slurm."""
SETTLE_S = 40.0
"""Left out of the counts: in their first passes daemons meet all their jobs."""


@dataclass(frozen=True)
class Size:
    """Of a site. ``entries`` and ``running`` are those of all daemons together."""

    entries: int
    daemons: int
    running: int
    seconds: float
    """How long it is watched."""


@dataclass(frozen=True)
class Observed:
    """In ``seconds`` of the site."""

    seconds: float
    traffic: Traffic
    commands: Counter[str]
    """Of Slurm, by program."""
    rows: int
    """Of squeue's answers."""
    ended: int
    """Tasks."""
    pass_seconds: float
    """Processor time of all daemons."""


class _Site:
    def __init__(self, folder: Path, size: Size, work: Work) -> None:
        self.folder = folder
        self.size = size
        self.work = work
        self.timeline = Timeline()
        self.server = CountingServer()
        self.commands: Counter[str] = Counter()
        self.job_ids = count(1000)
        self.task_ids = count()
        self.random = random.Random(1)
        self.executors = Executors(self.timeline, self.server, work)
        self.pass_seconds = 0.0
        self.ended = 0
        self.users = [_User(self, number) for number in range(size.daemons)]


class _User:
    """A daemon with its queue, its jobs and its run directories."""

    def __init__(self, site: _Site, number: int) -> None:
        self._site = site
        self._clock = ProgramClock(site.timeline)
        self._queue = QueueId(f"{number:032x}")
        self._worker = WorkerId(f"login:{number}")
        self.slurm = CountingSlurm(site.commands, site.job_ids, self._clock)
        self._client = CountedClient(site.server, DAEMONS, self._clock)
        folder = site.folder / f"user{number}"
        running = site.size.running // site.size.daemons
        settings = HpcSettings(root=folder, keep_runs_days=0, max_jobs=running + WAITING_JOBS)
        envs = msgspec.structs.replace(settings.envs, build_on="compute")
        settings = msgspec.structs.replace(settings, envs=envs)
        self._runs = RunsFolder(settings.runs)
        self._fill(running)
        naming = JobNaming(self._worker, "login")
        launch = JobLaunchConfig(folder / "agent.conf", ["hpc-agent"], DaemonOptions(batch_system="slurm"), naming)
        options = LoopOptions((self._queue,), self._worker)
        self._daemon = Daemon(self._client, self.slurm, AllSettings(hpc=settings), launch, options, self._clock)
        self._interval = settings.poll_interval
        site.timeline.after(self._interval * number / site.size.daemons, self._turn)
        site.timeline.after(REPORT_INTERVAL_S * number / site.size.daemons, self._report)

    def _fill(self, running: int) -> None:
        """Its queue, and the jobs that it has at the beginning."""
        site = self._site
        entries = {TaskId(f"{next(site.task_ids):032x}"): f"2026-01-01T00:00:{n:09.6f}" for n in range(self._entries)}
        site.server.add_queue(self._queue, entries)
        for task, added in list(entries.items())[: running + WAITING_JOBS]:
            attempt = attempt_for(CLUSTER, self._queue, task, added)
            job = self.slurm.add(attempt.job_name)
            submitted = SubmissionRecord(
                state="accepted",
                at=self._clock.now(),
                queue=self._queue,
                queue_name=self._queue,
                cluster=CLUSTER,
                job=job.id,
                known=True,
            )
            self._runs.of(attempt).create().write_submission(submitted)
        for job in list(self.slurm.jobs.values())[:running]:
            self._start(job, site.work.seconds * site.random.random())

    @property
    def _entries(self) -> int:
        size = self._site.size
        return (size.entries + size.running) // size.daemons

    def _start(self, job: SlurmJob, left: float) -> None:
        attempt = parse_job_name(job.name)
        assert attempt is not None
        self.slurm.start(job)
        worker = WorkerId(f"n1:slurm:{job.id}")
        self._site.server.start(attempt.task, self._queue, f"{attempt.id}.0", worker)
        claim = ClaimRecord(
            state="won",
            at=self._clock.now(),
            owner=f"job:{job.id}",
            queue=self._queue,
            cluster=CLUSTER,
            worker=worker,
            user_process_started=True,
        )
        self._runs.of(attempt).write_claim(claim)
        self._site.executors.run(attempt, self._queue, worker, left, lambda: self._end(job, attempt))

    def _end(self, job: SlurmJob, attempt: Attempt) -> None:
        """The executor has published the end; the next job that waits gets its place."""
        report = ExitReport(status="completed", reason="done", exit_code=0, at=self._clock.now(), posted=True)
        self._runs.of(attempt).write_exit_report(report)
        JobNews(self._runs.path).publish(self._queue, attempt)
        self._site.server.end(attempt.task)
        self.slurm.end(job)
        self._site.ended += 1
        following = self.slurm.waiting()
        if following is not None:
            self._start(following, self._site.work.seconds)

    def _turn(self) -> None:
        """As ``Daemon.run`` does."""
        self._clock.ahead = 0.0
        begun = time.process_time()
        if not self._daemon._try_pass():
            raise AssertionError("a pass failed: its error is in the log")
        self._site.pass_seconds += time.process_time() - begun
        self._site.timeline.after(self._clock.ahead + self._interval, self._turn)
        self._clock.ahead = 0.0

    def _report(self) -> None:
        self._client.workers.report(self._worker, queues=(self._queue,))
        self._site.timeline.after(REPORT_INTERVAL_S, self._report)

    def close(self) -> None:
        self._daemon._leases.give_back()


def simulate(folder: Path, size: Size, work: Work) -> Observed:
    """``folder`` gets the run directories."""
    site = _Site(folder, size, work)
    try:
        site.timeline.run_until(SETTLE_S)
        site.server.traffic = traffic = Traffic()
        site.commands.clear()
        site.ended, site.pass_seconds = 0, 0.0
        rows = _rows(site.users)
        site.timeline.run_until(SETTLE_S + size.seconds)
    finally:
        for user in site.users:
            user.close()
    if site.executors.running < 0.95 * size.running:
        raise AssertionError(f"{site.executors.running} tasks run, not {size.running}")
    rows = _rows(site.users) - rows
    return Observed(size.seconds, traffic, Counter(site.commands), rows, site.ended, site.pass_seconds)


def _rows(users: Sequence[_User]) -> int:
    return sum(user.slurm.rows for user in users)
