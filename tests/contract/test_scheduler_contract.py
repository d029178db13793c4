"""What every scheduler does; a new one is done when these pass over it."""

from __future__ import annotations

import os
import secrets
import subprocess
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from manual_clock import ManualClock
from msgspec.structs import replace
from simulated_arrays import ArrayCluster
from simulated_cluster import SimulatedCluster
from simulated_faults import Faults
from waiting import contains, empty, equals, wait_until

from hpc_agent.clock import SYSTEM
from hpc_agent.domain.capacity import Capacity
from hpc_agent.domain.ids import JobId
from hpc_agent.domain.job import Accepted, JobRecord, JobState, LiveJob, Refused, SubmitResult
from hpc_agent.domain.resources import Resources
from hpc_agent.domain.status import TaskStatus
from hpc_agent.schedulers.base import Scheduler, SubmitRequest
from hpc_agent.schedulers.gridengine.scheduler import GridEngineScheduler
from hpc_agent.schedulers.gridengine.settings import GridEngineSettings
from hpc_agent.schedulers.local.scheduler import LocalScheduler
from hpc_agent.schedulers.local.settings import LocalSettings
from hpc_agent.schedulers.registry import BACKENDS
from hpc_agent.schedulers.slurm.array_driver import SlurmArrays, SlurmWithArrays
from hpc_agent.schedulers.slurm.array_folders import ArrayFolders
from hpc_agent.schedulers.slurm.driver import SlurmScheduler
from hpc_agent.schedulers.slurm.settings import SlurmSettings

FOREIGN = {"SLURM_CPU_BIND": "quiet,mask_cpu:0x1", "SBATCH_PARTITION": "nope", "CLEARML_API_SECRET_KEY": "hidden"}
"""In the environment that every scheduler here is started with; no job may see any of it."""


class SchedulerSite(ABC):
    """A scheduler, and the means to give it work."""

    def __init__(self, folder: Path, scheduler: Scheduler) -> None:
        self.folder = folder
        self.scheduler = scheduler
        self.jobs: list[JobId] = []

    def directives(self, gpus: int) -> str:
        """Lines that a script needs to get so many GPUs, where ``SubmitRequest.resources`` are not enough."""
        return ""

    @abstractmethod
    def submit_waiting(self) -> JobId:
        """A job that does not start."""

    def request(self, body: str, *, name: str = "", gpus: int = 0, head: str = "") -> SubmitRequest:
        name = name or f"job_{secrets.token_hex(4)}"
        script = self.folder / f"{name}.sh"
        script.write_text(f"#!/bin/bash\n{self.directives(gpus) if gpus else ''}{head}{body}\n")
        return SubmitRequest(script, name, self.folder, self.output(name), Resources(gpus=gpus))

    def submit(self, body: str, **options: Any) -> JobId:
        answer = self.scheduler.submit(self.request(body, **options))
        assert isinstance(answer, Accepted), answer
        self.jobs.append(answer.job)
        return answer.job

    def output(self, name: str) -> Path:
        return self.folder / f"{name}.out"

    def live(self, job: JobId) -> LiveJob | None:
        return next((live for live in self.scheduler.live_jobs() if live.id == job), None)

    def state(self, job: JobId) -> JobState | None:
        live = self.live(job)
        return live.state if live else None

    def wait_for_start(self, job: JobId) -> None:
        wait_until(f"job {job} to run", lambda: self.state(job), equals(JobState.RUNNING))

    def has_written(self, *names: str) -> bool:
        """Whether jobs made these files, once they had a chance to start."""
        self.scheduler.live_jobs()
        return all((self.folder / name).exists() for name in names)

    def wait_for_record(self, job: JobId) -> JobRecord:
        since = SYSTEM.now() - timedelta(hours=1)

        def look() -> LiveJob | JobRecord | None:
            # sacct may have a final state while the job is still completing
            return self.live(job) or self.scheduler.records({job: since}).get(job)

        record = wait_until(f"the record of job {job}", look, lambda seen: seen is not None and seen.state.is_final)
        assert isinstance(record, JobRecord)
        return record


class LocalSite(SchedulerSite):
    def __init__(self, folder: Path, environ: Mapping[str, str]) -> None:
        settings = LocalSettings(max_jobs=3, gpus=4)
        state = folder / "state"
        super().__init__(folder, LocalScheduler(settings, state, SYSTEM, grace=5, environ={**environ, **FOREIGN}))

    def submit_waiting(self) -> JobId:
        for _ in range(3):
            self.submit("sleep 60")
        return self.submit("sleep 60")


