"""Which job sbatch named, and what its words mean, whatever a site's wrapper prints around them."""

from __future__ import annotations

import pytest

from hpc_agent.domain.ids import JobId
from hpc_agent.domain.job import Accepted, LimitReached, OutcomeUnknown, Refused, SubmitResult, UnclearAnswer
from hpc_agent.schedulers.slurm.sbatch_answers import named_jobs, parse_sbatch, refuses_parsable
from hpc_agent.tracking.sbatch_output import SbatchOutput

FAILED = "sbatch: error: Batch job submission failed: "


def named(stdout: str, *, parsable: bool) -> list[str]:
    return [job.job for job in named_jobs(stdout, parsable=parsable)]


SENTENCES = {
    "alone": "Submitted batch job 123\n",
    "without an end of line": "Submitted batch job 123",
    "on a cluster": "Submitted batch job 123 on cluster alpha\n",
    "with sbatch's prefix": "sbatch: Submitted batch job 123\n",
    "greeting before": "Welcome!\n\nProject 4711 has 7 hours left\nSubmitted batch job 123\n",
    "greeting after": "Submitted batch job 123\n\nHave a nice day\n",
    "number before": "your last job:\n99\nSubmitted batch job 123\n",
    "number after": "Submitted batch job 123\n99\n",
    "number with a cluster before": "99;alpha\nSubmitted batch job 123\n",
    "lines of DOS": "Welcome\r\nSubmitted batch job 123\r\n",
    "a progress bar before": "10 %\r100 %\rSubmitted batch job 123\n",
    "in colour": "\x1b[1;32mSubmitted batch job 123\x1b[0m\n",
    "after a terminal's title": "\x1b]0;cluster\x07Submitted batch job 123\n",
    "indented": "  Submitted batch job 123 \n",
    "twice": "Submitted batch job 123\nSubmitted batch job 123\n",
    "quoted in a sentence": "Yesterday: Submitted batch job 5, it failed\nSubmitted batch job 123\n",
}


@pytest.mark.parametrize("text", SENTENCES.values(), ids=SENTENCES.keys())
def test_the_job_is_the_one_of_sbatchs_sentence(text: str) -> None:
    assert named(text, parsable=False) == ["123"]
    answer = parse_sbatch(0, text, "", parsable=False)
    assert isinstance(answer, Accepted)
    assert (answer.job, answer.cluster) == ("123", "alpha" if "on cluster alpha" in text else "")


@pytest.mark.parametrize(
    "text",
    ["123\n", "123;alpha\n", "\n123\n\n", "hello\r\n123\r\n", "\x1b[32m123\x1b[0m\n", "123", "hello 99\n123\nbye 98\n"],
)
def test_with_parsable_it_is_the_number_on_a_line_of_its_own(text: str) -> None:
    assert named(text, parsable=True) == ["123"]
    assert named(text, parsable=False) == []


NO_IDS = {
    "nothing": "",
    "no number": "Submitted batch job\n",
    "a page": "<html>it works</html>\n",
    "two numbers": "123 456\n",
    "zero": "0\nSubmitted batch job 0\n",
    "negative": "-5\n",
    "leading zero": "007\nSubmitted batch job 007\n",
    "decimal": "1.5\n",
    "other digits": "\u0661\u0662\u0663\nSubmitted batch job \u0661\n",
    "an element": "12_3\n",
    "a date": "2026-11-20\n",
    "a list": "123;\n;123\n123;a;b\n",
    "half a sentence": "Submitted batch job 123 to the gateway\n",
    "more than a sentence": "Not submitted: Submitted batch job 123\n",
}


@pytest.mark.parametrize("text", NO_IDS.values(), ids=NO_IDS.keys())
def test_what_sbatch_never_prints_names_no_job(text: str) -> None:
    assert named(text, parsable=True) == []
    answer = parse_sbatch(0, text, "")
    assert isinstance(answer, OutcomeUnknown)
    assert answer.doubt is UnclearAnswer.NO_JOB_ID


@pytest.mark.parametrize(
    "text", ["99\n123\n", "123\n99\n", "123;alpha\n7\n", "99\nSubmitted batch job 123\n", "99\n123;alpha\n5\n"]
)
def test_of_several_numbers_none_is_taken_for_its_place(text: str) -> None:
    assert "123" in named(text, parsable=True)
    answer = parse_sbatch(0, text, "", parsable=True)
    assert isinstance(answer, OutcomeUnknown)
    assert answer.doubt is UnclearAnswer.NO_JOB_ID


def test_output_is_read_as_it_comes_in_whatever_pieces() -> None:
    text = b"your last job:\n99\nSubmitted batch job 123\nSubmitted batch job 12"
    for size in (1, 3, 7, len(text)):
        output = SbatchOutput(parsable=False)
        for start in range(0, len(text), size):
            output.feed(text[start : start + size])
        assert output.sentences == ["123"], "half a line is not an answer yet"
        output.close()
        assert output.named == output.sentences == ["123", "12"]


