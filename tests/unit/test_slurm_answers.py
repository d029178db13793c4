"""What Slurm 22.05 printed, as types; tests/data/slurm/README.md says how it was captured."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta, timezone
from pathlib import Path

import msgspec
import pytest

from hpc_agent.domain.ending import Cause, cause_of_end
from hpc_agent.domain.ids import JobId
from hpc_agent.domain.job import Accepted, JobRecord, JobState, Later, LiveJob, Refused, Submission, Uncertain
from hpc_agent.domain.resources import Resources
from hpc_agent.process import Completed
from hpc_agent.schedulers import slurm
from hpc_agent.schedulers.base import SubmitRequest
from hpc_agent.schedulers.slurm_answers import parse_sbatch

CAPTURED = Path(__file__).parents[1] / "data" / "slurm" / "22.05"
OUR_JOB = "clearml_task_0123456789abcdef0123456789abcdef_deadbeef"
IN_SQUEUE = datetime(2026, 11, 20, 12, 0, 7, tzinfo=timezone.utc)
SUBMITTED = datetime(2026, 11, 20, 13, 6, 39, tzinfo=timezone.utc)
"""When the jobs of squeue_* and of sacct_* were submitted."""


def captured(name: str) -> Completed:
    return msgspec.json.decode((CAPTURED / f"{name}.json").read_bytes(), type=Completed)


def names(prefix: str) -> list[str]:
    return sorted(path.stem for path in CAPTURED.glob(f"{prefix}*.json"))


def answer(name: str) -> Submission:
    said = captured(name)
    return parse_sbatch(said.returncode, said.stdout, said.stderr)


def queue(name: str) -> dict[str, LiveJob]:
    return {row.id: slurm.live_job(row) for row in slurm.parse_squeue(captured(name).stdout)}


def records(name: str) -> dict[str, JobRecord]:
    return {record.id: record for _, record in slurm.parse_sacct(captured(name).stdout)}


# ---------------------------------------------------------------- sbatch


def test_a_job_id_is_an_acceptance() -> None:
    assert answer("sbatch_accepted") == Accepted(JobId("2"))


@pytest.mark.parametrize("name", names("sbatch_refused_"))
def test_what_can_never_succeed_is_refused_in_slurms_own_words(name: str) -> None:
    said = answer(name)
    assert isinstance(said, Refused)
    assert "sbatch:" not in said.message
    assert "\n" not in said.message


def test_a_refusal_names_what_is_wrong() -> None:
    said = answer("sbatch_refused_unknown_partition")
    assert isinstance(said, Refused)
    assert said.message == (
        "invalid partition specified: nope; Batch job submission failed: Invalid partition name specified"
    )


@pytest.mark.parametrize("name", names("sbatch_later_"))
def test_a_limit_on_the_number_of_jobs_means_later(name: str) -> None:
    assert isinstance(answer(name), Later)


@pytest.mark.parametrize("name", names("sbatch_uncertain_"))
def test_a_controller_that_does_not_answer_leaves_it_uncertain(name: str) -> None:
    """Of the frozen controller's job it is known that it was queued and ran: sbatch had given up on it before."""
    assert isinstance(answer(name), Uncertain)


@pytest.mark.parametrize(
    ("stdout", "stderr"),
    [
        ("Welcome to our cluster!\nProject: 4711\n123;alpha\n", ""),
        ("123;alpha\n", "sbatch: error: Slurm temporarily unable to accept job, sleeping and retrying\n"),
        ("99 bottles\n123;alpha\nhave a nice day\n", "sbatch: lua: your project has 7 hours left\n"),
    ],
)
def test_the_id_is_found_among_what_a_site_prints(stdout: str, stderr: str) -> None:
    assert parse_sbatch(0, stdout, stderr) == Accepted(JobId("123"), "alpha")


@pytest.mark.parametrize("stdout", ["", "Submitted batch job\n", "<html>it works</html>\n", "123 456\n"])
def test_success_without_an_id_is_uncertain(stdout: str) -> None:
    assert isinstance(parse_sbatch(0, stdout, ""), Uncertain)