class SlurmSchedulerSite(SchedulerSite):
    def __init__(self, folder: Path, environ: Mapping[str, str]) -> None:
        super().__init__(folder, SlurmScheduler(SlurmSettings(), environ={**environ, **FOREIGN}))

    def directives(self, gpus: int) -> str:
        return f"#SBATCH --gres=gpu:{gpus}\n#SBATCH --nodelist=n1\n"

    def submit_waiting(self) -> JobId:
        return self.submit("sleep 60", head="#SBATCH --begin=now+1hour\n")


class InArrays(SlurmArrays):
    """Each job that can be is the second element of an array, whose first one ends at once."""

    def __init__(self, slurm: SlurmWithArrays, folder: Path) -> None:
        super().__init__(slurm, ArrayFolders(folder / ".arrays"), SlurmSettings(array_size=2), SYSTEM)

    def submit(self, request: SubmitRequest) -> SubmitResult:
        key = self.array_key(request.script.read_text())
        if key is None:
            return super().submit(request)
        folder = request.workdir / f"{request.job_name}.companion"
        folder.mkdir()
        script = folder / request.script.name
        script.write_text("\n".join(["#!/bin/bash", *key.directives, "true", ""]))
        first = replace(
            request, script=script, job_name=folder.name, workdir=folder, output=folder / request.output.name
        )
        return self.submit_array([first, request])[1]


def companion(job: JobId) -> JobId:
    """The other element of its array."""
    return JobId(f"{job.partition('_')[0]}_0")


class SlurmArraySite(SlurmSchedulerSite):
    def __init__(self, folder: Path, environ: Mapping[str, str]) -> None:
        super().__init__(folder, environ)
        self.scheduler = InArrays(SlurmScheduler(SlurmSettings(), environ={**environ, **FOREIGN}), folder)

    def submit(self, body: str, **options: Any) -> JobId:
        job = super().submit(body, **options)
        assert job.endswith("_1")
        self.jobs.append(companion(job))
        return job


class GridEngineSite(SchedulerSite):
    def __init__(self, folder: Path, environ: Mapping[str, str]) -> None:
        # As in a shell inside one of its jobs.
        own_job = {"JOB_ID": "4711", "SGE_JOB_SPOOL_DIR": "/", "SGE_TASK_ID": "undefined"}
        scheduler = GridEngineScheduler(
            GridEngineSettings(accounting_delay=3),
            SYSTEM,
            cluster="",
            grace=5,
            environ={**environ, **FOREIGN, **own_job},
        )
        super().__init__(folder, scheduler)

    def directives(self, gpus: int) -> str:
        return f"#$ -l gpu={gpus}\n"

    def submit_waiting(self) -> JobId:
        return self.submit("sleep 60", head="#$ -h\n")


class SimulatedSchedulerSite(SchedulerSite):
    """The scheduler of the property tests: a job here ends as its script does."""

    def __init__(self, folder: Path) -> None:
        self.cluster = self._new_cluster()
        super().__init__(folder, self.cluster)
        self._scripts: dict[JobId, subprocess.Popen[bytes]] = {}

    def _new_cluster(self) -> SimulatedCluster:
        return SimulatedCluster(Faults(), ManualClock(SYSTEM.now()), lambda: TaskStatus.UNKNOWN)

    def submit_waiting(self) -> JobId:
        answer = self.scheduler.submit(self.request("sleep 60"))
        assert isinstance(answer, Accepted)
        self.jobs.append(answer.job)
        return answer.job

    def submit(self, body: str, **options: Any) -> JobId:
        job = super().submit(body, **options)
        [name] = [live.name for live in self.scheduler.live_jobs() if live.id == job]
        self._scripts[job] = subprocess.Popen(["bash", str(self.folder / f"{name}.sh")], cwd=self.folder)
        self.cluster.jobs[job].state = JobState.RUNNING
        return job

    def live(self, job: JobId) -> LiveJob | None:
        script = self._scripts.get(job)
        if script is not None and (code := script.poll()) is not None and self.cluster.jobs[job].record is None:
            self.cluster.end(self.cluster.jobs[job], JobState.FAILED if code else JobState.COMPLETED, code)
        self.cluster.update_accounting()
        return super().live(job)

    def close(self) -> None:
        for script in self._scripts.values():
            script.kill()
            script.wait()


class SimulatedArraySite(SimulatedSchedulerSite):
    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.scheduler = InArrays(self.arrays, folder)

    def _new_cluster(self) -> SimulatedCluster:
        self.arrays = ArrayCluster(Faults(), ManualClock(SYSTEM.now()), lambda: TaskStatus.UNKNOWN)
        return self.arrays


SIMULATED = {"simulated": SimulatedSchedulerSite, "simulated array": SimulatedArraySite}
SCHEDULERS = [
    "local",
    pytest.param("slurm", marks=pytest.mark.slurm),
    pytest.param("slurm array", marks=pytest.mark.slurm),
    pytest.param("gridengine", marks=pytest.mark.gridengine),
]


