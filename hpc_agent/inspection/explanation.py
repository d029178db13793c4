"""Explanation of a task: in one paragraph why it waits or how it ended, with the evidence and the next step. Pure."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Sequence
from datetime import datetime

import msgspec

from hpc_agent.domain.duration import format_duration
from hpc_agent.domain.failure_cause import failure_cause
from hpc_agent.domain.failure_table import FailureCause
from hpc_agent.domain.ids import TaskId
from hpc_agent.domain.job import ExitEvidence, JobRecord
from hpc_agent.domain.outcome import SCRIPT_ADVICE, TASK_ADVICE, Advice, classify_exit
from hpc_agent.domain.printed_errors import printed_errors
from hpc_agent.domain.status import TaskStatus
from hpc_agent.domain.wait_reason import SCRIPT_TERMS, SOONER, TASK_TERMS, explain_wait
from hpc_agent.inspection.task_facts import TaskFacts
from hpc_agent.inspection.task_row import COMPLETING, PENDING, REQUEUED, RUNNING, SUSPENDED, count_states, state_of
from hpc_agent.schedulers.inspector import ListedJob

_LAST_LINES = 10
_ESCAPES = re.compile(r"\x1b(?:\[[0-9;?]*[A-Za-z]|\][^\x07]*\x07)")
_SHORT_ID = 8


class Evidence(msgspec.Struct, frozen=True):
    """One thing that was observed, and by whom it was said."""

    source: str
    text: str


class Explanation(msgspec.Struct, frozen=True):
    task: TaskId
    name: str
    verdict: str
    """``waiting``, ``running``, ``failed``, …: one word, stable for programs that read it."""
    sentence: str
    next_step: str
    evidence: tuple[Evidence, ...] = ()
    last_lines: tuple[str, ...] = ()

    def as_json(self) -> dict[str, object]:
        return {
            "task": self.task,
            "name": self.name,
            "verdict": self.verdict,
            "sentence": self.sentence,
            "next_step": self.next_step,
            "evidence": [{"source": found.source, "text": found.text} for found in self.evidence],
            "last_lines": list(self.last_lines),
        }


class _Verdict(msgspec.Struct, frozen=True):
    word: str
    sentence: str
    next_step: str = ""


def explain(facts: TaskFacts) -> Explanation:
    verdict = _verdict(facts)
    shows_lines = verdict.word in ("failed", "stopped", "running", "missing") and not facts.is_rejected
    return Explanation(
        facts.task.id,
        facts.task.name,
        verdict.word,
        verdict.sentence,
        verdict.next_step,
        tuple(_evidence(facts, verdict.sentence)),
        last_lines(facts.console) if shows_lines else (),
    )


def _verdict(facts: TaskFacts) -> _Verdict:
    status = facts.task.status
    if status.is_final:
        return _ended(facts)
    if facts.jobs:
        waits = all(state_of(listed.job) in (PENDING, REQUEUED) for listed in facts.jobs)
        return _waiting_in_scheduler(facts) if waits else _running(facts)
    if facts.job_is_missing:
        return _missing(facts)
    if facts.place is not None:
        return _waiting_in_queue(facts)
    if facts.run is not None and not facts.run.files.settled:
        return _missing(facts)
    if facts.tracked is not None:
        return _missing(facts)
    return _not_ours(facts)


# ---------------------------------------------------------------- it waits


def _waiting_in_scheduler(facts: TaskFacts) -> _Verdict:
    job = facts.jobs[0].job
    wait = explain_wait(job, SCRIPT_TERMS if facts.is_script else TASK_TERMS)
    text = wait.text
    _, sooner, partition = facts.task.status_message.partition(SOONER)
    text += sooner + partition
    if len(facts.jobs) > 1:
        text = f"{text}; of its elements {count_states(facts.jobs)}"
    if wait.stuck:
        step = "it goes on only after a change: do what the reason names, or take it off with " + _command(
            facts, "cancel"
        )
    elif sooner:
        step = "wait, or do that"
    elif job.expected_start is None:
        step = "wait: the scheduler has not computed a start for it yet" + _preview(facts)
    else:
        step = "wait; with a shorter time limit or less of what is scarce it may fit into a gap" + _preview(facts)
    return _Verdict("waiting", text, step)


def _preview(facts: TaskFacts) -> str:
    """How to see when it would start; nothing for a script, which is not ours to render."""
    if facts.is_script:
        return ""
    return f"; `hpc-agent render --id {facts.task.id[:_SHORT_ID]} --check` tells when it would start as it is now"


def _waiting_in_queue(facts: TaskFacts) -> _Verdict:
    place = facts.place
    assert place is not None
    where = f'it is number {place.number} of {place.length} in the queue "{place.queue}" and has no job yet'
    message = facts.task.status_message.strip()
    said = f"; the daemon says: {message}" if message and place.served else ""
    if not place.served:
        start = f"hpc-agent daemon --queue {shlex.quote(place.queue)} --detached"
        return _Verdict(
            "waiting",
            f"{where}, and no daemon that shares your hpc.root was started for this queue",
            f"start one with `{start}`, unless another machine serves it",
        )
    step = "wait for the daemon's next pass; `hpc-agent daemon --status` tells where its log is"
    return _Verdict("waiting", f"{where}{said}", step)


# ---------------------------------------------------------------- it runs, or seems to


def _running(facts: TaskFacts) -> _Verdict:
    shown = next((listed for listed in facts.jobs if state_of(listed.job) not in (PENDING, REQUEUED)), facts.jobs[0])
    job, state = shown.job, state_of(shown.job)
    words = {COMPLETING: "is ending", SUSPENDED: "is suspended", RUNNING: "runs"}.get(state, f"is {state}")
    on = f" on {job.nodes}" if job.nodes else ""
    text = f"{job.title} {words}{on}{_used(shown)}"
    if len(facts.jobs) > 1:
        text = f"{text}; of its elements {count_states(facts.jobs)}"
    if facts.task.status is TaskStatus.QUEUED:
        text += ", and its agent has not taken the task off its queue yet"
    return _Verdict(
        "running", text, f"follow it with {_command(facts, 'logs -f')}, end it with {_command(facts, 'cancel')}"
    )


def _used(listed: ListedJob) -> str:
    if listed.used_seconds is None:
        return ""
    of = f" of {format_duration(listed.limit_seconds)}" if listed.limit_seconds else ""
    return f" for {format_duration(listed.used_seconds)}{of}"


def _missing(facts: TaskFacts) -> _Verdict:
    """Between a job's end and its verdict."""
    who = "`hpc-agent follow`" if facts.is_script else "the daemon"
    if facts.record is not None:
        outcome = classify_exit(facts.record, facts.evidence, _advice(facts))
        return _Verdict("missing", f"{outcome.reason}; {who} has not set the task's status yet", f"see that {who} runs")
    if facts.scheduler_is_silent:
        return _Verdict(
            "missing", f"the scheduler does not answer now: nothing is known of job {facts.job}", "try again"
        )
    files = facts.run.files if facts.run else None
    if files is not None and files.submission is not None and files.submission.submitted.is_unclear:
        said = files.submission.message or "it was about to be submitted"
        return _Verdict("missing", f"it is not known whether there is a job of it: {said}", f"wait: {who} looks it up")
    if files is not None and files.submission is None and files.claim is None:
        message = facts.task.status_message.strip() or "code and environment are being made ready"
        return _Verdict("waiting", f"it has no job yet: {message}", f"wait; if nothing moves, see that {who} runs")
    if files is not None and files.claim is not None and not files.claim.job:
        return _Verdict("running", f"an agent runs it without a job, on {files.claim.host}", _follow(facts))
    text = f"the scheduler lists job {facts.job} no more, and nothing tells yet how it ended"
    return _Verdict("missing", text, f"wait some minutes: {who} asks accounting; if nothing moves, see that it runs")


