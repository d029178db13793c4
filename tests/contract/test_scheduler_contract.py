"""What every scheduler does; a new one is done when these pass over it."""

from __future__ import annotations

import os
import secrets
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from waiting import contains, empty, equals, wait_until

from hpc_agent.clock import SYSTEM
from hpc_agent.config.settings import LocalSettings, SlurmSettings
from hpc_agent.domain.ids import JobId
from hpc_agent.domain.job import Accepted, JobRecord, JobState, LiveJob, Refused
from hpc_agent.domain.resources import Resources
from hpc_agent.domain.room import Room
from hpc_agent.schedulers.base import Scheduler, SubmitRequest
from hpc_agent.schedulers.local import LocalScheduler
from hpc_agent.schedulers.slurm_driver import SlurmScheduler

FOREIGN = {"SLURM_CPU_BIND": "quiet,mask_cpu:0x1", "SBATCH_PARTITION": "nope", "CLEARML_API_SECRET_KEY": "hidden"}
"""In the environment that every scheduler here is started with; no job may see any of it."""


class World(ABC):
    """A scheduler, and the means to give it work."""

    directives = ""
    """Lines that a script needs to get 2 GPUs."""

    def __init__(self, folder: Path, scheduler: Scheduler) -> None:
        self.folder = folder
        self.scheduler = scheduler
        self.jobs: list[JobId] = []

    @abstractmethod
    def submit_waiting(self) -> JobId:
        """A job that does not start."""

    def request(self, body: str, *, name: str = "", gpus: int = 0, head: str = "") -> SubmitRequest:
        name = name or f"job_{secrets.token_hex(4)}"
        script = self.folder / f"{name}.sh"
        script.write_text(f"#!/bin/bash\n{self.directives if gpus else ''}{head}{body}\n")
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


class LocalWorld(World):
    def __init__(self, folder: Path, environ: Mapping[str, str]) -> None:
        settings = LocalSettings(max_jobs=3, gpus=4)
        state = folder / "state"
        super().__init__(folder, LocalScheduler(settings, state, SYSTEM, grace=5, environ={**environ, **FOREIGN}))

    def submit_waiting(self) -> JobId:
        for _ in range(3):
            self.submit("sleep 60")
        return self.submit("sleep 60")


class SlurmWorld(World):
    directives = "#SBATCH --gres=gpu:2\n#SBATCH --nodelist=n1\n"

    def __init__(self, folder: Path, environ: Mapping[str, str]) -> None:
        super().__init__(folder, SlurmScheduler(SlurmSettings(), environ={**environ, **FOREIGN}))

    def submit_waiting(self) -> JobId:
        return self.submit("sleep 60", head="#SBATCH --begin=now+1hour\n")


