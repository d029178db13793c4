"""The local scheduler after deaths on unlucky lines, and with company."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from many_signals import send_many_signals
from waiting import contains, empty, wait_until

from hpc_agent import file_records
from hpc_agent.clock import SYSTEM
from hpc_agent.config.settings import HpcSettings
from hpc_agent.domain.capacity import Capacity
from hpc_agent.domain.ids import JobId
from hpc_agent.domain.job import Accepted, JobRecord, JobState, OutcomeUnknown, Refused
from hpc_agent.domain.resources import Resources
from hpc_agent.errors import SchedulerUnavailableError
from hpc_agent.process_id import ProcessId, process_id
from hpc_agent.schedulers import backends
from hpc_agent.schedulers.base import Share, SubmitRequest
from hpc_agent.schedulers.local.jobs import DeviceClaim, JobFolder, JobsFolder, Spec
from hpc_agent.schedulers.local.scheduler import LocalScheduler
from hpc_agent.schedulers.local.settings import LocalSettings
from hpc_agent.schedulers.slurm.driver import SlurmScheduler
from hpc_agent.schedulers.slurm.settings import SlurmSettings

EARLIER = datetime.fromisoformat("2026-01-01T00:00:00+00:00")


class Machine:
    """A folder of local jobs, and any number of schedulers on it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.state = folder / "state"
        self.jobs = JobsFolder(self.state / "jobs")

    def scheduler(self, *, max_jobs: int = 4, gpus: int = 0) -> LocalScheduler:
        environ = {name: value for name, value in os.environ.items() if name != "CUDA_VISIBLE_DEVICES"}
        return LocalScheduler(LocalSettings(max_jobs=max_jobs, gpus=gpus), self.state, SYSTEM, grace=1, environ=environ)

    def submit(self, body: str, *, gpus: int = 0, name: str = "job") -> JobId:
        answer = self.scheduler(gpus=8).submit(self.request(body, Resources(gpus=gpus), name))
        assert isinstance(answer, Accepted), answer
        return answer.job

    def request(self, body: str, resources: Resources, name: str = "job") -> SubmitRequest:
        script = self.folder / "script.sh"
        script.write_text(f"#!/bin/bash\n{body}\n")
        return SubmitRequest(script, name, self.folder, self.folder / "out", resources)

    def job(self, job: JobId) -> JobFolder:
        return self.jobs.get(job)

    def supervisor(self, job: JobId) -> subprocess.Popen[bytes]:
        argv = [sys.executable, "-m", "hpc_agent.schedulers.local.supervisor", str(self.job(job).path), "1"]
        return subprocess.Popen(argv, start_new_session=True)

    def live(self) -> list[tuple[str, JobState]]:
        return [(live.id, live.state) for live in self.scheduler().live_jobs()]

    def record(self, job: JobId) -> JobRecord | None:
        return self.scheduler().records({job: EARLIER}).get(job)

    def wait_for_record(self, job: JobId) -> JobRecord:
        return wait_until(f"the record of job {job}", lambda: self.record(job))

    def end_all(self) -> None:
        self.scheduler().cancel([job.id for job in self.jobs.all()])
        wait_until("all jobs to end", self.live, empty)


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    machine = Machine(tmp_path)
    yield machine
    machine.end_all()


def test_two_supervisors_for_one_job_run_it_once(machine: Machine) -> None:
    """The scheduler died after it had started one, and the next one did not know."""
    job = machine.submit("echo ran >> ran; sleep 0.2")
    both = [machine.supervisor(job) for _ in range(2)]
    assert [supervisor.wait(30) for supervisor in both] == [0, 0]
    assert (machine.folder / "ran").read_text() == "ran\n"
    assert machine.wait_for_record(job).state is JobState.COMPLETED


def test_a_supervisor_that_was_late_takes_part_in_nothing_once_the_job_was_cancelled(machine: Machine) -> None:
    job = machine.submit("touch ran")
    machine.scheduler().cancel([job], only_pending=True)
    assert machine.supervisor(job).wait(30) == 0
    assert not (machine.folder / "ran").exists()
    assert machine.wait_for_record(job).state is JobState.CANCELLED