def _not_ours(facts: TaskFacts) -> _Verdict:
    status = facts.task.status
    id = facts.task.id[:_SHORT_ID]
    if status is TaskStatus.CREATED:
        return _Verdict("draft", "it was created and is in no queue", "enqueue it, for instance on its page")
    if status is TaskStatus.QUEUED:
        return _Verdict("waiting", "its status is queued, but no queue holds it", "reset it and enqueue it again")
    if status is TaskStatus.IN_PROGRESS:
        text = "it runs, but not in a job of yours that is known here: an agent or a person elsewhere started it"
        return _Verdict("running", text, f"read its console with `hpc-agent logs {id}`")
    return _Verdict(status.value, f"the server gives its status as {status.value}", "look at its page")


# ---------------------------------------------------------------- it has ended


def _ended(facts: TaskFacts) -> _Verdict:
    task, advice = facts.task, _advice(facts)
    reason = " ".join((task.status_reason or task.status_message).split())
    if task.status in (TaskStatus.COMPLETED, TaskStatus.PUBLISHED, TaskStatus.CLOSED, TaskStatus.PUBLISHING):
        return _Verdict(task.status.value, reason or "it ended well")
    if not reason and facts.record is not None:
        reason = classify_exit(facts.record, facts.evidence, advice).reason
    if task.status is TaskStatus.STOPPED:
        step = _known_step(reason, facts)
        said = reason.replace(f"; {step}", "", 1)
        return _Verdict("stopped", said or "its user stopped it, and gave no reason", step)
    if facts.is_rejected:
        id = task.id[:_SHORT_ID]
        step = f"change that and enqueue it again; `hpc-agent render --id {id}` shows what it asks for"
        return _Verdict("failed", reason or "the daemon took it off its queue and gave no reason", step)
    cause = cause_of(facts)
    if cause is not None and cause.sentence not in reason and not _says_cause(reason):
        reason = f"{reason or 'no reason was given'}; its console shows: {cause.sentence}"
    step = _known_step(reason, facts)
    if cause is not None and cause.advice and not _says_cause(reason):
        step = cause.advice
    # It is said below, once.
    return _Verdict("failed", reason.replace(f"; {step}", "", 1) or "no reason was given", step)


