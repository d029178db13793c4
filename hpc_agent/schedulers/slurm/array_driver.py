"""Job arrays of Slurm: many jobs in one submission. Others see each element as a job with its own name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Protocol

from msgspec.structs import replace

from hpc_agent.clock import Clock
from hpc_agent.domain.capacity import Capacity
from hpc_agent.domain.ids import JobId
from hpc_agent.domain.job import Accepted, JobRecord, LiveJob, SubmitResult, unconfirmed_record
from hpc_agent.logs import EventLog
from hpc_agent.schedulers.base import JobOrigin, Scheduler, SubmitRequest
from hpc_agent.schedulers.slurm.array_folders import ArrayFolders, is_array_name
from hpc_agent.schedulers.slurm.array_script import ArrayKey, array_key, array_script
from hpc_agent.schedulers.slurm.commands import ArrayRequest
from hpc_agent.schedulers.slurm.settings import SlurmSettings

log = EventLog("schedulers.slurm")

_FOUND_FOR_S = 2.0
"""How long the answer to a search holds for the other elements of an array: a pass asks for each of them."""


class SlurmWithArrays(Scheduler, Protocol):
    """``SlurmScheduler``; its ``submit`` takes an ``ArrayRequest`` too, and answers with the array's id."""

    def max_array_size(self) -> int:
        """Elements of one array, at most; 0 where there are none.

        Raises:
            SchedulerUnavailableError: no usable answer.
        """


class SlurmArrays:
    """See ``schedulers.base.ArrayScheduler``."""

    def __init__(self, slurm: SlurmWithArrays, folders: ArrayFolders, settings: SlurmSettings, clock: Clock) -> None:
        self._slurm = slurm
        self._folders = folders
        self._settings = settings
        self._clock = clock
        self._searched: dict[str, tuple[float, JobId | None]] = {}
        """When each array was searched for the last time, by name, and its id."""
        self._named_all = True
        """Whether the own name of each element in the last ``live_jobs`` could be read."""

    # ------------------------------------------------ schedulers.base.ArrayScheduler

    def array_size(self) -> int:
        wanted = self._settings.array_size
        return min(wanted, self._slurm.max_array_size()) if wanted > 1 else 0

    def array_key(self, script: str) -> ArrayKey | None:
        return array_key(script)

    def submit_array(self, requests: Sequence[SubmitRequest]) -> Sequence[SubmitResult]:
        first = requests[0]
        key = array_key(first.script.read_text(encoding="utf-8"))
        assert key is not None
        folder = self._folders.create()
        folder.write(requests, array_script(key, folder.path, first.script.name))
        answer = self._slurm.submit(
            ArrayRequest(
                folder.script,
                folder.name,
                folder.path,
                Path(first.output.name),
                first.resources,
                elements=len(requests),
                running=self._settings.array_running,
            )
        )
        if not isinstance(answer, Accepted):
            return [answer] * len(requests)
        log.info("array.submitted", job=answer.job, elements=len(requests))
        return [replace(answer, job=_element(answer.job, index)) for index in range(len(requests))]

    # ------------------------------------------------ schedulers.base.Scheduler

    @property
    def name(self) -> str:
        return self._slurm.name

    def cluster(self) -> str:
        return self._slurm.cluster()

    def about(self) -> JobOrigin:
        return self._slurm.about()

    def submit(self, request: SubmitRequest) -> SubmitResult:
        self._folders.drop(request.job_name)
        return self._slurm.submit(request)

    def live_jobs(self) -> Sequence[LiveJob]:
        jobs = [self.with_own_name(job) for job in self._slurm.live_jobs()]
        self._named_all = not any(is_array_name(job.name) for job in jobs)
        return jobs

    def with_own_name(self, job: LiveJob) -> LiveJob:
        """The job, by its own name where it is an element of ours."""
        name = self._folders.job_name(job.name, job.id)
        return job if name is None else replace(job, name=name)

    def room(self) -> Capacity:
        return self._slurm.room()

    def find(self, job_name: str, since: datetime) -> JobId | None:
        elements = self._folders.elements(job_name)
        if not elements:
            return self._slurm.find(job_name, since)
        for element in elements:
            array = self._find_array(element.array, since)
            if array is not None:
                return _element(array, element.index)
        return None

    def _find_array(self, name: str, since: datetime) -> JobId | None:
        at, found = self._searched.get(name, (float("-inf"), None))
        if self._clock.monotonic() - at > _FOUND_FOR_S:
            found = self._slurm.find(name, since)
            self._searched[name] = self._clock.monotonic(), found
        return found

    def records(self, jobs: Mapping[JobId, datetime]) -> Mapping[JobId, JobRecord]:
        found = {job: self._own(record) for job, record in self._slurm.records(jobs).items()}
        if not self._named_all:
            # An element that is listed, and whose name could not be read, may be any of these.
            found |= {job: unconfirmed_record(job) for job in jobs if job not in found}
        return found

    def _own(self, record: JobRecord) -> JobRecord:
        """By its own name; without one where that cannot be read, as slurmdbd has none for the first seconds."""
        if not is_array_name(record.name):
            return record
        return replace(record, name=self._folders.job_name(record.name, record.id) or "")

    def cancel(self, jobs: Sequence[JobId], *, only_pending: bool = False) -> None:
        self._slurm.cancel(jobs, only_pending=only_pending)

    def release(self, jobs: Sequence[JobId]) -> None:
        self._slurm.release(jobs)


def _element(array: JobId, index: int) -> JobId:
    """``array``: the id of the array, or of any of its elements."""
    return JobId(f"{array.partition('_')[0]}_{index}")