def test_schedulers_that_share_the_folder_start_each_job_once_and_share_the_room(machine: Machine) -> None:
    body = "echo {} $CUDA_VISIBLE_DEVICES >> ran; until [ -e go ]; do sleep 0.1; done"
    jobs = [machine.submit(body.format(n), gpus=1) for n in range(6)]
    ran = machine.folder / "ran"
    with ThreadPoolExecutor(3) as pool:
        schedulers = [machine.scheduler(max_jobs=2, gpus=2) for _ in range(3)]

        def running() -> list[int]:
            """As each of them sees it, all having looked at once and started what they may."""
            seen = pool.map(lambda scheduler: scheduler.live_jobs(), schedulers)
            return [sum(job.state is JobState.RUNNING for job in live) for live in seen]

        wait_until(
            "two jobs to run",
            lambda: running() == [2, 2, 2] and ran.exists() and len(ran.read_text().splitlines()) == 2,
        )
        for _ in range(5):
            assert running() == [2, 2, 2]
        first = [line.split()[1] for line in ran.read_text().splitlines()]
        assert sorted(first) == ["0", "1"]
        (machine.folder / "go").touch()
        most = 0

        def all_ended() -> bool:
            nonlocal most
            most = max(most, *running())
            return all(machine.record(job) is not None for job in jobs)

        wait_until("six jobs to end", all_ended)
        assert most <= 2
    lines = ran.read_text().splitlines()
    assert sorted(line.split()[0] for line in lines) == [str(n) for n in range(6)]
    assert {line.split()[1] for line in lines} == {"0", "1"}


def test_jobs_outlive_the_daemon(machine: Machine) -> None:
    machine.submit("until [ -e go ]; do sleep 0.05; done; exit 5")
    daemon = (
        "import os, sys; from pathlib import Path; from hpc_agent.clock import SYSTEM;"
        "from hpc_agent.schedulers.local.settings import LocalSettings;"
        "from hpc_agent.schedulers.local.scheduler import LocalScheduler;"
        f"LocalScheduler(LocalSettings(gpus=0), Path({str(machine.state)!r}), SYSTEM).live_jobs(); os.abort()"
    )
    assert subprocess.run([sys.executable, "-c", daemon], check=False, timeout=60).returncode == -signal.SIGABRT
    assert machine.live() == [("1", JobState.RUNNING)]
    (machine.folder / "go").touch()
    assert machine.wait_for_record(JobId("1")).exit_code == 5


def test_a_job_whose_supervisor_was_killed_runs_on_and_can_be_cancelled(machine: Machine) -> None:
    job = machine.submit("trap 'touch warned; exit 0' TERM; touch ready; while true; do sleep 0.05; done")
    machine.live()
    wait_until("the job to be ready", (machine.folder / "ready").exists)
    wait_until("its process to be known", lambda: machine.job(job).child())
    kill_supervisor(machine, job)
    assert machine.live() == [(job, JobState.RUNNING)]
    assert machine.record(job) is None

    machine.scheduler().cancel([job])
    record = machine.wait_for_record(job)
    assert (machine.folder / "warned").exists()
    assert record.state is JobState.CANCELLED
    assert "supervisor was killed" in record.reason


def test_a_job_whose_supervisor_was_killed_ends_without_an_exit_code(machine: Machine) -> None:
    job = machine.submit("touch ready; until [ -e go ]; do sleep 0.05; done")
    machine.live()
    wait_until("the job to be ready", (machine.folder / "ready").exists)
    wait_until("its process to be known", lambda: machine.job(job).child())
    kill_supervisor(machine, job)
    (machine.folder / "go").touch()
    record = machine.wait_for_record(job)
    assert record.state is JobState.FAILED
    assert "left no exit code" in record.reason


def test_signals_that_come_at_any_moment_block_no_supervisor(machine: Machine) -> None:
    job = machine.submit("trap '' TERM; touch ready; sleep 600")
    supervisor = machine.supervisor(job)
    wait_until("the job to be ready", (machine.folder / "ready").exists)
    send_many_signals(supervisor)
    assert supervisor.wait(60) == 0
    assert machine.wait_for_record(job).signal == signal.SIGKILL