@pytest.mark.parametrize(
    ("stderr", "kind"),
    [
        ("sbatch: error: AssocMaxSubmitJobLimit\nsbatch: error: Batch job submission failed: Job violates", Later),
        ("sbatch: error: Batch job submission failed: Job violates accounting/QOS policy (job submit limit, …)", Later),
        (
            "sbatch: error: QOSMaxWallDurationPerJobLimit\n"
            "sbatch: error: Batch job submission failed: Job violates accounting/QOS policy (job submit limit, …)",
            Refused,
        ),
        ("sbatch: error: QOSMaxGRESPerUser\nsbatch: error: Batch job submission failed: Job violates …", Refused),
        (
            "sbatch: error: please give --time, see https://docs.example.org\n"
            "sbatch: error: Batch job submission failed: Unspecified error",
            Refused,
        ),
        ("sbatch: error: Batch job submission failed: Unspecified error", Uncertain),
        ("sbatch: error: Batch job submission failed: Required node not available (down, drained or …", Later),
        ("sbatch: error: Batch job submission failed: Zero Bytes were transmitted or received", Uncertain),
        (
            "sbatch: error: Slurm temporarily unable to accept job, sleeping and retrying\n"
            "sbatch: error: Batch job submission failed: Socket timed out on send/recv operation",
            Uncertain,
        ),
        ("sbatch: error: Batch job submission failed: something that a later version says", Uncertain),
        ("", Uncertain),
    ],
)
def test_other_words_of_sbatch(stderr: str, kind: type[Submission]) -> None:
    assert isinstance(parse_sbatch(1, "", stderr), kind)


def test_sbatch_is_told_what_a_template_may_forget() -> None:
    request = SubmitRequest(Path("/r/job.sh"), OUR_JOB, Path("/r"), Path("/r/100%.out"), Resources())
    assert slurm.sbatch(request, ("--export=ALL",)) == [
        *("sbatch", "--parsable", f"--job-name={OUR_JOB}", "--chdir=/r", "--output=/r/100%%.out"),
        *("--open-mode=append", "--export=ALL", "/r/job.sh"),
    ]


# ---------------------------------------------------------------- squeue


def test_live_jobs_are_read_with_their_reasons() -> None:
    jobs = queue("squeue_mixed")
    assert jobs["2"] == LiveJob(JobId("2"), OUR_JOB, JobState.RUNNING, "RUNNING", nodes="n1", submitted=IN_SQUEUE)
    assert jobs["3"].state is JobState.PENDING
    assert jobs["3"].reason == "Resources"
    assert jobs["3"].expected_start == IN_SQUEUE + timedelta(hours=1, seconds=1)
    assert jobs["5"].reason == "JobHeldUser"
    assert jobs["5"].expected_start is None


def test_each_array_element_has_a_line_of_its_own() -> None:
    jobs = queue("squeue_mixed")
    assert [id for id in jobs if id.startswith("7_")] == ["7_3", "7_1", "7_2"]
    assert jobs["7_3"].reason == "JobArrayTaskLimit"


def test_a_name_may_hold_anything() -> None:
    assert queue("squeue_mixed")["6"].name == "näme with | and  space"


def test_a_requeued_job_shows_how_often() -> None:
    job = queue("squeue_requeued")["12"]
    assert (job.state, job.restarts, job.reason) == (JobState.PENDING, 1, "BeginTime")


def test_no_jobs_are_no_error() -> None:
    assert slurm.parse_squeue(captured("squeue_unknown_name").stdout) == []


@pytest.mark.parametrize("text", ["JOBID PARTITION NAME\n", "Welcome to our cluster!\n", "<html>\n"])
def test_what_is_no_queue_is_not_read_as_one(text: str) -> None:
    with pytest.raises(ValueError, match="not a line of squeue"):
        slurm.parse_squeue(text)


def test_jobs_that_ended_lately_are_records_too() -> None:
    ended = {row.id: slurm.ended_job(row) for row in slurm.parse_squeue(captured("squeue_ended").stdout)}
    assert (ended["8"].state, ended["8"].exit_code, ended["8"].signal) == (JobState.FAILED, 3, 0)
    assert (ended["9"].state, ended["9"].exit_code, ended["9"].signal) == (JobState.FAILED, 0, 9)
    assert ended["10"].state is JobState.COMPLETED
    assert ended["11"].state is JobState.NODE_FAIL
    assert ended["13"].state is JobState.PREEMPTED
    found = slurm.newest(((id, ended[id]) for id in ended), {JobId("2"): IN_SQUEUE, JobId("12"): IN_SQUEUE})
    assert not any(record.state.is_final for record in found.values())