def _advice(facts: TaskFacts) -> Advice:
    return SCRIPT_ADVICE if facts.is_script else TASK_ADVICE


_OF_THE_JOB = re.compile(
    r"time limit|the job's time was up|out of memory[:;]|node \S+ failed|was preempted|was cancelled"
)


def _says_cause(reason: str) -> bool:
    """Whether the reason names what happened to the job, so that the console cannot know better."""
    return bool(_OF_THE_JOB.search(reason)) and "CUDA" not in reason


def _known_step(reason: str, facts: TaskFacts) -> str:
    """The step that a reason of ours ends with; else to read what it printed."""
    advice = _advice(facts)
    for step in (advice.time, advice.memory, advice.again):
        if step in reason:
            return step
    if facts.task.status is TaskStatus.STOPPED:
        return "reset it and enqueue it again if it is to run"
    return f"read what it printed: {_command(facts, 'logs')}"


def cause_of(facts: TaskFacts) -> FailureCause | None:
    """What the program died of, by its last lines and its exit code."""
    report = facts.run.files.report if facts.run else None
    code = 1
    if report is not None and report.exit_code:
        code = report.exit_code
    elif facts.record is not None:
        code = -facts.record.signal if facts.record.signal else facts.record.exit_code or 1
    return failure_cause(facts.console, code)


def _follow(facts: TaskFacts) -> str:
    return f"follow it with {_command(facts, 'logs -f')}"


def _command(facts: TaskFacts, words: str) -> str:
    return f"`hpc-agent {words} {facts.task.id[:_SHORT_ID]}`"