def test_an_orphan_that_ignores_sigterm_is_killed_when_asked_again(machine: Machine) -> None:
    job = machine.submit("trap '' TERM; touch ready; while true; do sleep 0.05; done")
    machine.live()
    wait_until("the job to be ready", (machine.folder / "ready").exists)
    wait_until("its process to be known", lambda: machine.job(job).child())
    kill_supervisor(machine, job)

    def gone() -> bool:
        machine.scheduler().cancel([job])
        return machine.record(job) is not None

    wait_until("the job to end", gone)


def kill_supervisor(machine: Machine, job: JobId) -> None:
    claim = machine.job(job).claim()
    assert claim is not None
    assert claim.process is not None
    os.kill(claim.process.pid, signal.SIGKILL)
    wait_until("the supervisor to end", claim.process.is_running, empty)


def test_after_a_restart_of_the_machine_its_jobs_are_lost_to_it(machine: Machine) -> None:
    job = machine.submit("true")
    me = process_id(os.getpid())
    assert me is not None
    machine.job(job).take(DeviceClaim(SYSTEM.now(), ProcessId(me.pid, me.ticks, "another boot")))
    record = machine.record(job)
    assert record is not None
    assert record.state is JobState.NODE_FAIL
    assert machine.live() == []


def test_another_process_with_the_same_number_is_not_taken_for_the_job(machine: Machine) -> None:
    job = machine.submit("true")
    me = process_id(os.getpid())
    assert me is not None
    assert me.is_running()
    machine.job(job).take(DeviceClaim(SYSTEM.now(), ProcessId(me.pid, me.ticks - 1, me.boot)))
    record = machine.record(job)
    assert record is not None
    assert record.state is JobState.FAILED
    assert machine.live() == []


def test_a_time_limit_ends_a_job_with_all_that_it_started(machine: Machine) -> None:
    (machine.state / "jobs").mkdir(parents=True)
    spec = Spec("slow", str(machine.folder), str(machine.folder / "out"), 0, time_limit=5, submitted=SYSTEM.now())
    job = machine.jobs.add(spec, b"#!/bin/bash\nsleep 600 &\necho $! > sleeper; wait\n").id
    machine.live()
    assert machine.wait_for_record(job).state is JobState.TIMEOUT
    sleeper = process_id(int((machine.folder / "sleeper").read_text()))
    wait_until("what it started to end", lambda: sleeper is not None and sleeper.is_running(), empty)


def test_the_first_job_is_not_overtaken(machine: Machine) -> None:
    running = machine.submit("sleep 60", gpus=1)
    first = machine.submit("true", gpus=2)
    second = machine.submit("true")
    live = {job.id: job for job in machine.scheduler(gpus=2).live_jobs()}
    assert live[running].state is JobState.RUNNING
    assert live[first].reason == "waiting for 2 GPUs, 1 of 2 are free"
    assert live[second].reason == f"behind job {first}"


def test_what_this_machine_cannot_do_is_refused(machine: Machine) -> None:
    scheduler = machine.scheduler()
    for resources, words in ((Resources(gpus=1), "has 0 to hand out"), (Resources(nodes=2), "without Slurm")):
        answer = scheduler.submit(machine.request("true", resources))
        assert isinstance(answer, Refused)
        assert words in answer.message
    assert not machine.jobs.all()


def test_a_script_that_vanished_leaves_the_submission_uncertain(machine: Machine) -> None:
    request = machine.request("true", Resources())
    request.script.unlink()
    assert isinstance(machine.scheduler().submit(request), OutcomeUnknown)


def test_a_job_that_cannot_be_executed_fails_with_the_reason(machine: Machine) -> None:
    request = machine.request("true", Resources())
    request.script.write_text("#!/no/such/interpreter\n")
    answer = machine.scheduler().submit(request)
    assert isinstance(answer, Accepted)
    machine.live()
    record = machine.wait_for_record(answer.job)
    assert (record.state, record.exit_code) == (JobState.FAILED, 127)
    assert "could not start" in record.reason