@pytest.fixture(params=[*SIMULATED, *SCHEDULERS])
def any_site(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[SchedulerSite]:
    """Of what concerns submitted jobs, the simulated scheduler keeps the contract too."""
    if request.param not in SIMULATED:
        yield from _real_site(request, tmp_path)
        return
    simulated = SIMULATED[request.param](tmp_path)
    yield simulated
    simulated.close()


@pytest.fixture(params=SCHEDULERS)
def site(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[SchedulerSite]:
    yield from _real_site(request, tmp_path)


def _real_site(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[SchedulerSite]:
    built: SchedulerSite
    if request.param == "slurm":
        built = SlurmSchedulerSite(tmp_path, request.getfixturevalue("slurm_cluster").env)
    elif request.param == "slurm array":
        built = SlurmArraySite(tmp_path, request.getfixturevalue("slurm_cluster").env)
    elif request.param == "gridengine":
        built = GridEngineSite(tmp_path, request.getfixturevalue("gridengine").env)
    else:
        built = LocalSite(
            tmp_path, {name: value for name, value in os.environ.items() if name != "CUDA_VISIBLE_DEVICES"}
        )
    yield built
    built.scheduler.cancel(built.jobs)
    wait_until("the jobs to end", lambda: {job.id for job in built.scheduler.live_jobs()} & set(built.jobs), empty)


def test_a_job_is_listed_until_it_ended_and_recorded_after(any_site: SchedulerSite) -> None:
    before = SYSTEM.now()
    job = any_site.submit("until [ -e go ]; do sleep 0.1; done", name="listed")

    any_site.wait_for_start(job)
    live = any_site.live(job)
    assert live is not None
    assert (live.name, live.restarts) == ("listed", 0)
    assert live.raw_state
    assert live.nodes
    assert not any(record.state.is_final for record in any_site.scheduler.records({job: before}).values())

    (any_site.folder / "go").touch()
    record = any_site.wait_for_record(job)
    assert any_site.live(job) is None
    assert record.name in ("listed", "")  # sacct learns the name some seconds after the rest
    assert (record.state, record.exit_code, record.signal) == (JobState.COMPLETED, 0, 0)
    assert record.submitted and record.started and record.ended
    assert abs(record.submitted - before) < timedelta(seconds=60)
    assert record.submitted <= record.started <= record.ended


def test_the_exit_code_of_a_failed_job_is_in_its_record(any_site: SchedulerSite) -> None:
    record = any_site.wait_for_record(any_site.submit("exit 3"))
    assert (record.state, record.exit_code) == (JobState.FAILED, 3)


def test_a_job_starts_in_its_folder_and_appends_to_its_output(site: SchedulerSite) -> None:
    request = site.request("pwd; echo on stderr >&2", name="full_100%")
    request.output.write_text("from an earlier attempt\n")
    answer = site.scheduler.submit(request)
    assert isinstance(answer, Accepted)
    site.wait_for_record(answer.job)
    wait_until("its output", request.output.read_text, contains("on stderr"))
    assert request.output.read_text() == f"from an earlier attempt\n{site.folder}\non stderr\n"


def test_a_job_is_found_by_name_while_it_waits_and_after_it_ended(any_site: SchedulerSite) -> None:
    before = SYSTEM.now()
    waiting = any_site.submit_waiting()
    name = next(job.name for job in any_site.scheduler.live_jobs() if job.id == waiting)
    assert any_site.scheduler.find(name, before) == waiting
    any_site.scheduler.cancel([waiting], only_pending=True)
    any_site.wait_for_record(waiting)
    assert any_site.scheduler.find(name, before) == waiting


def test_no_job_is_found_under_an_unknown_name_or_before_its_time(any_site: SchedulerSite) -> None:
    job = any_site.submit("true", name="once")
    any_site.wait_for_record(job)
    assert any_site.scheduler.find("never_submitted", SYSTEM.now() - timedelta(hours=1)) is None
    assert any_site.scheduler.find("once", SYSTEM.now() + timedelta(minutes=30)) is None


def test_a_waiting_job_says_why(any_site: SchedulerSite) -> None:
    job = any_site.submit_waiting()
    live = wait_until("its reason", lambda: any_site.live(job), lambda live: live and live.reason)
    assert live is not None
    assert live.state is JobState.PENDING


def test_cancelling_only_what_waits_leaves_running_jobs_alone(any_site: SchedulerSite) -> None:
    running = any_site.submit("sleep 60")
    any_site.wait_for_start(running)
    waiting = any_site.submit_waiting()
    # Of an element of an array that was never listed Slurm leaves no trace.
    assert any_site.state(waiting) is JobState.PENDING
    ended = any_site.submit("true") if any_site.scheduler.name != "local" else JobId("4711")

    any_site.scheduler.cancel([running, waiting, ended], only_pending=True)

    assert any_site.wait_for_record(waiting).state is JobState.CANCELLED
    assert any_site.state(running) is JobState.RUNNING


def test_a_cancelled_job_may_finish_on_sigterm(site: SchedulerSite) -> None:
    # Not `sleep 60 & wait`: bash does not see a signal that comes between the two.
    job = site.submit("trap 'echo cleaned > cleaned; exit 0' TERM; touch ready; while true; do sleep 0.2; done")
    wait_until("the job to be ready", lambda: site.has_written("ready"))
    site.scheduler.cancel([job])
    assert site.wait_for_record(job).state is JobState.CANCELLED
    # The record may say so while the job still ends.
    wait_until("the job's clean-up", lambda: site.has_written("cleaned"))


def test_a_job_that_ignores_sigterm_is_killed(site: SchedulerSite) -> None:
    job = site.submit("trap '' TERM; touch ready; while true; do sleep 0.2; done")
    wait_until("the job to be ready", lambda: site.has_written("ready"))
    site.scheduler.cancel([job])
    record = site.wait_for_record(job)
    assert record.state is JobState.CANCELLED


def test_cancelling_jobs_that_are_gone_is_not_an_error(any_site: SchedulerSite) -> None:
    job = any_site.submit("true")
    any_site.wait_for_record(job)
    for only_pending in (False, True):
        any_site.scheduler.cancel([job, JobId("4711")], only_pending=only_pending)
    any_site.scheduler.cancel([])


def test_unknown_and_reused_ids_have_no_verdict(any_site: SchedulerSite) -> None:
    job = any_site.submit("true")
    any_site.wait_for_record(job)
    later = SYSTEM.now() + timedelta(minutes=30)
    assert any_site.scheduler.records({JobId("4711"): SYSTEM.now(), JobId("4712"): SYSTEM.now()}) == {}
    # The record is of a job from before our own submission under the same id.
    assert any_site.scheduler.records({job: later}) == {}
    assert any_site.scheduler.records({}) == {}


def test_jobs_see_the_gpus_they_asked_for_and_no_others(site: SchedulerSite) -> None:
    body = 'echo "$CUDA_VISIBLE_DEVICES" > {0}.part && mv {0}.part {0}; until [ -e go ]; do sleep 0.1; done'
    jobs = [site.submit(body.format(name), gpus=2) for name in ("first", "second")]
    wait_until("both jobs to write", lambda: site.has_written("first", "second"))
    (site.folder / "go").touch()
    seen = [(site.folder / name).read_text().strip().split(",") for name in ("first", "second")]
    assert sorted(seen[0] + seen[1]) == ["0", "1", "2", "3"]
    for job in jobs:
        site.wait_for_record(job)


def test_more_gpus_than_there_are_is_refused_in_words(site: SchedulerSite) -> None:
    answer = site.scheduler.submit(site.request("true", gpus=9))
    assert isinstance(answer, Refused)
    assert len(answer.message) > 20


def test_what_is_not_a_script_is_refused_with_a_message(site: SchedulerSite) -> None:
    request = site.request("true")
    request.script.write_text("echo without an interpreter\n")
    answer = site.scheduler.submit(request)
    assert isinstance(answer, Refused)
    assert "#!" in answer.message


def test_jobs_inherit_no_secret_and_nothing_of_another_job(site: SchedulerSite) -> None:
    job = site.submit("env > environment.part; mv environment.part environment")
    site.wait_for_record(job)
    environment = (site.folder / "environment").read_text()
    assert "PATH=" in environment
    assert [name for name in FOREIGN if f"{name}=" in environment] == []


def test_a_cluster_has_a_name(any_site: SchedulerSite) -> None:
    assert any_site.scheduler.cluster()
    assert any_site.scheduler.name in BACKENDS


def test_room_counts_what_runs(tmp_path: Path) -> None:
    site = LocalSite(tmp_path, {})
    assert site.scheduler.live_jobs() == []
    assert site.scheduler.room() == Capacity(3, 4, 4)
    job = site.submit("sleep 60", gpus=3)
    site.wait_for_start(job)
    assert site.scheduler.room() == Capacity(2, 1, 4)
    site.scheduler.cancel([job])
    wait_until("the job to end", site.scheduler.live_jobs, empty)
    assert site.scheduler.room() == Capacity(3, 4, 4)


def test_a_batch_system_has_room_for_any_number_within_its_rate() -> None:
    capacity = SlurmScheduler(SlurmSettings()).room()
    assert (capacity.jobs, capacity.gpus, capacity.at_once) == (27, None, 4)
