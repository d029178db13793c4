"""Faults that a real Slurm makes too seldom, by commands of our own on PATH that speak like its."""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest
from fake_slurm import (
    ACCOUNTING_HEADER,
    OWN_HEADER,
    QUEUE_HEADER,
    SUBMITTED,
    FakeSlurm,
    accounting_row,
    own_row,
    queue_row,
)

from hpc_agent.clock import SYSTEM
from hpc_agent.config.settings import AllSettings, HpcSettings
from hpc_agent.daemon.act import Actor
from hpc_agent.daemon.run_state import read
from hpc_agent.domain.actions import FindByName
from hpc_agent.domain.attempt import attempt_for
from hpc_agent.domain.ids import JobId, QueueId, TaskId, WorkerId
from hpc_agent.domain.job import Accepted, JobState, OutcomeUnknown, Refused, UnclearAnswer, unconfirmed_record
from hpc_agent.domain.resources import Resources
from hpc_agent.errors import SchedulerUnavailableError
from hpc_agent.runs.attempt_records import SubmissionRecord
from hpc_agent.runs.directory import RunsFolder
from hpc_agent.schedulers.base import SubmitRequest
from hpc_agent.schedulers.slurm.current_job import SlurmCurrentJob
from hpc_agent.schedulers.slurm.driver import SlurmScheduler
from hpc_agent.schedulers.slurm.settings import SlurmSettings

NOW = SUBMITTED
JOBS = {JobId("7"): NOW, JobId("8"): NOW}
DISABLED = "echo 'Slurm accounting storage is disabled' >&2; exit 1"


@pytest.fixture
def fake(tmp_path: Path) -> FakeSlurm:
    return FakeSlurm(tmp_path)


@pytest.fixture
def request_(tmp_path: Path) -> SubmitRequest:
    return SubmitRequest(tmp_path / "job.sh", "name", tmp_path, tmp_path / "job.out", Resources())


def test_an_sbatch_that_hangs_after_queueing_is_uncertain_and_not_repeated(
    fake: FakeSlurm, request_: SubmitRequest
) -> None:
    fake.command("sbatch", "touch queued; sleep 600; touch ended")
    answer = fake.scheduler(sbatch_timeout=5).submit(request_)
    assert isinstance(answer, OutcomeUnknown)
    assert "within 5 s" in answer.message
    assert (fake.folder / "queued").exists()
    assert not (fake.folder / "ended").exists()
    assert fake.calls("sbatch") == 1


def test_a_socket_timeout_is_uncertain_and_the_job_is_found_by_name(fake: FakeSlurm, request_: SubmitRequest) -> None:
    fake.command(
        "sbatch",
        "echo 'sbatch: error: Batch job submission failed: Socket timed out on send/recv operation' >&2; exit 1",
    )
    fake.squeue(queue_row("7", "PENDING"))
    scheduler = fake.scheduler()
    assert isinstance(scheduler.submit(request_), OutcomeUnknown)
    assert scheduler.find("name", NOW) == JobId("7")
    assert fake.calls("sbatch") == 1


@pytest.mark.parametrize(("submit_count", "found"), [(1, "7"), (2, "")])
def test_a_controller_whose_clock_is_behind_does_not_hide_the_first_job_of_its_name(
    fake: FakeSlurm, tmp_path: Path, submit_count: int, found: str
) -> None:
    """Before a second try there was a job of this name, which is not meant."""
    run = RunsFolder(tmp_path).of(attempt_for("c", QueueId("q"), TaskId("a" * 32), "t")).create()
    ahead = NOW + timedelta(minutes=20)
    run.write_submission(
        SubmissionRecord(state="uncertain", at=ahead, queue="q", cluster="c", submit_count=submit_count)
    )
    fake.squeue(queue_row("7", "COMPLETED", name=run.attempt.job_name))
    settings = AllSettings(hpc=HpcSettings(root=tmp_path))
    actor = Actor(None, fake.scheduler(accounting="none"), settings, WorkerId("login"), SYSTEM)  # type: ignore[arg-type]
    assert actor.find_by_name(run.attempt, read(run), FindByName(submit_count + 1, give_up=True)) is not bool(found)
    assert read(run).job == (found or None)