def test_a_corrupt_record_is_not_information(machine: Machine) -> None:
    job = machine.submit("true")
    spec = (machine.job(job).path / "spec.json").read_bytes()
    (machine.job(job).path / "spec.json").write_text("{")
    with pytest.raises(SchedulerUnavailableError, match=r"spec\.json cannot be read"):
        machine.scheduler().live_jobs()
    (machine.job(job).path / "spec.json").write_bytes(spec)


def test_ended_jobs_are_cleared_away_and_their_numbers_not_used_again(machine: Machine) -> None:
    jobs = [machine.submit("true") for _ in range(3)]
    machine.live()
    for job in jobs:
        machine.wait_for_record(job)
    machine.live()
    machine.jobs.clear_away(SYSTEM.now() + timedelta(seconds=1))
    assert [job.id for job in machine.jobs.all()] == ["3"]
    assert machine.submit("true") == "4"
    assert machine.record(jobs[0]) is None


def test_a_submission_cut_short_leaves_no_job(machine: Machine) -> None:
    machine.submit("true")
    (machine.state / "jobs" / ".new.1.abcd").mkdir()
    file_records.write_atomic(machine.state / "jobs" / ".new.1.abcd" / "script", b"#!/bin/sh\n")
    assert [job.id for job in machine.jobs.all()] == ["1"]
    assert machine.submit("true") == "2"


def test_the_registry_follows_the_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def created(kind: str) -> str:
        return backends.create(HpcSettings(scheduler=kind, root=tmp_path, cluster="c"), SYSTEM).name

    assert (created("slurm"), created("local")) == ("slurm", "local")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert created("auto") == "local"
    (tmp_path / "sbatch").write_text("#!/bin/sh\n")
    (tmp_path / "sbatch").chmod(0o755)
    assert created("auto") == "slurm"
    assert SlurmScheduler(SlurmSettings(), cluster="mine").cluster() == "mine"


def test_daemons_share_a_machine_and_never_a_gpu(machine: Machine) -> None:
    """Shares may overlap: a GPU is lent to one job at a time, and jobs are counted for each share alone."""

    def scheduler(owner: str, max_jobs: int, *gpus: str) -> LocalScheduler:
        return LocalScheduler(
            LocalSettings(), machine.state, SYSTEM, grace=1, environ=os.environ, share=Share(owner, max_jobs, gpus)
        )

    def submit(to: LocalScheduler, gpus: int) -> JobId:
        answer = to.submit(machine.request("sleep 60", Resources(gpus=gpus)))
        assert isinstance(answer, Accepted), answer
        return answer.job

    one, two = scheduler("one", 1, "0", "1"), scheduler("two", 5, "1", "2", "3")
    first = submit(one, 2)
    second, third, cpu = submit(two, 2), submit(two, 1), submit(two, 0)
    states = {job.id: job.state for job in two.live_jobs()}
    assert states == {
        first: JobState.RUNNING,
        second: JobState.RUNNING,
        third: JobState.PENDING,
        cpu: JobState.PENDING,
    }
    claims = [machine.job(job).claim() for job in (first, second)]
    assert [claim and claim.gpus for claim in claims] == [("0", "1"), ("2", "3")]
    assert two.room() == Capacity(2, 0, 3)
    assert one.live_jobs() and one.room() == Capacity(0, 0, 2)
    one.cancel([first])
    machine.wait_for_record(first)
    assert {job.id: job.state for job in one.live_jobs()} == dict.fromkeys((second, third, cpu), JobState.RUNNING)


def test_a_job_knows_its_number(machine: Machine) -> None:
    job = machine.submit("echo number $HPC_AGENT_JOB_ID")
    machine.live()
    machine.wait_for_record(job)
    assert f"number {job}\n" in (machine.folder / "out").read_text()


def test_a_job_is_known_before_its_first_line_whatever_becomes_of_its_supervisor(machine: Machine) -> None:
    job = machine.submit(f"kill -KILL $PPID; cat {machine.state}/jobs/1/child.json; sleep 60")
    machine.live()
    output = machine.folder / "out"
    wait_until("its output", lambda: output.read_text() if output.exists() else "", contains("ticks"))
    assert machine.live() == [(job, JobState.RUNNING)]
    assert machine.record(job) is None
    machine.scheduler().cancel([job])
    machine.wait_for_record(job)
