"""Checks of the scheduler: does it answer, would it take a job of each queue, how near are the limits?"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from functools import partial

from hpc_agent.clock import Clock
from hpc_agent.config.settings import HpcSettings
from hpc_agent.doctor.check import Check, CheckResult, Once, SkippedError, failed, ok, warning
from hpc_agent.domain.duration import format_duration
from hpc_agent.domain.job import JobState
from hpc_agent.domain.resources import Resources
from hpc_agent.errors import SchedulerUnavailableError
from hpc_agent.schedulers import backends
from hpc_agent.schedulers.base import UserCommands
from hpc_agent.schedulers.cluster import ClusterClient, ExpectedStart, UserLimits

SUBJECT = "Scheduler"
_NEAR = 0.9
_SOON_S = 60
_OTHER = "hpc-agent config     # what each queue asks for and where it comes from; hpc-agent init writes it again"


def remedy_for(refusal: str, commands: UserCommands) -> str:
    """What to look at, by a word of the scheduler's ``refusal``."""
    remedies = {
        "account": f"{commands.accounts}     # your accounts; hpc.resources.account names one",
        "partition": f"{commands.partitions}     # the partitions; hpc.queues.<queue>.resources.partition names one",
        "qos": f"{commands.accounts}     # your QOS; hpc.resources.qos names one",
        "time limit": "hpc-agent free     # the partitions' time limits; hpc.resources.time_limit sets one",
        "node configuration": "hpc-agent free --all     # what the nodes have; hpc.resources asks for more",
    }
    return next((remedy for word, remedy in remedies.items() if word in refusal.lower()), _OTHER)


class SchedulerChecks:
    """``queues``: names of those whose jobs are tried."""

    def __init__(self, hpc: HpcSettings, queues: Sequence[str], clock: Clock) -> None:
        self._hpc = hpc
        self._queues = queues
        self._clock = clock
        self._backend = backends.choose(hpc)
        self._commands = self._backend.user_commands
        self._about = Once(lambda: self._backend.create(hpc, clock).about())

    @property
    def is_batch_system(self) -> bool:
        return self._backend.is_batch_system

    def all(self) -> list[Check]:
        checks = [Check(SUBJECT, "scheduler", self._answers, self._commands.is_up)]
        if not self._backend.is_batch_system:
            return checks
        for queue in self._queues or ("",):
            name = f"submit {queue}".rstrip()
            checks.append(Check(SUBJECT, name, partial(self._would_take, queue), _OTHER))
        return [*checks, Check(SUBJECT, "limits", self._limits, self._commands.own_jobs)]

    def _need_scheduler(self) -> None:
        if not self._backend.is_installed():
            raise SkippedError("there is no scheduler here")
        try:
            self._about.get()
        except SchedulerUnavailableError as error:
            raise SkippedError("the scheduler does not answer") from error

    def _answers(self) -> Iterator[CheckResult]:
        if not self._backend.is_installed():
            yield failed(
                f"hpc.scheduler is {self._backend.name}, whose commands are not on PATH",
                "run this on a login node, or load the site's module first: module avail",
            )
            return
        if not self._backend.is_batch_system:
            yield ok("no batch system: jobs run on this machine")
            return
        about = self._about.get()
        yield ok(about.name)
        for note in about.notes:
            yield ok(note, name="note")

    def _client(self) -> ClusterClient:
        self._need_scheduler()
        client = self._backend.cluster_client(self._hpc)
        if client is None:
            raise SkippedError(f"{self._backend.name} cannot be asked without submitting a job: --jobs submits one")
        return client

    def _would_take(self, queue: str) -> Iterator[CheckResult]:
        client = self._client()
        resources = self.resources(queue)
        answer = client.expected_start(resources)
        where = f"partition {resources.partition}" if resources.partition else "the default partition"
        if answer.refused:
            yield failed(
                f"a job would be refused in {where}: {answer.refused}", remedy_for(answer.refused, self._commands)
            )
        else:
            yield ok(f"a job would be taken in {where}{_when(answer, self._clock.now())}")

    def resources(self, queue: str) -> Resources:
        """What a job of the queue asks for; empty: of any queue without a block."""
        return self._hpc.queue(queue).policy(queue, self._hpc.resources).resources({})

    def _limits(self) -> Iterator[CheckResult]:
        self._need_scheduler()
        jobs = self._backend.create(self._hpc, self._clock).live_jobs()
        running = sum(job.state is JobState.RUNNING for job in jobs)
        used = f"{len(jobs)} jobs of yours, {running} of them running"
        client = self._backend.cluster_client(self._hpc)
        limits = client.user_limits() if client is not None else UserLimits()
        bounds = dict(self._bounds(limits))
        most = [f"{name} {bound}" for name, (_, bound) in bounds.items()]
        sentence = f"{used}; limits: hpc.max_jobs {self._hpc.max_jobs}{''.join(f', {text}' for text in most)}"
        counts = {"submitted": len(jobs), "running": running}
        near = [name for name, (what, bound) in bounds.items() if counts[what] >= bound * _NEAR]
        near += ["hpc.max_jobs"] if len(jobs) >= self._hpc.max_jobs * _NEAR else []
        if near:
            yield warning(
                f"{sentence}: {' and '.join(near)} is nearly or wholly used, further jobs wait", self._commands.own_jobs
            )
        else:
            yield ok(sentence)

    def _bounds(self, limits: UserLimits) -> Iterator[tuple[str, tuple[str, int]]]:
        """Limits on numbers of jobs of the accounts and QOS that the queues use: label → what it counts, and how many.
        Jobs are counted together: one of another account counts too."""
        for queue in self._queues or ("",):
            asked = self.resources(queue)
            for account in limits.accounts:
                if not (account.name == asked.account or (account.default and not asked.account)):
                    continue
                yield from _numbers(f"account {account.name}", account.limits)
                qos = asked.qos or account.default_qos
                yield from _numbers(f"QOS {qos}", limits.qos.get(qos, {}))


_COUNTED = {"MaxJobs": "running", "MaxJobsPU": "running", "MaxSubmit": "submitted", "MaxSubmitPU": "submitted"}


def _numbers(owner: str, limits: Mapping[str, str]) -> Iterator[tuple[str, tuple[str, int]]]:
    for name, what in _COUNTED.items():
        if limits.get(name, "").isdecimal():
            yield f"{owner} {name}", (what, int(limits[name]))


def _when(answer: ExpectedStart, now: datetime) -> str:
    if answer.start is None:
        return ""
    seconds = (answer.start - now).total_seconds()
    return ", and would start " + ("now" if seconds <= _SOON_S else f"in {format_duration(seconds)}")