@pytest.fixture(params=["local", pytest.param("slurm", marks=pytest.mark.slurm)])
def world(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[World]:
    built: World
    if request.param == "slurm":
        built = SlurmWorld(tmp_path, request.getfixturevalue("slurm_cluster").env)
    else:
        built = LocalWorld(
            tmp_path, {name: value for name, value in os.environ.items() if name != "CUDA_VISIBLE_DEVICES"}
        )
    yield built
    built.scheduler.cancel(built.jobs)
    wait_until("the jobs to end", lambda: {job.id for job in built.scheduler.live_jobs()} & set(built.jobs), empty)


def test_a_job_is_listed_until_it_ended_and_recorded_after(world: World) -> None:
    before = SYSTEM.now()
    job = world.submit("until [ -e go ]; do sleep 0.1; done", name="listed")

    world.wait_for_start(job)
    live = world.live(job)
    assert live is not None
    assert (live.name, live.raw_state, live.restarts) == ("listed", "RUNNING", 0)
    assert live.nodes
    assert not any(record.state.is_final for record in world.scheduler.records({job: before}).values())

    (world.folder / "go").touch()
    record = world.wait_for_record(job)
    assert world.live(job) is None
    assert record.name in ("listed", "")  # sacct learns the name some seconds after the rest
    assert (record.state, record.exit_code, record.signal) == (JobState.COMPLETED, 0, 0)
    assert record.submitted and record.started and record.ended
    assert abs(record.submitted - before) < timedelta(seconds=60)
    assert record.submitted <= record.started <= record.ended


def test_the_exit_code_of_a_failed_job_is_in_its_record(world: World) -> None:
    record = world.wait_for_record(world.submit("exit 3"))
    assert (record.state, record.exit_code) == (JobState.FAILED, 3)


def test_a_job_starts_in_its_folder_and_appends_to_its_output(world: World) -> None:
    request = world.request("pwd; echo on stderr >&2", name="100%")
    request.output.write_text("from an earlier attempt\n")
    answer = world.scheduler.submit(request)
    assert isinstance(answer, Accepted)
    world.wait_for_record(answer.job)
    wait_until("its output", request.output.read_text, contains("on stderr"))
    assert request.output.read_text() == f"from an earlier attempt\n{world.folder}\non stderr\n"


def test_a_job_is_found_by_name_while_it_waits_and_after_it_ended(world: World) -> None:
    before = SYSTEM.now()
    waiting = world.submit_waiting()
    name = next(job.name for job in world.scheduler.live_jobs() if job.id == waiting)
    assert world.scheduler.find(name, before) == waiting
    world.scheduler.cancel([waiting])
    world.wait_for_record(waiting)
    assert world.scheduler.find(name, before) == waiting


def test_no_job_is_found_under_an_unknown_name_or_before_its_time(world: World) -> None:
    job = world.submit("true", name="once")
    world.wait_for_record(job)
    assert world.scheduler.find("never_submitted", SYSTEM.now() - timedelta(hours=1)) is None
    assert world.scheduler.find("once", SYSTEM.now() + timedelta(minutes=30)) is None


def test_a_waiting_job_says_why(world: World) -> None:
    job = world.submit_waiting()
    live = wait_until("its reason", lambda: world.live(job), lambda live: live and live.reason)
    assert live is not None
    assert live.state is JobState.PENDING


def test_cancelling_only_what_waits_leaves_running_jobs_alone(world: World) -> None:
    running = world.submit("sleep 60")
    world.wait_for_start(running)
    waiting = world.submit_waiting()
    ended = world.submit("true") if world.scheduler.name == "slurm" else JobId("4711")

    world.scheduler.cancel([running, waiting, ended], only_pending=True)

    assert world.wait_for_record(waiting).state is JobState.CANCELLED
    assert world.state(running) is JobState.RUNNING


def test_a_cancelled_job_may_finish_on_sigterm(world: World) -> None:
    job = world.submit("trap 'echo cleaned > cleaned; exit 0' TERM; touch ready; sleep 60 & wait")
    wait_until("the job to be ready", lambda: world.has_written("ready"))
    world.scheduler.cancel([job])
    assert world.wait_for_record(job).state is JobState.CANCELLED
    assert (world.folder / "cleaned").exists()


def test_a_job_that_ignores_sigterm_is_killed(world: World) -> None:
    job = world.submit("trap '' TERM; touch ready; while true; do sleep 0.2; done")
    wait_until("the job to be ready", lambda: world.has_written("ready"))
    world.scheduler.cancel([job])
    record = world.wait_for_record(job)
    assert record.state is JobState.CANCELLED


def test_cancelling_jobs_that_are_gone_is_no_error(world: World) -> None:
    job = world.submit("true")
    world.wait_for_record(job)
    for only_pending in (False, True):
        world.scheduler.cancel([job, JobId("4711")], only_pending=only_pending)
    world.scheduler.cancel([])


def test_unknown_and_reused_ids_have_no_verdict(world: World) -> None:
    job = world.submit("true")
    world.wait_for_record(job)
    later = SYSTEM.now() + timedelta(minutes=30)
    assert world.scheduler.records({JobId("4711"): SYSTEM.now(), JobId("4712"): SYSTEM.now()}) == {}
    # The record is of a job from before our own submission under the same id.
    assert world.scheduler.records({job: later}) == {}
    assert world.scheduler.records({}) == {}


def test_jobs_see_the_gpus_they_asked_for_and_no_others(world: World) -> None:
    body = 'echo "$CUDA_VISIBLE_DEVICES" > {0}.part && mv {0}.part {0}; until [ -e go ]; do sleep 0.1; done'
    jobs = [world.submit(body.format(name), gpus=2) for name in ("first", "second")]
    wait_until("both jobs to write", lambda: world.has_written("first", "second"))
    (world.folder / "go").touch()
    seen = [(world.folder / name).read_text().strip().split(",") for name in ("first", "second")]
    assert sorted(seen[0] + seen[1]) == ["0", "1", "2", "3"]
    for job in jobs:
        world.wait_for_record(job)


def test_more_gpus_than_there_are_is_refused_in_words(world: World) -> None:
    request = world.request("true", gpus=9)
    request.script.write_text(request.script.read_text().replace("gpu:2", "gpu:9"))
    answer = world.scheduler.submit(request)
    assert isinstance(answer, Refused)
    assert len(answer.message) > 20


def test_what_is_no_script_is_refused_in_words(world: World) -> None:
    request = world.request("true")
    request.script.write_text("echo without an interpreter\n")
    answer = world.scheduler.submit(request)
    assert isinstance(answer, Refused)
    assert "#!" in answer.message


def test_jobs_inherit_no_secret_and_nothing_of_another_job(world: World) -> None:
    job = world.submit("env > environment.part; mv environment.part environment")
    world.wait_for_record(job)
    environment = (world.folder / "environment").read_text()
    assert "PATH=" in environment
    assert [name for name in FOREIGN if f"{name}=" in environment] == []


def test_a_cluster_has_a_name(world: World) -> None:
    assert world.scheduler.cluster()
    assert world.scheduler.name in ("slurm", "local")


def test_room_counts_what_runs(tmp_path: Path) -> None:
    world = LocalWorld(tmp_path, {})
    assert world.scheduler.live_jobs() == []
    assert world.scheduler.room() == Room(3, 4, 4)
    job = world.submit("sleep 60", gpus=3)
    world.wait_for_start(job)
    assert world.scheduler.room() == Room(2, 1, 4)
    world.scheduler.cancel([job])
    wait_until("the job to end", world.scheduler.live_jobs, empty)
    assert world.scheduler.room() == Room(3, 4, 4)


def test_a_batch_system_has_room_for_any_number() -> None:
    assert SlurmScheduler(SlurmSettings()).room() == Room()