def test_text_on_stderr_is_not_a_failure(fake: FakeSlurm, request_: SubmitRequest) -> None:
    fake.command("sbatch", "echo 'sbatch: warning: please use less' >&2; echo 123")
    assert fake.scheduler().submit(request_) == Accepted(JobId("123"))


def test_a_wrapper_that_prints_no_id_is_uncertain(fake: FakeSlurm, request_: SubmitRequest) -> None:
    fake.command("sbatch", "echo 'job handed to the gateway'")
    assert isinstance(fake.scheduler().submit(request_), OutcomeUnknown)


def test_without_sbatch_submission_is_uncertain_and_says_why(fake: FakeSlurm, request_: SubmitRequest) -> None:
    scheduler = SlurmScheduler(SlurmSettings(), environ={"PATH": str(fake.bin)})
    answer = scheduler.submit(request_)
    assert isinstance(answer, OutcomeUnknown)
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
    "hangs": "sleep 600",
    "garbage": "echo '<html>502 Bad Gateway</html>'",
    "a notice in place of the table": "echo '*** Slurm is down for maintenance until 17:00 ***'",
    "nothing": "true",
}


@pytest.mark.parametrize("query", QUERIES)
@pytest.mark.parametrize("silence", SILENCES)
def test_silence_is_not_information(fake: FakeSlurm, query: str, silence: str) -> None:
    for command in ("squeue", "sacct", "scontrol"):
        fake.command(command, SILENCES[silence])
    with pytest.raises(SchedulerUnavailableError) as raised:
        QUERIES[query](fake.scheduler(command_timeout=1))
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
    fake.squeue(queue_row("7", "HIBERNATING"))
    scheduler = fake.scheduler()
    for _ in range(3):
        (job,) = scheduler.live_jobs()
        assert job.state is JobState.UNKNOWN
        assert job.raw_state == "HIBERNATING"
    assert [record.getMessage() for record in caplog.records] == ["squeue.state_unknown"]


def test_where_accounting_is_off_the_controllers_memory_answers_and_sacct_is_left_alone(fake: FakeSlurm) -> None:
    fake.command("sacct", DISABLED)
    fake.squeue(queue_row("7", "FAILED", exit_code="3:0"), queue_row("8", "RUNNING"))
    scheduler = fake.scheduler()
    for _ in range(2):
        records = scheduler.records(JOBS)
        assert records.keys() == JOBS.keys()
        assert records[JobId("8")].state is JobState.RUNNING
        assert (records[JobId("7")].state, records[JobId("7")].exit_code) == (JobState.FAILED, 3)
    assert scheduler.find("other", NOW) is None
    assert fake.calls("sacct") == 1


def test_where_there_is_no_sacct_the_controllers_memory_answers(fake: FakeSlurm) -> None:
    fake.squeue(queue_row("7", "FAILED", exit_code="768"))
    scheduler = SlurmScheduler(SlurmSettings(), environ={"PATH": str(fake.bin)})
    assert [(job, record.exit_code) for job, record in scheduler.records(JOBS).items()] == [("7", 3)]
    assert scheduler.find("name", NOW) == "7"
    assert scheduler.find("other", NOW) is None


def test_while_accounting_gives_no_answer_the_controllers_memory_does_and_the_rest_is_not_lost(fake: FakeSlurm) -> None:
    fake.command("sacct", "echo 'sacct: error: Problem talking to the database: Connection refused' >&2; exit 1")
    fake.squeue(queue_row("7", "OUT_OF_MEMORY"))
    records = fake.scheduler().records(JOBS)
    assert records == {JobId("7"): records[JobId("7")], JobId("8"): unconfirmed_record(JobId("8"))}
    assert records[JobId("7")].state is JobState.OUT_OF_MEMORY


def test_where_accounting_lags_the_controller_knows_better(fake: FakeSlurm) -> None:
    fake.sacct(accounting_row("7", "RUNNING"), accounting_row("8", "RUNNING"))
    fake.squeue(queue_row("7", "TIMEOUT"))
    states = {job: record.state for job, record in fake.scheduler().records(JOBS).items()}
    assert states == {"7": JobState.TIMEOUT, "8": JobState.RUNNING}
    fake.command("squeue", SILENCES["fails"])
    states = {job: record.state for job, record in fake.scheduler().records(JOBS).items()}
    assert states == {"7": JobState.RUNNING, "8": JobState.RUNNING}