# ---------------------------------------------------------------- evidence


def _evidence(facts: TaskFacts, sentence: str) -> Iterator[Evidence]:
    for listed in facts.jobs[:3]:
        yield Evidence("scheduler", _listed_words(listed))
    if facts.record is not None:
        yield Evidence("accounting", record_words(facts.record, _exit_text(facts, facts.record)))
    if memory := _memory_words(facts.evidence):
        yield Evidence("memory", memory)
    if facts.task.status is TaskStatus.FAILED:
        errors = list(printed_errors(last_lines(facts.console, 400)))
        if errors:
            error = errors[-1]
            said = f"{error.name}: {error.message}" if error.message else error.name
            yield Evidence("exception", f"{said}{f' ({error.place})' if error.place else ''}"[:300])
    message = " ".join(facts.task.status_message.split())
    if message and message not in sentence and not facts.task.status.is_final:
        yield Evidence("message", message)
    if facts.run is not None:
        yield Evidence("run directory", str(facts.run.directory.path))
    if facts.page:
        yield Evidence("page", facts.page)
    for note in facts.notes:
        yield Evidence("note", note)


def _listed_words(listed: ListedJob) -> str:
    job = listed.job
    words = [f"job {job.id} {job.raw_state}"]
    words += [f"reason {job.reason}"] if job.reason else []
    words += [f"submitted {local(job.submitted)}"] if job.submitted else []
    words += [f"expected to start {local(job.expected_start)}"] if job.expected_start else []
    words += [f"on {job.nodes}"] if job.nodes else []
    words += [f"partition {listed.partition}"] if listed.partition else []
    words += [f"time limit {format_duration(listed.limit_seconds)}"] if listed.limit_seconds else []
    words += [f"restarted {job.restarts} times"] if job.restarts else []
    return ", ".join(words)


def _exit_text(facts: TaskFacts, record: JobRecord) -> str:
    """sacct takes 128 away from an exit code of 128 and more (seen on 22.05): 137, of SIGKILL, is 9 there."""
    report = facts.run.files.report if facts.run else None
    code = 0 if report is None else 128 - report.exit_code if report.exit_code < 0 else report.exit_code
    if code >= 128 and record.exit_code == code - 128 and not record.signal:
        return f"exit code {code}"
    return record.exit_text


def record_words(record: JobRecord, exit_text: str) -> str:
    """A record in one line."""
    words = [f"job {record.id} {record.raw_state}", exit_text]
    if record.started and record.ended:
        ran = format_duration((record.ended - record.started).total_seconds())
        of = f" of {format_duration(record.time_limit)}" if record.time_limit else ""
        words.append(f"ran {ran}{of}")
    words += [f"on {record.nodes}"] if record.nodes else []
    words += [f"ended {local(record.ended)}"] if record.ended else []
    words += [f"reason {record.reason}"] if record.reason else []
    return ", ".join(words)


def _memory_words(evidence: ExitEvidence) -> str:
    if not evidence.used_mb:
        return ""
    small = evidence.used_mb < 1024
    used = f"{evidence.used_mb:.0f} MiB" if small else f"{evidence.used_mb / 1024:.3g}"
    if evidence.limit_mb:
        return f"{used} of {evidence.limit_mb / 1024:.3g} GiB at most"
    return f"{used}{'' if small else ' GiB'} at most"


def local(moment: datetime) -> str:
    """In the reader's time zone."""
    return f"{moment.astimezone():%Y-%m-%d %H:%M:%S}"


def last_lines(console: str, count: int = _LAST_LINES) -> tuple[str, ...]:
    """The last lines that are not empty, each as it is after its last carriage return, without colours."""
    lines: Sequence[str] = [
        _ESCAPES.sub("", line.rstrip("\r").rpartition("\r")[2]).rstrip() for line in console.split("\n")
    ]
    return tuple([line for line in lines if line][-count:])
