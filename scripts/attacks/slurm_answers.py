"""Answers of sbatch, made by a site's wrapper, a job's own text, or a user who wants another job cancelled.

None may make another job the submitted one, have it cancelled, stop a queue, or bring control characters to a task.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from functools import partial
from pathlib import Path

from attacks.case import Case
from hpc_agent.domain.ids import JobId, TaskId
from hpc_agent.domain.job import (
    Accepted,
    JobRecord,
    JobState,
    LimitReached,
    LiveJob,
    OutcomeUnknown,
    SubmitResult,
    UnclearAnswer,
)
from hpc_agent.domain.resources import Resources
from hpc_agent.schedulers.base import SubmitRequest
from hpc_agent.schedulers.slurm.driver import SlurmScheduler
from hpc_agent.schedulers.slurm.sbatch_answers import parse_sbatch
from hpc_agent.schedulers.slurm.settings import SlurmSettings
from hpc_agent.tracking.job_search import AmbiguousJobError, JobSearch
from hpc_agent.tracking.sbatch_output import SbatchOutput
from hpc_agent.tracking.tracked_records import TrackedDirectory, TrackedJobRecord, TrackedRoot, TrackingPlan

DOOR = "sbatch's answers"

OWN, FOREIGN = "123", "99"
NAME = "clearml_task_0123456789abcdef0123456789abcdef_deadbeef"
NOW = datetime(2026, 1, 1, 12, 0, 0, tzinfo=timezone.utc)
FAILED = "sbatch: error: Batch job submission failed: "

# ---------------------------------------------------------------- a number that is not the job's

_FOREIGN_LINES = {
    "a number": "99",
    "a number with a cluster": "99;alpha",
    "a sentence": "Submitted batch job 99",
    "a sentence with a cluster": "Submitted batch job 99 on cluster alpha",
    "a number in colour": "\x1b[31m99\x1b[0m",
    "a number behind blanks": " \t 99",
    "a number in a line of DOS": "hello\r\n99\r",
    "a number behind a progress bar": "10 %\r99",
    "a sentence with sbatch's prefix": "sbatch: Submitted batch job 99",
    "a number behind a terminal's title": "\x1b]0;title\x0799",
}
_ANSWERS = {"a number": (OWN, True), "a sentence": (f"Submitted batch job {OWN}", False)}


def _taken(output: str, parsable: bool, _: Path) -> str:
    answer = parse_sbatch(0, output, "", parsable=parsable)
    return f"job {answer.job}" if isinstance(answer, Accepted) and answer.job != OWN else ""


_NEAR = tuple(
    Case(
        f"{what} {place} sbatch's own answer, {kind}",
        partial(_taken, order.format(line=line, answer=answer), parsable),
    )
    for what, line in _FOREIGN_LINES.items()
    for kind, (answer, parsable) in _ANSWERS.items()
    for place, order in (("before", "{line}\n{answer}\n"), ("behind", "{answer}\n{line}\n"))
)

_NO_ANSWERS = {
    "a number without --parsable": ("99\n", False),
    "a number and a cluster without --parsable": ("99;alpha\n", False),
    "two numbers on a line": ("99 100\n", True),
    "an array's element": ("99_1\n", True),
    "a negative number": ("-99\n", True),
    "a number with leading zeros": ("0099\n", True),
    "a number in other digits": ("\u0669\u0669\n", True),
    "a number of a thousand digits": ("9" * 1000 + "\n", True),
    "a number with more than a cluster": ("99;a;b\n", True),
    "a number in an option": ("--jobs=99\n", True),
    "a sentence inside another": ("Yesterday: Submitted batch job 99\n", False),
    "a sentence that goes on": ("Submitted batch job 99 of yours failed\n", False),
    "a sentence across lines": ("Submitted batch job\n99\n", False),
    "a number split by a line break": ("\x0b99\x0b1\n", True),
}
_UNANSWERED = tuple(
    Case(f"{what} is all that is printed", partial(_taken, text, parsable))
    for what, (text, parsable) in _NO_ANSWERS.items()
)

# ---------------------------------------------------------------- the same as programs, through the scheduler


def _site(folder: Path, **commands: str) -> SlurmScheduler:
    for name, body in commands.items():
        path = folder / name
        path.write_text(f'#!/bin/sh\necho "{name} $*" >> {folder}/calls\n{body}\n')
        path.chmod(0o755)
    settings = SlurmSettings(sbatch_timeout=5, command_timeout=5, accounting="none")
    return SlurmScheduler(settings, environ={"PATH": f"{folder}:/usr/bin:/bin"})


def _submitted(folder: Path, **commands: str) -> SubmitResult:
    request = SubmitRequest(folder / "job.sh", NAME, folder, folder / "job.out", Resources())
    return _site(folder, **commands).submit(request)


def _print(text: str) -> str:
    return f"printf %s {shlex.quote(text)}"


def _accepted_foreign(text: str, code: int, folder: Path) -> str:
    answer = _submitted(folder, sbatch=f"{_print(text)}; exit {code}", squeue="true")
    return f"job {answer.job}" if isinstance(answer, Accepted) else ""


_WRAPPED = tuple(
    Case(
        f"a wrapper prints {what} and ends with exit code {code}",
        partial(_accepted_foreign, text, code),
    )
    for what, text, code in (
        ("two numbers", "99\n100\n", 0),
        ("a number and a sentence", "99\nSubmitted batch job 100\n", 0),
        ("a number", "99\n", 1),
        ("a sentence", "Submitted batch job 99\n", 1),
        ("two sentences", "Submitted batch job 99\nSubmitted batch job 100\n", 0),
    )
)


def _cancelled_elsewhere(names: str, folder: Path) -> str:
    config = "echo 'ClusterName = here'"
    _submitted(folder, sbatch="echo '99;other'", squeue=_print(names), scontrol=config, scancel="true")
    return "a foreign job was cancelled" if "scancel" in (folder / "calls").read_text() else ""


_ELSEWHERE = tuple(
    Case(f"a job on another cluster is {what}", partial(_cancelled_elsewhere, names))
    for what, names in (
        ("called otherwise", "innocent\n"),
        ("called almost the same", f"{NAME}0\n{NAME[:-1]}\n"),
        ("not known", ""),
        ("called so in part of a line", f"x {NAME} y\n"),
    )
)


def _called_again(squeue: str, folder: Path) -> str:
    sbatch = 'case "$*" in *--parsable*) echo "no parsable here" >&2; exit 1;; esac; echo "Submitted batch job 99"'
    _submitted(folder, sbatch=sbatch, squeue=squeue)
    calls = (folder / "calls").read_text().count("sbatch ")
    return f"sbatch was called {calls} times" if calls != 1 else ""


_AGAIN = tuple(
    Case(f"--parsable is refused while squeue {what}", partial(_called_again, squeue))
    for what, squeue in (("fails", "exit 1"), ("only complains", "echo 'slurm_load_jobs error' >&2"))
)

# ---------------------------------------------------------------- a job's text in an error stops its queue

_QUOTED = (
    "Socket timed out", "Unable to contact slurm controller", "Connection refused", "munge", "No space left on device",
    "QOSMaxSubmitJobPerUserLimit", "try again later", "Resource temporarily unavailable",
)  # fmt: skip
_ERRORS = {
    "an open quote": "sbatch: fatal: /r/job.sbatch: line 12: Unmatched `'` in [--comment='{text}]",
    "an unknown directive": "sbatch: error: Invalid directive found in batch script: {text}",
    "an unknown partition": f"sbatch: error: invalid partition: {{text}}\n{FAILED}Invalid partition name specified",
}


def _stops_queue(stderr: str, _: Path) -> str:
    """A queue waits only where nothing came back, or for a limit."""
    answer = parse_sbatch(1, "", stderr)
    stops = isinstance(answer, LimitReached) or (
        isinstance(answer, OutcomeUnknown) and answer.doubt is UnclearAnswer.NO_ANSWER
    )
    return f"the queue stops: {answer}" if stops else ""


_IN_ERRORS = tuple(
    Case(f"{what} quotes {text!r}", partial(_stops_queue, words.replace("{text}", text)))
    for what, words in _ERRORS.items()
    for text in _QUOTED
)
_UNKNOWN_WORDS = tuple(
    Case(f"unknown words: {words[-40:]!r}", partial(_stops_queue, words))
    for words in (
        "ERROR: your project has no hours left; ask the help desk",
        "sbatch: error: contain a NULL character '\\0'.",
        f"{FAILED}Requested GRES option unsupported by configured SelectType plugin",
        f"{FAILED}User not found on host",
        f"{FAILED}Circular job dependency",
        f"{FAILED}Unspecified error",
        "Traceback (most recent call last):\nKeyError: 'account'",
        "\ufeffNein\u2028nein",
        "",
    )
)

# ---------------------------------------------------------------- what a task shows


def _unfit_to_show(text: str, _: Path) -> str:
    answer = parse_sbatch(1, "", text)
    message = "" if isinstance(answer, Accepted) else answer.message
    bad = sorted({character for character in message if not (character.isprintable() or character == "\u2028")})
    return f"{bad} in the message" if bad else f"{len(message)} characters" if len(message) > 1000 else ""


_SHOWN = tuple(
    Case(f"an error holds {what}", partial(_unfit_to_show, text))
    for what, text in (
        ("colours", "\x1b[1;31mno\x1b[0m"),
        ("a terminal's title", "\x1b]2;owned\x07no"),
        ("a link", "\x1b]8;;http://evil\x1b\\no\x1b]8;;\x1b\\"),
        ("half an escape", "no \x1b["),
        ("a null character", "no\0no"),
        ("a bell", "no\x07\x08"),
        ("many lines", "no\n" * 10_000),
        ("a long line", "no " * 1_000_000),
        ("8-bit controls", "no\x9b31m\x85"),
        ("lines of DOS", "no\r\nno\r"),
    )
)

# ---------------------------------------------------------------- read along while sbatch runs


def _read_along(pieces: Sequence[bytes], _: Path) -> str:
    output = SbatchOutput(parsable=True)
    for piece in pieces:
        output.feed(piece)
    output.close()
    return f"jobs {output.named}" if FOREIGN in output.named else ""


_PIECES = tuple(
    Case(f"output that comes {what}", partial(_read_along, pieces))
    for what, pieces in (
        ("with a long line that ends in a number", [b"x" * 65536] * 64 + [b"\r", b"99\n"]),
        ("as a line of megabytes of digits", [b"9" * 65536] * 64),
        ("with a number in the middle of a word", [b"job-", b"99", b"-x\n"]),
        ("in bytes that are not text", [b"\xff\xfe", b"99\xff\n"]),
    )
)

# ---------------------------------------------------------------- a job of another, by its name

PLAN = TrackingPlan(task="a" * 32, since=NOW, job_name="train.sh")


@dataclass
class _Listed:
    """Scheduler that only answers what identifies jobs."""

    live: Sequence[LiveJob] = ()

    def live_jobs(self) -> Sequence[LiveJob]:
        return self.live

    def find(self, job_name: str, since: datetime) -> JobId | None:
        found = [job.id for job in self.live if job.name == job_name and job.submitted and job.submitted >= since]
        return found[-1] if found else None

    def records(self, jobs: Mapping[JobId, datetime]) -> Mapping[JobId, JobRecord]:
        known = {job.id: job for job in self.live if job.id in jobs}
        return {
            id: JobRecord(id, job.state, job.raw_state, name=job.name, submitted=job.submitted)
            for id, job in known.items()
        }


def _job(number: str, name: str, seconds: float) -> LiveJob:
    return LiveJob(JobId(number), name, JobState.PENDING, "PENDING", submitted=NOW + timedelta(seconds=seconds))


def _job_search(live: Sequence[LiveJob], folder: Path) -> tuple[JobSearch, TrackedDirectory]:
    """Another task has job 98."""
    folders = TrackedRoot(folder)
    folders.of(TaskId("b" * 32)).create(PLAN).write_job(TrackedJobRecord(id="98", known=True))
    own = folders.of(TaskId("a" * 32)).create(PLAN)
    return JobSearch(_Listed(live), folders), own  # type: ignore[arg-type]


def _found_by_name(live: Sequence[LiveJob], folder: Path) -> str:
    identifier, own = _job_search(live, folder)
    try:
        found = identifier.by_name(own, PLAN, NOW + timedelta(seconds=1), exists=False)
    except AmbiguousJobError:
        return ""
    return f"job {found} was taken for the submitted one" if found else ""


def _confirmed(live: Sequence[LiveJob], folder: Path) -> str:
    identifier, own = _job_search(live, folder)
    try:
        found = identifier.among([job.id for job in live], own, PLAN)
    except AmbiguousJobError:
        return ""
    return f"job {found} was taken for the submitted one" if found else ""


_OTHERS = {
    "has another name": [_job(FOREIGN, "innocent", 0)],
    "has a name that begins so": [_job(FOREIGN, "train.sh.old", 0)],
    "has the beginning of the name": [_job(FOREIGN, "train", 0)],
    "has no name": [_job(FOREIGN, "", 0)],
    "has the name in capitals": [_job(FOREIGN, "TRAIN.SH", 0)],
    "has the name and is of last week": [_job(FOREIGN, "train.sh", -7 * 86400)],
    "has the name, as has another": [_job(FOREIGN, "train.sh", 0), _job("97", "train.sh", 0)],
    "is another task's": [_job("98", "train.sh", 0)],
}
_OTHER_TIMES = {
    "is of half a minute before": [_job(FOREIGN, "train.sh", -30)],
    "was submitted again by hand": [_job(FOREIGN, "train.sh", 20)],
}
_FOUND = (
    *(
        Case(f"looked for by name, a job {what}", partial(_found_by_name, live))
        for what, live in (_OTHERS | _OTHER_TIMES).items()
    ),
    *(Case(f"named by sbatch, a job {what}", partial(_confirmed, live)) for what, live in _OTHERS.items()),
)


def _confused(seen: str, given: str, _: Path) -> str:
    plan = TrackingPlan(task="a" * 32, since=NOW, job_name=given)
    return f"{seen[:40]!r} passes for {given[:40]!r}" if plan.expected().carries_name(seen, NOW) else ""


_NAMES = tuple(
    Case(f"a name for another: {what}", partial(_confused, seen, given))
    for what, seen, given in (
        ("both empty", "", ""),
        ("blanks for nothing", "  ", ""),
        ("a pattern", ".*", "train.sh"),
        ("a cut name that is not long", "a" * 50, "a" * 51),
        ("a long name that differs at its end", "a" * 199 + "b", "a" * 300),
        ("another in front of a line break", "evil\ntrain.sh", "train.sh"),
        ("one that goes on behind a line break", "train.sh\nevil", "train.sh"),
        ("letters that look alike", "tr\u0430in.sh", "train.sh"),
    )
)

CASES: tuple[Case, ...] = (
    *_NEAR, *_UNANSWERED, *_WRAPPED, *_ELSEWHERE, *_AGAIN, *_IN_ERRORS, *_UNKNOWN_WORDS, *_SHOWN, *_PIECES, *_FOUND,
    *_NAMES,
)  # fmt: skip