def test_who_cancelled_a_job_is_asked_of_accounting_while_it_may_be_behind(fake: FakeSlurm) -> None:
    def records() -> dict[str, tuple[JobState, str]]:
        found = fake.scheduler().records(JOBS)
        return {job: (record.state, record.cancelled_by) for job, record in found.items()}

    now = str(int(SYSTEM.now().timestamp()))
    fake.sacct(accounting_row("7", "PENDING"))
    fake.squeue(queue_row("7", "CANCELLED", ended=now), queue_row("8", "CANCELLED"))
    assert records() == {"7": (JobState.UNKNOWN, ""), "8": (JobState.CANCELLED, "")}
    fake.sacct(accounting_row("7", "CANCELLED by 0"))
    assert records() == {"7": (JobState.CANCELLED, "root"), "8": (JobState.CANCELLED, "")}
    fake.command("sacct", SILENCES["fails"])
    assert records() == dict.fromkeys(JOBS, (JobState.CANCELLED, ""))


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
    assert isinstance(answer, OutcomeUnknown)
    assert "nothing was cancelled" in answer.message
    assert fake.calls("scancel") == 0


def test_of_several_numbers_the_job_with_the_name_is_the_submitted_one(
    fake: FakeSlurm, request_: SubmitRequest
) -> None:
    at = int(SYSTEM.now().timestamp())
    fake.command("sbatch", "echo 'your last job:'; echo 99; echo 123")
    fake.squeue(
        queue_row("99", "RUNNING", submitted=str(at), name="another"), queue_row("123", "PENDING", submitted=str(at))
    )
    assert fake.scheduler(accounting="none").submit(request_) == Accepted(JobId("123"))
    fake.command("sbatch", "echo 123; echo 'jobs of yours today:'; echo 99")
    assert fake.scheduler(accounting="none").submit(request_) == Accepted(JobId("123"))


@pytest.mark.parametrize("answers", [True, False], ids=["no job", "no answer"])
def test_numbers_without_a_job_of_the_name_are_not_a_job(
    fake: FakeSlurm, request_: SubmitRequest, answers: bool
) -> None:
    fake.command("sbatch", "echo 99; echo 123")
    fake.squeue() if answers else fake.command("squeue", "exit 1")
    answer = fake.scheduler(accounting="none").submit(request_)
    assert isinstance(answer, OutcomeUnknown)
    assert answer.doubt is UnclearAnswer.NO_JOB_ID


def test_a_wrapper_that_fails_after_sbatch_did_its_work_has_a_job(fake: FakeSlurm, request_: SubmitRequest) -> None:
    at = int(SYSTEM.now().timestamp())
    fake.command("sbatch", "echo 123; echo 'accounting script: invalid option' >&2; exit 1")
    fake.squeue(queue_row("123", "PENDING", submitted=str(at)))
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
    fake.squeue()
    scheduler = fake.scheduler(accounting="none")
    assert [scheduler.submit(request_) for _ in range(3)] == [Accepted(JobId("123"))] * 3
    calls = [line for line in (fake.folder / "calls").read_text().splitlines() if line.startswith("sbatch ")]
    assert ["--parsable" in call for call in calls] == [True, False, False, False]


@pytest.mark.parametrize("squeue", ["exit 1", "sleep 600"])
def test_sbatch_is_not_called_again_without_parsable_while_nothing_is_known_of_its_job(
    fake: FakeSlurm, request_: SubmitRequest, squeue: str
) -> None:
    fake.command("sbatch", NO_PARSABLE.format(words="parsable: no"))
    fake.command("squeue", squeue)
    assert isinstance(fake.scheduler(accounting="none", command_timeout=1).submit(request_), OutcomeUnknown)
    assert fake.calls("sbatch") == 1


def test_an_option_that_is_refused_for_another_reason_stays(fake: FakeSlurm, request_: SubmitRequest) -> None:
    fake.command("sbatch", 'echo "usage: sbatch [--parsable] SCRIPT; your project has no hours left" >&2; exit 1')
    fake.squeue()
    scheduler = fake.scheduler(accounting="none")
    for _ in range(2):
        assert isinstance(scheduler.submit(request_), OutcomeUnknown)
    calls = (fake.folder / "calls").read_text()
    assert calls.count("sbatch --parsable") == 2


