"""Job names, greetings and half answers in what squeue and sacct print: no job is forged, hidden or changed by them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from attacks.case import Case
from hpc_agent.domain.ids import JobId
from hpc_agent.domain.job import JobState, LiveJob
from hpc_agent.schedulers.records import newest
from hpc_agent.schedulers.slurm import answers
from hpc_agent.schedulers.slurm.delimited_table import new_delimiter

DOOR = "Slurm's answers"

_AT = "1795176007"
_QUEUE_HEADER = ("JOBID", "STATE", "RESTARTS", *("SUBMIT_TIME", "START_TIME", "END_TIME"), *("EXIT_CODE", "NODELIST"))
_VICTIM, _ATTACKER, _OTHER = "1001", "1002", "1003"
_VICTIMS_NAME = "clearml_task_0123456789abcdef0123456789abcdef_deadbeef"


def _queue_cells(job: str, name: str = "name", reason: str = "None") -> tuple[str, ...]:
    return (job, "RUNNING", "0", _AT, _AT, _AT, "0:0", "n1", reason, name)


def _record_cells(job: str, name: str = "name", state: str = "RUNNING") -> tuple[str, ...]:
    return (job, job, state, "0:0", _AT, _AT, _AT, "01:00:00", "n1", "None", name)


def _forged(cells: Sequence[str], separator: str) -> str:
    return "x\n" + separator.join(cells) + separator + "\nx"


_OLD_ROW = "1001".ljust(32) + "COMPLETED".ljust(24) + "0".ljust(8) + _AT.ljust(24) * 3 + "0".ljust(12) + "n1".ljust(128)

TEXTS = {
    "line break": "a\nb",
    "only line breaks": "\n\n\n",
    "carriage return and line break": "a\r\nb",
    "carriage return": "a\rb",
    "line separator": "a\u2028b",
    "paragraph separator": "a\u2029b",
    "next line": "a\x85b",
    "form feed": "a\fb",
    "vertical tab": "a\vb",
    "file, group and record separators": "a\x1cb\x1dc\x1ed",
    "unit separator": "a\x1fb",
    "bell, backspace, escape": "a\x07\x08\x1b[2Jb",
    "undecodable bytes": "a\ufffd\ufffdb",
    "pipes": "|1001|COMPLETED|",
    "nothing": "",
    "spaces": "   ",
    "a job id": "1001",
    "a job id on a line of its own": "a\n1001",
    "another job id on a line of its own": "a\n4711\n",
    "a row of fixed width": f"x\n{_OLD_ROW}x",
    "a row with pipes": _forged(_record_cells(_VICTIM, state="COMPLETED"), "|"),
    "a row with another delimiter": _forged(_queue_cells(_VICTIM), new_delimiter()),
    "a record with another delimiter": _forged(_record_cells(_VICTIM, state="FAILED"), new_delimiter()),
    "a row with the delimiter of tests": _forged(_queue_cells(_VICTIM), "|captured|"),
    "a header": "x\n" + "|".join(_QUEUE_HEADER) + "|\n",
    "no jobs": "x\nslurm_load_jobs error: Invalid job id specified\n",
    "an error of sacct": "x\nSlurm accounting storage is disabled\n",
    "the name of another's job": _VICTIMS_NAME,
    "the name of another's job on a line of its own": f"x\n{_VICTIMS_NAME}",
    "10,000 line breaks": "\n" * 10_000,
    "100,000 digits": "9" * 100_000,
    "a number beyond all clocks": "9" * 300,
}
"""What an owner of a job can call it, or a wrapper print."""


def _printed(rows: Sequence[Sequence[str]], delimiter: str, between: str = "") -> str:
    return between + between.join("".join(f"{cell}{delimiter}" for cell in row) + "\n" for row in rows) + between


def _header(columns: int) -> tuple[str, ...]:
    return ("JobID", *(f"COLUMN{number}" for number in range(1, columns)))


def _expected(text: str = "") -> list[tuple[str, str]]:
    return [(_VICTIM, _VICTIMS_NAME), (_ATTACKER, text.strip()), (_OTHER, "name")]


def _live(name: str = "name", between: str = "", reason: str = "None") -> tuple[list[LiveJob], int]:
    delimiter = new_delimiter()
    rows = [_queue_cells(_VICTIM, _VICTIMS_NAME), _queue_cells(_ATTACKER, name, reason), _queue_cells(_OTHER)]
    answer = answers.parse_squeue(_printed([_header(10), *rows], delimiter, between), delimiter)
    return [answers.live_job(row) for row in answer.rows], answer.unreadable


def _name_in_squeue(text: str, folder: Path) -> str:
    jobs, unreadable = _live(name=text)
    return _wrong([(job.id, job.name) for job in jobs], _expected(text), [job.state for job in jobs], unreadable)


def _reason_in_squeue(text: str, folder: Path) -> str:
    """A reason with a line break may cost its row, never another one."""
    jobs, unreadable = _live(reason=text)
    seen = {job.id: job for job in jobs}
    hidden = {_VICTIM, _OTHER} - seen.keys()
    if hidden or seen.keys() - {_VICTIM, _ATTACKER, _OTHER}:
        return f"jobs seen: {sorted(seen)}"
    if _ATTACKER not in seen and not unreadable:
        return "a job was passed over in silence"
    changed = [job.id for job in jobs if job.state is not JobState.RUNNING or job.nodes != "n1"]
    return f"changed: {changed}" if changed else ""


def _greeting_in_squeue(text: str, folder: Path) -> str:
    jobs, _ = _live(name="name", between=f"{text}\n")
    found = [(job.id, job.name) for job in jobs]
    return _wrong(found, _expected("name"), [job.state for job in jobs])


def _records(name: str = "name", between: str = "") -> tuple[answers.AccountingAnswer, str]:
    delimiter = new_delimiter()
    rows = [_record_cells(_VICTIM, _VICTIMS_NAME), _record_cells(_ATTACKER, name), _record_cells(_OTHER)]
    answer = answers.parse_sacct(_printed([_header(11), *rows], delimiter, between), delimiter)
    states = [record.state for _, record in answer.records]
    found = [(str(job), record.name) for job, record in answer.records]
    return answer, _wrong(found, _expected(name), states)


def _name_in_sacct(text: str, folder: Path) -> str:
    answer, wrong = _records(name=text)
    return wrong or (f"{answer.unreadable} rows cannot be read" if answer.unreadable else "")


def _greeting_in_sacct(text: str, folder: Path) -> str:
    return _records(between=f"{text}\n")[1]


def _reason_of_own_job(text: str, folder: Path) -> str:
    """A job does not learn that it ran out of time, or that it is requeued, from text that another user wrote."""
    delimiter = new_delimiter()
    row = (_ATTACKER, "RUNNING", "0", "0:01", "1:00:00", "N/A", text)
    job = answers.parse_own_job(_printed([_header(7), row], delimiter), delimiter)
    right = (job.state, job.restarts, job.left, job.preempted) == (JobState.RUNNING, 0, 3599, False)
    return "" if right else f"the job learns {job}"


def _wrong(
    found: Sequence[tuple[str, str]],
    expected: Sequence[tuple[str, str]],
    states: Sequence[JobState],
    unreadable: int = 0,
) -> str:
    if list(found) != list(expected):
        return f"jobs seen: {str(found)[:200]}"
    if any(state is not JobState.RUNNING for state in states):
        return f"states seen: {states}"
    return f"{unreadable} rows cannot be read" if unreadable else ""


def _cut_off(parts: int, part: int, folder: Path) -> str:
    """Half an answer never says that the jobs of the other half are gone."""
    delimiter = new_delimiter()
    rows = [_queue_cells(_VICTIM, _VICTIMS_NAME), _queue_cells(_ATTACKER), _queue_cells(_OTHER)]
    whole = _printed([_header(10), *rows], delimiter)
    text = whole[: len(whole) * part // parts]
    try:
        answer = answers.parse_squeue(text, delimiter)
    except ValueError:
        return ""
    missing = {_VICTIM, _ATTACKER, _OTHER} - {row.id for row in answer.rows}
    at_a_rows_end = text.endswith((delimiter, "\n"))
    return f"gone in silence: {missing}" if missing and not answer.unreadable and not at_a_rows_end else ""


def _not_a_table(text: str, folder: Path) -> str:
    """In place of a table: no information, so that no job counts as gone."""
    delimiter = new_delimiter()
    parsers: dict[str, Callable[[str, str], object]] = {"squeue": answers.parse_squeue, "sacct": answers.parse_sacct}
    taken = [name for name, parse in parsers.items() if _is_taken(parse, text, delimiter)]
    return f"taken for an answer of {', '.join(taken)}" if taken else ""


def _is_taken(parse: Callable[[str, str], object], text: str, delimiter: str) -> bool:
    try:
        parse(text, delimiter)
    except ValueError:
        return False
    return True


def _newest_is_not_forged(text: str, folder: Path) -> str:
    """A record under another's name does not decide about the job that is asked after."""
    answer, _ = _records(name=text)
    at = answers.time(_AT)
    assert at is not None
    found = newest(answer.records, {JobId(_VICTIM): at})
    right = list(found) == [_VICTIM] and found[JobId(_VICTIM)].state is JobState.RUNNING
    return "" if right else f"records: {found}"


_PLACES: dict[str, Callable[[str, Path], str]] = {
    "as a job's name in squeue": _name_in_squeue,
    "as a job's name in sacct": _name_in_sacct,
    "as a reason in squeue": _reason_in_squeue,
    "as the reason of the job that asks": _reason_of_own_job,
    "as a greeting between rows of squeue": _greeting_in_squeue,
    "as a greeting between rows of sacct": _greeting_in_sacct,
    "in place of a table": _not_a_table,
    "next to a record that is asked for": _newest_is_not_forged,
}
_PARTS = 24
CASES = (
    *(
        Case(f"{name} {place}", partial(attempt, text))
        for place, attempt in _PLACES.items()
        for name, text in TEXTS.items()
    ),
    *(Case(f"{part} of {_PARTS} parts of squeue's answer", partial(_cut_off, _PARTS, part)) for part in range(_PARTS)),
)
