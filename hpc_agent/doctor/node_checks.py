"""Checks of compute nodes: a job of seconds on each partition that queues use, and what it reports."""

from __future__ import annotations

import secrets
import shlex
import shutil
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path

import msgspec
from msgspec.structs import replace

from hpc_agent.cancellation import CancellableClock
from hpc_agent.clock import Clock
from hpc_agent.config.job_config import write_job_config
from hpc_agent.config.load import Configuration
from hpc_agent.doctor import node_report
from hpc_agent.doctor.check import Check, CheckResult, failed, ok, skipped, warning
from hpc_agent.doctor.node_report import NodeReport
from hpc_agent.doctor.scheduler_checks import remedy_for
from hpc_agent.domain.attempt import Attempt
from hpc_agent.domain.ids import AttemptId, JobId, TaskId
from hpc_agent.domain.job import Accepted, LiveJob, SubmitResult
from hpc_agent.domain.resources import Resources
from hpc_agent.domain.task import Task
from hpc_agent.errors import SchedulerUnavailableError
from hpc_agent.file_records import ensure_directory, exists_uncached, read_record, write_atomic, write_record
from hpc_agent.schedulers import backends
from hpc_agent.schedulers.base import Scheduler, SubmitRequest
from hpc_agent.submission.render import JobContext, Renderer

JOB_NAME = "hpc-agent-doctor"
NOT_ASKED = "Nodes"
"""Heading of the line that is shown where no node is looked at."""
_MINUTES = 5
_MEMORY_MB = 1024
_ANSWER_S = 150.0
"""A job that has started is given this long: its slowest check has 100 s."""
_POLL_S = 0.1
_ASK_S = 5.0
"""Between two questions to the scheduler."""
_LATE_FILE_S = 30.0
"""How much later than the job's end its report may show here."""
_SLOW_S = 10.0
_OUTPUT = "job.out"


class ProbeTarget(msgspec.Struct, frozen=True):
    """Where a job is sent. ``resources``: those of a queue that sends its jobs there."""

    queue: str
    resources: Resources

    @property
    def title(self) -> str:
        return f"Partition {self.resources.partition}" if self.resources.partition else "Default partition"


def targets(configuration: Configuration, queues: Sequence[str]) -> list[ProbeTarget]:
    """One for each partition of the queues; the first queue that uses it says with which account and QOS."""
    hpc = configuration.settings.hpc
    found: dict[str, ProbeTarget] = {}
    for queue in queues or ("",):
        resources = hpc.queue(queue).policy(queue, hpc.resources).resources({})
        for partition in resources.partition.split(","):
            found.setdefault(partition, ProbeTarget(queue, replace(resources, partition=partition)))
    return list(found.values())


def checks(
    configuration: Configuration,
    targets: Sequence[ProbeTarget],
    wait: float,
    clock: Clock,
    repositories: Sequence[str] = (),
) -> list[Check]:
    """``wait``: seconds that a job may wait for its start. ``repositories``: as in ``machine_checks.checks``."""
    return [
        Check(
            target.title,
            "job",
            partial(_Probe(configuration, target, wait, clock, repositories).run),
            backends.choose(configuration.settings.hpc).user_commands.own_jobs,
            timeout=wait + _ANSWER_S + _LATE_FILE_S + 10,
        )
        for target in targets
    ]