NOTICE = "*** 4711 nodes are down for maintenance ***\n\n"
BOTH = {JobId("7"): JobState.RUNNING, JobId("8"): JobState.PENDING}


@pytest.mark.parametrize(
    "answer",
    [
        NOTICE + QUEUE_HEADER + queue_row("7", "RUNNING") + queue_row("8", "PENDING"),
        QUEUE_HEADER + NOTICE + queue_row("7", "RUNNING") + NOTICE + queue_row("8", "PENDING"),
        QUEUE_HEADER + queue_row("7", "RUNNING") + queue_row("8", "PENDING") + NOTICE,
        "Hello! " + QUEUE_HEADER + queue_row("7", "RUNNING") + "Hello! " + queue_row("8", "PENDING"),
        (QUEUE_HEADER + queue_row("7", "RUNNING") + queue_row("8", "PENDING")).replace("\n", "\r\n"),
    ],
    ids=["before", "between", "after", "on the same line", "line ends of Windows"],
)
def test_a_squeue_that_greets_is_understood(fake: FakeSlurm, answer: str) -> None:
    fake.answer("squeue", answer)
    assert {job.id: job.state for job in fake.scheduler().live_jobs()} == BOTH


def test_a_sacct_that_greets_is_understood(fake: FakeSlurm) -> None:
    fake.answer("sacct", NOTICE + ACCOUNTING_HEADER + NOTICE + accounting_row("7", "COMPLETED") + NOTICE)
    fake.squeue()
    records = fake.scheduler().records(JOBS)
    assert {job: record.state for job, record in records.items()} == {"7": JobState.COMPLETED}


def cut(fake: FakeSlurm, name: str, table: str, characters: int) -> None:
    """A command whose answer lacks its last characters, and that ends well anyway."""
    fake.answer(name, table[: len(table) - characters])


@pytest.mark.parametrize("characters", [2, 200, 300, 650])
def test_half_an_answer_of_squeue_makes_no_job_gone(fake: FakeSlurm, characters: int) -> None:
    fake.sacct()
    cut(fake, "squeue", QUEUE_HEADER + queue_row("7", "FAILED") + queue_row("8", "RUNNING"), characters)
    scheduler = fake.scheduler()
    records = scheduler.records(JOBS)
    assert records[JobId("7")].state is JobState.FAILED
    assert records[JobId("8")] == unconfirmed_record(JobId("8"))
    assert [job.id for job in scheduler.live_jobs()] == ["7"]
    with pytest.raises(SchedulerUnavailableError, match="rows cannot be read; job other may be one of them"):
        scheduler.find("other", NOW)


def test_half_an_answer_of_sacct_makes_no_job_gone(fake: FakeSlurm) -> None:
    fake.squeue()
    cut(fake, "sacct", ACCOUNTING_HEADER + accounting_row("7", "FAILED") + accounting_row("8", "FAILED"), 20)
    scheduler = fake.scheduler()
    records = scheduler.records(JOBS)
    assert records[JobId("7")].state is JobState.FAILED
    assert records[JobId("8")] == unconfirmed_record(JobId("8"))
    with pytest.raises(SchedulerUnavailableError, match="job other may be one of them"):
        scheduler.find("other", NOW)


def test_while_a_row_cannot_be_read_a_lost_node_is_not_evidence(fake: FakeSlurm) -> None:
    """Its job may have been requeued, and be in that row."""
    fake.sacct(accounting_row("7", "NODE_FAIL"), accounting_row("8", "FAILED"))
    fake.squeue(queue_row("?", "PENDING"))
    scheduler = fake.scheduler()
    assert scheduler.live_jobs() == []
    records = scheduler.records(JOBS)
    assert records[JobId("7")] == unconfirmed_record(JobId("7"))
    assert records[JobId("8")].state is JobState.FAILED