def test_hidden_partitions_are_asked_for() -> None:
    """Without --all squeue exits 0 and lists nothing of them, except to root; checked on 22.05."""
    assert "--all" in slurm.squeue("1000")
    assert "--all" in slurm.squeue("1000", ended=True, name=OUR_JOB)


def test_a_job_that_another_cluster_of_the_federation_has_is_still_listed() -> None:
    [row] = [row for row in slurm.parse_squeue(captured("squeue_ended").stdout) if row.id == "10"]
    job = slurm.live_job(replace(row, word="REVOKED"))
    assert (job.state, job.reason) == (JobState.REVOKED, "")


# ---------------------------------------------------------------- sacct


@pytest.mark.parametrize(
    ("job", "state", "exit_code", "signal"),
    [
        ("1", JobState.TIMEOUT, 0, 0),
        ("2", JobState.CANCELLED, 0, 0),
        ("5", JobState.CANCELLED, 0, 0),
        ("8", JobState.FAILED, 3, 0),
        ("9", JobState.FAILED, 0, 9),
        ("10", JobState.COMPLETED, 0, 0),
        ("11", JobState.NODE_FAIL, 0, 0),
        ("13", JobState.PREEMPTED, 0, 0),
        ("7_2", JobState.FAILED, 1, 0),
        ("12", JobState.RUNNING, 0, 0),
    ],
)
def test_records_are_read(job: str, state: JobState, exit_code: int, signal: int) -> None:
    record = records("sacct_ended")[job]
    assert (record.state, record.exit_code, record.signal) == (state, exit_code, signal)


def test_a_record_has_times_and_who_cancelled() -> None:
    record = records("sacct_ended")["2"]
    assert record.name == OUR_JOB
    assert record.cancelled_by == "0"
    assert record.submitted == SUBMITTED
    assert record.started == SUBMITTED + timedelta(seconds=1)
    assert record.ended == SUBMITTED + timedelta(seconds=21)
    assert record.nodes == "n1"


def test_a_record_has_the_time_limit_in_seconds() -> None:
    found = records("sacct_ended")
    assert [found[job].time_limit for job in ("1", "6", "10", "13")] == [60, 600, None, 365 * 86400]


def test_a_job_cancelled_before_it_started_has_no_start_and_no_node() -> None:
    record = records("sacct_ended")["5"]
    assert record.started is None
    assert record.nodes == ""


def test_unknown_ids_give_no_records() -> None:
    assert records("sacct_unknown") == {}


def test_a_job_is_found_by_its_name() -> None:
    assert [record.name for record in records("sacct_by_name").values()] == [OUR_JOB]


def row(job: str, state: str, submit: datetime, raw: str = "", name: str = OUR_JOB) -> str:
    stamp = int(submit.timestamp())
    return f"{job}|{raw or job}|{state}|0:0|{stamp}|{stamp}|{stamp}|01:00:00|n1|None|{name}\n"


def verdict(text: str, job: str = "7") -> JobRecord | None:
    found = slurm.newest(slurm.parse_sacct(text), {JobId(job): SUBMITTED}).get(JobId(job))
    return found if found and found.state.is_final else None


def test_only_final_records_are_verdicts() -> None:
    found = slurm.newest(
        slurm.parse_sacct(captured("sacct_ended").stdout), {JobId(str(n)): SUBMITTED for n in range(1, 17)}
    )
    final = {job for job, record in found.items() if record.state.is_final}
    assert "12" in found.keys() - final  # requeued, and running again
    assert {"1", "2", "3", "8", "11", "13"} <= final


def test_a_record_from_before_our_submission_is_of_another_job() -> None:
    old = row("7", "FAILED", SUBMITTED - timedelta(days=400))
    assert verdict(old) is None
    found = verdict(old + row("7", "COMPLETED", SUBMITTED))
    assert found is not None
    assert found.state is JobState.COMPLETED


def test_the_newest_record_decides_after_a_requeue() -> None:
    first = row("7", "NODE_FAIL", SUBMITTED)
    assert verdict(first + row("7", "PENDING", SUBMITTED + timedelta(minutes=2))) is None
    found = verdict(row("7", "COMPLETED", SUBMITTED + timedelta(minutes=2)) + first)
    assert found is not None
    assert found.state is JobState.COMPLETED


def test_the_controllers_clock_may_be_a_little_behind_ours() -> None:
    assert verdict(row("7", "COMPLETED", SUBMITTED - timedelta(seconds=2))) is not None