UNFORESEEN = [
    "ERROR: your project has no hours left; ask the help desk",
    f"{FAILED}Requested GRES option unsupported by configured SelectType plugin",
    f"{FAILED}User not found on host",
    f"{FAILED}Circular job dependency",
    f"{FAILED}something that a later version says",
    f"{FAILED}Unspecified error",
    "sbatch: error: cli_filter plugin terminated with error",
    "sbatch: error: No cluster 'other' known by database.",
    "Traceback (most recent call last):\n  File \"/opt/site/sbatch\", line 3\nKeyError: 'account'",
    "\x1b[31mNein: das Kontingent ist erschöpft\x1b[0m",
    "",
]


@pytest.mark.parametrize("stderr", UNFORESEEN)
def test_an_error_in_unknown_words_is_uncertain_and_may_be_a_refusal(stderr: str) -> None:
    answer = parse_sbatch(1, "", stderr)
    assert isinstance(answer, OutcomeUnknown)
    assert answer.doubt is UnclearAnswer.UNKNOWN_ERROR
    assert "\x1b" not in answer.message
    assert answer.message


SILENT = [
    f"{FAILED}Unable to contact slurm controller (connect failure)",
    f"{FAILED}Socket timed out on send/recv operation",
    f"{FAILED}I/O error writing script/environment to file",
    f"{FAILED}Slurm internal error, contact system administrator",
    "sbatch: error: If munged is up, restart with --num-threads=10\n"
    'sbatch: error: Munge encode failed: Failed to access "/run/munge/munge.socket.2": No such file or directory',
    "sbatch: error: resolve_ctls_from_dns_srv: res_nsearch error\n"
    "sbatch: fatal: Could not establish a configuration source",
    "connection refused by the gateway",
]


@pytest.mark.parametrize("stderr", SILENT)
def test_errors_on_the_way_to_the_controller_are_not_errors_of_a_task(stderr: str) -> None:
    answer = parse_sbatch(1, "", stderr)
    assert isinstance(answer, OutcomeUnknown)
    assert answer.doubt is UnclearAnswer.NO_ANSWER


@pytest.mark.parametrize("code", [-9, 124, 137, 143])
def test_an_sbatch_that_was_killed_said_nothing(code: int) -> None:
    answer = parse_sbatch(code, "", "")
    assert isinstance(answer, OutcomeUnknown)
    assert answer.doubt is UnclearAnswer.NO_ANSWER


QUOTED = [
    "Socket timed out",
    "Unable to contact slurm controller",
    "munge",
    "QOSMaxSubmitJobPerUserLimit",
    "try again later",
]


@pytest.mark.parametrize("text", QUOTED)
@pytest.mark.parametrize(
    "stderr",
    [
        "sbatch: fatal: /r/job.sbatch: line 12: Unmatched `'` in [--comment='{text}]",
        "sbatch: error: Invalid directive found in batch script: {text}",
        f"sbatch: error: invalid partition specified: {{text}}\n{FAILED}Invalid partition name specified",
        f"sbatch: error: {{text}}\n{FAILED}Invalid account or account/partition combination specified",
    ],
)
def test_text_of_the_job_in_an_error_does_not_hide_that_it_is_refused(stderr: str, text: str) -> None:
    assert isinstance(parse_sbatch(1, "", stderr.replace("{text}", text)), Refused)


def test_a_null_character_is_refused() -> None:
    first, second = "The Slurm controller does not allow scripts that", "contain a NULL character '\\0'."
    words = f"sbatch: error: {first}\nsbatch: error: {second}\n"
    assert parse_sbatch(1, "", words) == Refused(f"{first}; {second}")


@pytest.mark.parametrize("words", ["sbatch: error: something broke", f"{FAILED}Invalid qos specification", ""])
def test_after_a_named_job_no_error_is_a_refusal(words: str) -> None:
    answer = parse_sbatch(1, "Submitted batch job 123\n", words, parsable=False)
    assert isinstance(answer, OutcomeUnknown)


@pytest.mark.parametrize(
    ("stderr", "objects"),
    [
        ("sbatch: unrecognized option '--parsable'\nTry \"sbatch --help\" for more information", True),
        ("error: --parsable is not supported by this gateway", True),
        ("the option parsable is switched off here", True),
        ("sbatch: error: Unable to open file /data/parsable/job.sbatch", False),
        ("sbatch: unrecognized option '--nonsense'", False),
        (f"{FAILED}Socket timed out on send/recv operation (--parsable)", False),
    ],
)
def test_objections_to_parsable(stderr: str, objects: bool) -> None:
    assert refuses_parsable(parse_sbatch(1, "", stderr)) is objects


@pytest.mark.parametrize("answer", [Accepted(JobId("1")), LimitReached("--parsable"), OutcomeUnknown("--parsable")])
def test_other_answers_are_not_an_objection_to_parsable(answer: SubmitResult) -> None:
    assert not refuses_parsable(answer)