class _Probe:
    """One job, from its submission to its report."""

    def __init__(
        self,
        configuration: Configuration,
        target: ProbeTarget,
        wait: float,
        clock: Clock,
        repositories: Sequence[str],
    ) -> None:
        self._configuration = configuration
        self._hpc = configuration.settings.hpc
        self._target = target
        self._wait = wait
        self._repositories = tuple(repositories)
        self._clock = CancellableClock(clock)
        self._backend = backends.choose(self._hpc)
        self._scheduler: Scheduler = self._backend.create(self._hpc, clock)
        self._asked_at = 0.0
        self._listed: LiveJob | None = None

    def run(self) -> Iterator[CheckResult]:
        with self._folder() as folder:
            write_record(folder / node_report.REPOSITORIES, self._repositories, mode=0o600)
            answer = self._submit(folder)
            if not isinstance(answer, Accepted):
                yield failed(
                    f"no job was submitted: {answer.message}", remedy_for(answer.message, self._backend.user_commands)
                )
                return
            job = answer.job
            try:
                yield from self._follow(job, folder)
            finally:
                self._end(job)

    @contextmanager
    def _folder(self) -> Iterator[Path]:
        above = ensure_directory(self._hpc.root.expanduser() / "doctor", mode=0o700)
        folder = ensure_directory(above / secrets.token_hex(6), mode=0o700)
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    # ------------------------------------------------------------ submission

    def _submit(self, folder: Path) -> SubmitResult:
        """Small; as its queue asks where a partition wants GPUs of its jobs."""
        asked = self._target.resources
        small = replace(
            asked,
            nodes=1,
            gpus=0,
            gpu_type="",
            cpus=1,
            memory_mb=min(asked.memory_mb or _MEMORY_MB, _MEMORY_MB),
            time_minutes=min(asked.time_minutes or _MINUTES, _MINUTES),
        )
        answer = self._scheduler.submit(self._request(folder, small))
        if isinstance(answer, Accepted) or not asked.gpus:
            return answer
        with_gpus = replace(small, gpus=1, gpu_type=asked.gpu_type)
        return self._scheduler.submit(self._request(folder, with_gpus))

    def _request(self, folder: Path, resources: Resources) -> SubmitRequest:
        config = folder / "clearml.conf"
        write_job_config(self._configuration, config, {"agent.worker_id": ""})
        renderer = Renderer(self._backend.script(self._hpc), self._hpc.template_dirs)
        task = TaskId("doctor")
        context = JobContext(
            task=Task(task),
            attempt=Attempt(task, AttemptId("0" * 8)),
            queue_name=self._target.queue,
            resources=resources,
            run_dir=folder,
            output=folder / _OUTPUT,
            config_file=config,
            agent=self._agent,
            job_name=JOB_NAME,
            requeue=False,
        )
        script = folder / "probe.sh"
        write_atomic(script, renderer.render(renderer.language.probe_template, context).encode(), mode=0o700)
        return SubmitRequest(script, JOB_NAME, folder, context.output, resources)

    @property
    def _agent(self) -> Sequence[str]:
        return self._hpc.agent_command or (sys.executable, "-m", "hpc_agent")

    # ------------------------------------------------------------ what becomes of it

    def _follow(self, job: JobId, folder: Path) -> Iterator[CheckResult]:
        before = self._clock.monotonic()
        if not self._seen(job, folder / node_report.STARTED, self._wait):
            yield self._not_started(job, folder)
            return
        waited = self._clock.monotonic() - before
        node = (folder / node_report.STARTED).read_text(encoding="utf-8", errors="replace").strip()
        yield ok(f"job {job} started on {node} after {waited:.0f} s")
        if self._seen(job, folder / node_report.READY, _ANSWER_S):
            yield self._round_trip(job, folder)
        if not self._seen(job, folder / node_report.REPORT, _ANSWER_S):
            yield self._no_report(folder, node)
            return
        report = read_record(folder / node_report.REPORT, NodeReport)
        for line in report.lines if report else ():
            yield line.finding()

    def _seen(self, job: JobId, file: Path, seconds: float) -> bool:
        """Whether the file shows here within so many seconds, and while the job is there or soon after."""
        deadline = self._clock.monotonic() + seconds
        gone_at: float | None = None
        while not exists_uncached(file):
            now = self._clock.monotonic()
            if now > deadline or (gone_at is not None and now > gone_at + _LATE_FILE_S):
                return False
            if gone_at is None and now > self._asked_at + _ASK_S:
                gone_at = None if self._is_listed(job) else now
            self._clock.sleep(_POLL_S)
        return True

    def _is_listed(self, job: JobId) -> bool:
        """No answer says nothing about the job."""
        self._asked_at = self._clock.monotonic()
        try:
            self._listed = next((live for live in self._scheduler.live_jobs() if live.id == job), None)
        except SchedulerUnavailableError:
            return True
        return self._listed is not None

    def _not_started(self, job: JobId, folder: Path) -> CheckResult:
        if self._is_listed(job) and self._listed and self._listed.reason:
            sentence = f"job {job} did not start within {self._wait:g} s ({self._listed.reason}) and was cancelled"
            return warning(
                sentence, f"hpc-agent doctor --jobs --wait {self._wait * 5:g}     # hpc-agent free shows why"
            )
        if self._listed:
            where = f" on {self._listed.nodes}" if self._listed.nodes else ""
            sentence = f"job {job} runs{where}, but no file of it is seen in {folder.parent}"
            return failed(sentence, "name a folder that all nodes see: hpc.root")
        if output := _last_line(folder / _OUTPUT):
            return failed(
                f"job {job} ended before its script began: {output}", "name a folder that all nodes see: hpc.root"
            )
        sentence = (
            f"job {job} ended, and no file of it is seen in {folder.parent}: nodes do not see it, or cannot write"
        )
        return failed(sentence, "name a folder that all nodes see: hpc.root")

    def _round_trip(self, job: JobId, folder: Path) -> CheckResult:
        before = self._clock.monotonic()
        (folder / node_report.PING).touch()
        if not self._seen(job, folder / node_report.PONG, _ANSWER_S):
            return failed("the node does not see files that are written here", "hpc.root", name="files")
        seconds = self._clock.monotonic() - before
        sentence = f"a file written here is seen on the node, and one written there here, within {seconds:.1f} s"
        if seconds < _SLOW_S:
            return ok(sentence, name="files")
        remedy = "ask the administrators about the caching of names there (NFS: acdirmax, lookupcache)"
        return warning(sentence, remedy, name="files")

    def _no_report(self, folder: Path, node: str) -> CheckResult:
        output = _last_line(folder / _OUTPUT)
        command = shlex.join(self._agent)
        sentence = f"`{command}` does not run on {node}: {output or 'it printed nothing'}"
        return failed(sentence, "install it where the nodes see it, or set hpc.agent_command", name="python")

    def _end(self, job: JobId) -> None:
        """A job that is over is not there to be cancelled."""
        with suppress(SchedulerUnavailableError):
            if self._is_listed(job):
                self._scheduler.cancel([job])


def _last_line(file: Path) -> str:
    try:
        lines = file.read_text(encoding="utf-8", errors="replace").split("\n")
    except OSError:
        return ""
    return next((line.strip()[:500] for line in reversed(lines) if line.strip()), "")


def no_jobs() -> list[Check]:
    """In place of the jobs, where none may be submitted."""
    return [Check(NOT_ASKED, "nodes", _not_asked)]


def _not_asked() -> Iterator[CheckResult]:
    yield skipped("not looked at", "hpc-agent doctor --jobs     # a job of seconds on each partition")