def test_a_record_can_be_asked_for_by_its_raw_id() -> None:
    found = verdict(row("5_3", "COMPLETED", SUBMITTED, raw="7"))
    assert found is not None
    assert found.id == "5_3"


def test_a_name_that_slurmdbd_does_not_know_yet_is_empty() -> None:
    found = verdict(row("7", "COMPLETED", SUBMITTED, name="allocation"))
    assert found is not None
    assert found.name == ""


@pytest.mark.parametrize("text", ["JobID|State\n", "sacct: hello\n", "1|1|RUNNING|?|1|1|1|1|n1|None|x\n"])
def test_what_is_no_record_is_not_read_as_one(text: str) -> None:
    with pytest.raises(ValueError, match="not a line of sacct"):
        list(slurm.parse_sacct(text))


# ---------------------------------------------------------------- scontrol show job, asked from inside it


@pytest.mark.parametrize(
    ("name", "restarts", "cause"),
    [
        ("running", 0, Cause.SOMEBODY),
        ("cancelled", 0, Cause.CANCELLED),
        ("preempted", 0, Cause.PREEMPTED),
        ("requeued", 0, Cause.REQUEUED),
        ("time_limit", 0, Cause.TIME_LIMIT),
    ],
)
def test_slurm_says_why_it_tells_a_job_to_end(name: str, restarts: int, cause: Cause) -> None:
    assert cause_of_end(slurm.parse_own_job(captured(f"scontrol_job_{name}").stdout), restarts) is cause


def test_without_an_answer_the_cause_is_unknown() -> None:
    assert cause_of_end(None, 0) is Cause.UNKNOWN


def test_a_job_knows_how_much_time_it_has_left() -> None:
    assert slurm.parse_own_job(captured("scontrol_job_running").stdout).left == 3599
    assert slurm.parse_own_job(captured("scontrol_job_preempted").stdout).left is None


# ---------------------------------------------------------------- states, times, the rest


LIVE_WORDS = (
    "PENDING RUNNING SUSPENDED COMPLETING CONFIGURING EXPEDITING LAUNCH_FAILED POWER_UP_NODE RECONFIG_FAIL REQUEUED "
    "REQUEUE_FED REQUEUE_HOLD RESIZING RESV_DEL_HOLD SIGNALING SPECIAL_EXIT STAGE_OUT STOPPED UPDATE_DB"
)
FINAL_WORDS = "BOOT_FAIL CANCELLED COMPLETED DEADLINE FAILED NODE_FAIL OUT_OF_MEMORY PREEMPTED REVOKED TIMEOUT"


@pytest.mark.parametrize("word", LIVE_WORDS.split())
def test_no_state_of_a_live_job_is_final(word: str) -> None:
    assert slurm.state(word) is not JobState.UNKNOWN
    assert not slurm.state(word).is_final


@pytest.mark.parametrize("word", FINAL_WORDS.split())
def test_every_final_state_is_final(word: str) -> None:
    assert slurm.state(word).is_final


@pytest.mark.parametrize("word", ["HIBERNATING", "", "completed?", "_name_", "mro"])
def test_a_state_that_nobody_knows_is_not_final(word: str) -> None:
    assert slurm.state(word) is JobState.UNKNOWN
    assert not slurm.state(word).is_final


@pytest.mark.parametrize("word", ["CANCELLED by 1000", "CANCELLED+"])
def test_cancelled_may_carry_more(word: str) -> None:
    assert slurm.state(word) is JobState.CANCELLED


def test_times_are_read_as_utc() -> None:
    assert slurm.time("1795176007") == IN_SQUEUE
    assert slurm.time("2026-11-20T12:00:07") == IN_SQUEUE
    assert [slurm.time(text) for text in ("N/A", "NONE", "None", "Unknown", "")] == [None] * 5


@pytest.mark.parametrize("name", names("scancel_"))
def test_scancel_fails_only_when_nobody_took_the_request(name: str) -> None:
    said = captured(name)
    assert slurm.cancelled(said.returncode, said.stderr) == ("slurmctld_down" not in name)


def test_the_cluster_is_named_in_its_configuration() -> None:
    config = slurm.parse_config(captured("scontrol_config").stdout)
    assert config["ClusterName"] == "hpcagent"
    assert config["MinJobAge"] == "300 sec"
