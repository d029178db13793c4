"""Faults that a real Slurm makes too seldom, by commands of our own on PATH that speak like its."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest

from hpc_agent.clock import SYSTEM
from hpc_agent.config.settings import AllSettings, HpcSettings, SlurmSettings
from hpc_agent.daemon.act import Actor
from hpc_agent.daemon.facts import read
from hpc_agent.domain.actions import LookUp
from hpc_agent.domain.attempt import attempt_for
from hpc_agent.domain.ids import JobId, QueueId, TaskId, WorkerId
from hpc_agent.domain.job import Accepted, Doubt, JobState, Refused, Uncertain, unanswered
from hpc_agent.domain.resources import Resources
from hpc_agent.errors import SchedulerUnavailableError
from hpc_agent.runs.directory import RunsFolder
from hpc_agent.runs.records import Submission
from hpc_agent.schedulers.base import SubmitRequest
from hpc_agent.schedulers.slurm_driver import SlurmScheduler

NOW = datetime(2026, 11, 20, 12, 0, 7, tzinfo=timezone.utc)
STAMP = int(NOW.timestamp())
JOBS = {JobId("7"): NOW, JobId("8"): NOW}
DISABLED = "echo 'Slurm accounting storage is disabled' >&2; exit 1"


class FakeSlurm:
    """Shell commands in a folder that is first on PATH; each call is noted in ``calls``."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.bin = folder / "bin"
        self.bin.mkdir()

    def command(self, name: str, body: str) -> None:
        path = self.bin / name
        path.write_text(f'#!/bin/bash\necho "{name} $*" >> {self.folder}/calls\n{body}\n')
        path.chmod(0o755)

    def scheduler(self, **settings: object) -> SlurmScheduler:
        environ = {"PATH": f"{self.bin}:/usr/bin:/bin"}
        return SlurmScheduler(SlurmSettings(sbatch_timeout=1, command_timeout=1, **settings), environ=environ)  # type: ignore[arg-type]

    def calls(self, name: str) -> int:
        return sum(line.startswith(f"{name} ") for line in (self.folder / "calls").read_text().splitlines())


@pytest.fixture
def fake(tmp_path: Path) -> FakeSlurm:
    return FakeSlurm(tmp_path)


@pytest.fixture
def request_(tmp_path: Path) -> SubmitRequest:
    return SubmitRequest(tmp_path / "job.sh", "name", tmp_path, tmp_path / "job.out", Resources())


def queue_line(job: str, word: str, status: int = 0, name: str = "name", at: int = STAMP) -> str:
    cells = {32: job, 24: word, 8: "0"}
    text = "".join(value.ljust(width) for width, value in cells.items())
    text += f"{at}".ljust(24) * 3 + str(status).ljust(12) + "n1".ljust(128) + "None".ljust(128) + name
    return f"printf '%s\\n' '{text}'"


def test_an_sbatch_that_hangs_after_queueing_is_uncertain_and_not_repeated(
    fake: FakeSlurm, request_: SubmitRequest
) -> None:
    fake.command("sbatch", "touch queued; sleep 60")
    began = time.monotonic()
    answer = fake.scheduler().submit(request_)
    assert isinstance(answer, Uncertain)
    assert "within 1 s" in answer.message
    assert time.monotonic() - began < 10
    assert (fake.folder / "queued").exists()
    assert fake.calls("sbatch") == 1


def test_a_socket_timeout_is_uncertain_and_the_job_is_found_by_name(fake: FakeSlurm, request_: SubmitRequest) -> None:
    fake.command(
        "sbatch",
        "echo 'sbatch: error: Batch job submission failed: Socket timed out on send/recv operation' >&2; exit 1",
    )
    fake.command("squeue", queue_line("7", "PENDING"))
    scheduler = fake.scheduler()
    assert isinstance(scheduler.submit(request_), Uncertain)
    assert scheduler.find("name", NOW) == JobId("7")
    assert fake.calls("sbatch") == 1