def test_waiting_elements_of_an_array_make_no_answer_unreadable(fake: FakeSlurm) -> None:
    fake.sacct(accounting_row("7_1", "COMPLETED", raw="9"), accounting_row("7_[2-3%1]", "PENDING", raw="7"))
    fake.squeue()
    jobs = {JobId("7_1"): NOW, JobId("8"): NOW}
    records = fake.scheduler().records(jobs)
    assert {job: record.state for job, record in records.items()} == {"7_1": JobState.COMPLETED}


UNREADABLE_CELLS = {
    "exit code": queue_row("7", "FAILED", exit_code="?"),
    "restarts": queue_row("7", "FAILED", restarts="many"),
    "time": queue_row("7", "FAILED", submitted="yesterday"),
}


@pytest.mark.parametrize("cell", UNREADABLE_CELLS)
def test_a_cell_that_cannot_be_read_is_logged_once_and_its_job_is_seen(
    fake: FakeSlurm, cell: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logging.getLogger("hpc_agent"), "propagate", True)
    fake.squeue(UNREADABLE_CELLS[cell], queue_row("8", "RUNNING"))
    scheduler = fake.scheduler(accounting="none")
    for _ in range(3):
        assert [(job.id, job.state) for job in scheduler.live_jobs()] == [
            ("7", JobState.FAILED),
            ("8", JobState.RUNNING),
        ]
    assert sum(record.getMessage() == "squeue.cell_unreadable" for record in caplog.records) == 1


def test_a_job_whose_time_of_submission_cannot_be_read_is_there(fake: FakeSlurm) -> None:
    """It may be ours: it is not evidence, but neither is it gone, nor is there certainly none of its name."""
    fake.sacct(accounting_row("7", "COMPLETED", submitted="5 min ago"))
    fake.squeue(queue_row("8", "COMPLETED", submitted="5 min ago"))
    scheduler = fake.scheduler()
    assert scheduler.records(JOBS) == {job: unconfirmed_record(job) for job in JOBS}
    with pytest.raises(SchedulerUnavailableError, match="2 rows cannot be read"):
        scheduler.find("name", NOW)
    assert scheduler.find("another name", NOW) is None


def test_a_job_with_a_comma_in_its_name_is_found(fake: FakeSlurm) -> None:
    fake.sacct(accounting_row("7", "COMPLETED", name="lr=0.1,bs=2"))
    fake.squeue()
    assert fake.scheduler().find("lr=0.1,bs=2", NOW) == "7"
    assert "--name" not in (fake.folder / "calls").read_text()


def test_a_job_whose_exit_code_cannot_be_read_failed_with_an_unknown_one(fake: FakeSlurm) -> None:
    fake.squeue(UNREADABLE_CELLS["exit code"])
    record = fake.scheduler(accounting="none").records(JOBS)[JobId("7")]
    assert (record.state, record.exit_code) == (JobState.FAILED, None)


def test_accounting_that_a_site_promised_is_not_given_up(fake: FakeSlurm) -> None:
    fake.command("sacct", DISABLED)
    fake.command("squeue", SILENCES["fails"])
    with pytest.raises(SchedulerUnavailableError, match="accounting storage is disabled"):
        fake.scheduler(accounting="sacct").records(JOBS)


def test_one_query_asks_for_all_jobs(fake: FakeSlurm) -> None:
    fake.sacct()
    fake.squeue()
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
    fake.command("squeue", f"echo $$ > {fake.folder}/pid; exec sleep 600")
    with pytest.raises(SchedulerUnavailableError, match="no answer within 5 s"):
        fake.scheduler(command_timeout=5).live_jobs()
    pid = (fake.folder / "pid").read_text().strip()
    assert not Path(f"/proc/{pid}").exists()


@pytest.mark.parametrize("signals", [1, 2, 3])
def test_a_question_that_the_signal_of_its_job_ended_is_asked_again(fake: FakeSlurm, signals: int) -> None:
    """squeue is a process of the job too, and Slurm signals these one after the other."""
    ended_by_it = f"(( $(wc -l <{fake.folder}/calls) > {signals} )) || kill -TERM $$"
    fake.answer("squeue", OWN_HEADER + own_row("7", "RUNNING"), ended_by_it)
    job = SlurmCurrentJob(JobId("7"), fake.environ).look()
    assert (job and job.state) == (None if signals == 3 else JobState.RUNNING)
    assert fake.calls("squeue") == min(signals + 1, 3)
