"""What sbatch of each version said, as one of four answers."""

from __future__ import annotations

from pathlib import Path

import pytest
from captured_slurm import OUR_JOB, VERSIONS, captured, names

from hpc_agent.domain.ids import JobId
from hpc_agent.domain.job import Accepted, LimitReached, OutcomeUnknown, Refused, SubmitResult
from hpc_agent.domain.resources import Resources
from hpc_agent.schedulers.base import SubmitRequest
from hpc_agent.schedulers.slurm import commands
from hpc_agent.schedulers.slurm.sbatch_answers import parse_sbatch


def of_each_version(prefix: str) -> pytest.MarkDecorator:
    """Each captured answer whose name begins so."""
    return pytest.mark.parametrize(
        ("version", "name"), [(version, name) for version in VERSIONS for name in names(version, prefix)]
    )


def answer(version: str, name: str) -> SubmitResult:
    said = captured(version, name)
    return parse_sbatch(said.returncode, said.stdout, said.stderr)


@of_each_version("sbatch_accepted")
def test_a_job_id_is_an_acceptance(version: str, name: str) -> None:
    assert answer(version, name) == Accepted(JobId(captured(version, name).stdout.strip()))


@of_each_version("sbatch_refused_")
def test_what_can_never_succeed_is_refused_in_slurms_own_words(version: str, name: str) -> None:
    said = answer(version, name)
    assert isinstance(said, Refused)
    assert "sbatch:" not in said.message
    assert "\n" not in said.message


@of_each_version("sbatch_refused_unknown_partition")
def test_a_refusal_names_what_is_wrong(version: str, name: str) -> None:
    said = answer(version, name)
    assert isinstance(said, Refused)
    assert said.message == (
        "invalid partition specified: nope; Batch job submission failed: Invalid partition name specified"
    )


@of_each_version("sbatch_later_")
def test_a_limit_on_the_number_of_jobs_means_later(version: str, name: str) -> None:
    assert isinstance(answer(version, name), LimitReached)


@of_each_version("sbatch_uncertain_")
def test_a_controller_that_does_not_answer_leaves_it_uncertain(version: str, name: str) -> None:
    """Of the frozen controller's job it is known that it was queued and ran: sbatch had given up on it before."""
    assert isinstance(answer(version, name), OutcomeUnknown)


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
    assert isinstance(parse_sbatch(0, stdout, ""), OutcomeUnknown)


@pytest.mark.parametrize(
    ("stderr", "kind"),
    [
        (
            "sbatch: error: AssocMaxSubmitJobLimit\nsbatch: error: Batch job submission failed: Job violates",
            LimitReached,
        ),
        (
            "sbatch: error: Batch job submission failed: Job violates accounting/QOS policy (job submit limit, …)",
            LimitReached,
        ),
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
        ("sbatch: error: Batch job submission failed: Unspecified error", OutcomeUnknown),
        ("sbatch: error: Batch job submission failed: Required node not available (down, drained or …", LimitReached),
        ("sbatch: error: Batch job submission failed: Zero Bytes were transmitted or received", OutcomeUnknown),
        (
            "sbatch: error: Slurm temporarily unable to accept job, sleeping and retrying\n"
            "sbatch: error: Batch job submission failed: Socket timed out on send/recv operation",
            OutcomeUnknown,
        ),
        ("sbatch: error: Batch job submission failed: something that a later version says", OutcomeUnknown),
        ("", OutcomeUnknown),
    ],
)
def test_other_words_of_sbatch(stderr: str, kind: type[SubmitResult]) -> None:
    assert isinstance(parse_sbatch(1, "", stderr), kind)


def test_sbatch_gets_what_a_template_may_forget() -> None:
    request = SubmitRequest(Path("/r/job.sh"), OUR_JOB, Path("/r"), Path("/r/100%.out"), Resources())
    assert commands.sbatch(request, ("--export=ALL",)) == [
        *("sbatch", "--parsable", f"--job-name={OUR_JOB}", "--chdir=/r", "--output=/r/100%%.out"),
        *("--open-mode=append", "--export=ALL", "/r/job.sh"),
    ]