@pytest.mark.parametrize(("tries", "found"), [(1, "7"), (2, "")])
def test_a_controller_whose_clock_is_behind_does_not_hide_the_first_job_of_its_name(
    fake: FakeSlurm, tmp_path: Path, tries: int, found: str
) -> None:
    """Before a second try there was a job of this name, which is not meant."""
    run = RunsFolder(tmp_path).of(attempt_for("c", QueueId("q"), TaskId("a" * 32), "t")).create()
    ahead = NOW + timedelta(minutes=20)
    run.write_submission(Submission(state="uncertain", at=ahead, queue="q", cluster="c", tries=tries))
    fake.command("squeue", queue_line("7", "COMPLETED", name=run.attempt.job_name))
    settings = AllSettings(hpc=HpcSettings(root=tmp_path))
    actor = Actor(None, fake.scheduler(accounting="none"), settings, WorkerId("login"), SYSTEM)  # type: ignore[arg-type]
    assert actor.look_up(run.attempt, read(run), LookUp(tries + 1, give_up=True)) is not bool(found)
    assert read(run).job == (found or None)


def test_words_on_stderr_are_no_failure(fake: FakeSlurm, request_: SubmitRequest) -> None:
    fake.command("sbatch", "echo 'sbatch: warning: please use less' >&2; echo 123")
    assert fake.scheduler().submit(request_) == Accepted(JobId("123"))


def test_a_wrapper_that_prints_no_id_is_uncertain(fake: FakeSlurm, request_: SubmitRequest) -> None:
    fake.command("sbatch", "echo 'job handed to the gateway'")
    assert isinstance(fake.scheduler().submit(request_), Uncertain)


def test_without_sbatch_submission_is_uncertain_and_says_why(fake: FakeSlurm, request_: SubmitRequest) -> None:
    scheduler = SlurmScheduler(SlurmSettings(), environ={"PATH": str(fake.bin)})
    answer = scheduler.submit(request_)
    assert isinstance(answer, Uncertain)
    assert "could not start sbatch" in answer.message


QUERIES: dict[str, Callable[[SlurmScheduler], object]] = {
    "live_jobs": lambda scheduler: scheduler.live_jobs(),
    "find": lambda scheduler: scheduler.find("name", NOW),
    "records": lambda scheduler: scheduler.records(JOBS),
    "cluster": lambda scheduler: scheduler.cluster(),
}

SILENCES = {
    "fails": "echo 'slurm_load_jobs error: Unable to contact slurm controller (connect failure)' >&2; exit 1",
    "only words on stderr": "echo 'slurm_load_jobs error: Zero Bytes were transmitted or received' >&2",
    "hangs": "sleep 60",
    "garbage": "echo '<html>502 Bad Gateway</html>'",
}


@pytest.mark.parametrize("query", QUERIES)
@pytest.mark.parametrize("silence", SILENCES)
def test_silence_is_no_information(fake: FakeSlurm, query: str, silence: str) -> None:
    for command in ("squeue", "sacct", "scontrol"):
        fake.command(command, SILENCES[silence])
    with pytest.raises(SchedulerUnavailableError) as raised:
        QUERIES[query](fake.scheduler())
    assert len(str(raised.value)) > 20


def test_the_words_of_a_failed_squeue_are_passed_on(fake: FakeSlurm) -> None:
    fake.command("squeue", SILENCES["fails"])
    with pytest.raises(SchedulerUnavailableError, match=r"exit code 1: .*Unable to contact slurm controller"):
        fake.scheduler().live_jobs()


def test_an_unknown_state_is_logged_once_and_the_job_lives(
    fake: FakeSlurm, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Our logger does not hand on to the root logger once a command has set it up.
    monkeypatch.setattr(logging.getLogger("hpc_agent"), "propagate", True)
    fake.command("squeue", queue_line("7", "HIBERNATING"))
    scheduler = fake.scheduler()
    for _ in range(3):
        (job,) = scheduler.live_jobs()
        assert job.state is JobState.UNKNOWN
        assert job.raw_state == "HIBERNATING"
    assert sum("HIBERNATING" in record.getMessage() for record in caplog.records) == 1


def test_where_accounting_is_off_the_controllers_memory_answers_and_sacct_is_left_alone(fake: FakeSlurm) -> None:
    fake.command("sacct", DISABLED)
    fake.command("squeue", f"{queue_line('7', 'FAILED', 3 * 256)}; {queue_line('8', 'RUNNING')}")
    scheduler = fake.scheduler()
    for _ in range(2):
        records = scheduler.records(JOBS)
        assert records.keys() == JOBS.keys()
        assert records[JobId("8")].state is JobState.RUNNING
        assert (records[JobId("7")].state, records[JobId("7")].exit_code) == (JobState.FAILED, 3)
    assert scheduler.find("other", NOW) is None
    assert fake.calls("sacct") == 1


def test_where_there_is_no_sacct_the_controllers_memory_answers(fake: FakeSlurm) -> None:
    fake.command("squeue", queue_line("7", "FAILED", 3 * 256))
    scheduler = SlurmScheduler(SlurmSettings(), environ={"PATH": str(fake.bin)})
    assert [(job, record.exit_code) for job, record in scheduler.records(JOBS).items()] == [("7", 3)]
    assert scheduler.find("name", NOW) == "7"
    assert scheduler.find("other", NOW) is None


def sacct_row(job: str, word: str) -> str:
    return f"echo '{job}|{job}|{word}|0:0|{STAMP}|{STAMP}|{STAMP}|01:00:00|n1|None|name'"


def test_while_accounting_gives_no_answer_the_controllers_memory_does_and_the_rest_is_not_lost(fake: FakeSlurm) -> None:
    fake.command("sacct", "echo 'sacct: error: Problem talking to the database: Connection refused' >&2; exit 1")
    fake.command("squeue", queue_line("7", "OUT_OF_MEMORY"))
    records = fake.scheduler().records(JOBS)
    assert records == {JobId("7"): records[JobId("7")], JobId("8"): unanswered(JobId("8"))}
    assert records[JobId("7")].state is JobState.OUT_OF_MEMORY


def test_where_accounting_lags_the_controller_knows_better(fake: FakeSlurm) -> None:
    fake.command("sacct", f"{sacct_row('7', 'RUNNING')}; {sacct_row('8', 'RUNNING')}")
    fake.command("squeue", queue_line("7", "TIMEOUT"))
    states = {job: record.state for job, record in fake.scheduler().records(JOBS).items()}
    assert states == {"7": JobState.TIMEOUT, "8": JobState.RUNNING}
    fake.command("squeue", SILENCES["fails"])
    states = {job: record.state for job, record in fake.scheduler().records(JOBS).items()}
    assert states == {"7": JobState.RUNNING, "8": JobState.RUNNING}


def test_a_job_that_goes_to_another_cluster_is_refused_and_cancelled_there(
    fake: FakeSlurm, request_: SubmitRequest
) -> None:
    fake.command("sbatch", "echo '7;other'")
    fake.command("scancel", "true")
    fake.command("scontrol", "echo 'ClusterName = here'")
    fake.command("squeue", "echo 'CLUSTER: other'; echo name")
    answer = fake.scheduler(sbatch_args=("-M", "other")).submit(request_)
    assert isinstance(answer, Refused)
    assert "cluster other" in answer.message
    assert "scancel --clusters=other --name=name 7" in (fake.folder / "calls").read_text()
    fake.command("sbatch", "echo '8;here'")
    assert fake.scheduler().submit(request_) == Accepted(JobId("8"), "here")


def test_a_job_on_another_cluster_that_has_another_name_is_left_alone(fake: FakeSlurm, request_: SubmitRequest) -> None:
    fake.command("sbatch", "echo '7;other'")
    fake.command("scancel", "true")
    fake.command("scontrol", "echo 'ClusterName = here'")
    fake.command("squeue", "echo 'CLUSTER: other'; echo somebodys")
    answer = fake.scheduler(accounting="none").submit(request_)
    assert isinstance(answer, Uncertain)
    assert "nothing was cancelled" in answer.message
    assert fake.calls("scancel") == 0


def test_of_several_numbers_the_job_with_the_name_is_the_submitted_one(
    fake: FakeSlurm, request_: SubmitRequest
) -> None:
    at = int(SYSTEM.now().timestamp())
    fake.command("sbatch", "echo 'your last job:'; echo 99; echo 123")
    fake.command(
        "squeue", f"{queue_line('99', 'RUNNING', at=at, name='another')}; {queue_line('123', 'PENDING', at=at)}"
    )
    assert fake.scheduler(accounting="none").submit(request_) == Accepted(JobId("123"))
    fake.command("sbatch", "echo 123; echo 'jobs of yours today:'; echo 99")
    assert fake.scheduler(accounting="none").submit(request_) == Accepted(JobId("123"))


@pytest.mark.parametrize("squeue", ["true", "exit 1"], ids=["no job", "no answer"])
def test_numbers_without_a_job_of_the_name_are_no_job(fake: FakeSlurm, request_: SubmitRequest, squeue: str) -> None:
    fake.command("sbatch", "echo 99; echo 123")
    fake.command("squeue", squeue)
    answer = fake.scheduler(accounting="none").submit(request_)
    assert isinstance(answer, Uncertain)
    assert answer.doubt is Doubt.NO_JOB_ID


def test_a_wrapper_that_fails_after_sbatch_did_its_work_has_a_job(fake: FakeSlurm, request_: SubmitRequest) -> None:
    at = int(SYSTEM.now().timestamp())
    fake.command("sbatch", "echo 123; echo 'accounting script: invalid option' >&2; exit 1")
    fake.command("squeue", queue_line("123", "PENDING", at=at))
    assert fake.scheduler(accounting="none").submit(request_) == Accepted(JobId("123"))


NO_PARSABLE = """\
case "$*" in *--parsable*) echo "{words}" >&2; exit 1;; esac
echo 'Welcome!'; echo 4711; echo 'Submitted batch job 123'
"""


@pytest.mark.parametrize(
    "words", ["sbatch: unrecognized option '--parsable'", "ERROR: parsable output is disabled here"]
)
def test_a_wrapper_that_refuses_parsable_is_called_without_it_from_then_on(
    fake: FakeSlurm, request_: SubmitRequest, words: str
) -> None:
    fake.command("sbatch", NO_PARSABLE.format(words=words))
    fake.command("squeue", "true")
    scheduler = fake.scheduler(accounting="none")
    assert [scheduler.submit(request_) for _ in range(3)] == [Accepted(JobId("123"))] * 3
    calls = [line for line in (fake.folder / "calls").read_text().splitlines() if line.startswith("sbatch ")]
    assert ["--parsable" in call for call in calls] == [True, False, False, False]


@pytest.mark.parametrize("squeue", ["exit 1", "sleep 60"])
def test_sbatch_is_not_called_again_without_parsable_while_nothing_is_known_of_its_job(
    fake: FakeSlurm, request_: SubmitRequest, squeue: str
) -> None:
    fake.command("sbatch", NO_PARSABLE.format(words="parsable: no"))
    fake.command("squeue", squeue)
    assert isinstance(fake.scheduler(accounting="none").submit(request_), Uncertain)
    assert fake.calls("sbatch") == 1


def test_an_option_that_is_refused_for_another_reason_stays(fake: FakeSlurm, request_: SubmitRequest) -> None:
    fake.command("sbatch", 'echo "usage: sbatch [--parsable] SCRIPT; your project has no hours left" >&2; exit 1')
    fake.command("squeue", "true")
    scheduler = fake.scheduler(accounting="none")
    for _ in range(2):
        assert isinstance(scheduler.submit(request_), Uncertain)
    calls = (fake.folder / "calls").read_text()
    assert calls.count("sbatch --parsable") == 2


def test_accounting_that_a_site_promised_is_not_given_up(fake: FakeSlurm) -> None:
    fake.command("sacct", DISABLED)
    fake.command("squeue", SILENCES["fails"])
    with pytest.raises(SchedulerUnavailableError, match="accounting storage is disabled"):
        fake.scheduler(accounting="sacct").records(JOBS)


def test_one_query_asks_for_all_jobs(fake: FakeSlurm) -> None:
    fake.command("sacct", "true")
    fake.command("squeue", "true")
    assert fake.scheduler().records({JobId(str(n)): NOW + timedelta(seconds=n) for n in range(1000)}) == {}
    assert (fake.calls("sacct"), fake.calls("squeue")) == (1, 1)


def test_cancelling_without_an_answer_is_not_taken_for_done(fake: FakeSlurm) -> None:
    fake.command(
        "scancel",
        "echo 'scancel: error: Kill job error on job id 7: Unable to contact slurm controller (connect failure)' >&2"
        "; exit 8",
    )
    with pytest.raises(SchedulerUnavailableError, match="Unable to contact"):
        fake.scheduler().cancel([JobId("7")])


def test_a_hung_command_leaves_no_process_behind(fake: FakeSlurm) -> None:
    fake.command("squeue", f"echo $$ > {fake.folder}/pid; exec sleep 60")
    with pytest.raises(SchedulerUnavailableError, match="no answer within 1 s"):
        fake.scheduler().live_jobs()
    pid = (fake.folder / "pid").read_text().strip()
    assert not Path(f"/proc/{pid}").exists()
