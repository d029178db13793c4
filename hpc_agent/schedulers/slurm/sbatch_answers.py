"""Answers of sbatch, classified: accepted, refused, limit reached, or outcome unknown.

Sites wrap sbatch: greetings, notes and numbers of their own are printed before and after its answer. A job's id is read
only from what sbatch itself prints; where that is not clear, the job is looked up by its name.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from hpc_agent.domain.ids import JobId
from hpc_agent.domain.job import Accepted, LimitReached, OutcomeUnknown, Refused, SubmitResult, UnclearAnswer

_SENTENCE = re.compile(r"(?:sbatch: )?Submitted batch job (?P<job>[1-9][0-9]{0,9})(?: on cluster (?P<cluster>\S+))?")
_PARSABLE = re.compile(r"(?P<job>[1-9][0-9]{0,9})(?:;(?P<cluster>[^\s;]+))?")
_TERMINAL = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)|[@-Z\\^_])")
"""Colours, titles and links that are meant for a terminal."""
_CONTROL = re.compile(r"[\x00-\x08\x0e-\x1f\x7f-\x9f]")

_NO_ANSWER = re.compile(
    # The request may have arrived: sbatch says these also of jobs that the controller did queue.
    r"Socket timed out|Zero Bytes were transmitted|Unable to contact slurm controller|Message (send|receive) failure"
    r"|Communication (connection|shutdown) failure|Transport endpoint|Connection (refused|reset|timed out)|Broken pipe"
    r"|Unexpected message received|Protocol authentication error|Header lengths are longer|Insane message length"
    r"|Received (zero length message|message length < 0)|Failed to send entire message|Incompatible versions",
    re.IGNORECASE,
)
_SITE_TROUBLE = re.compile(
    # The site, not the task, has a fault: the same submission succeeds when it is fixed. Only in lines of
    # sbatch itself: a greeting may hold such text.
    r"I/O error writing script|Slurm internal error|Memory management error|Cannot allocate memory"
    r"|Too many open files|No space left on device|Disk quota exceeded|Input/output error|No route to host"
    r"|Network is unreachable|Can't find an address|unable to resolve|Could not establish a configuration source"
    r"|munge|authentication (agent|public key|credential)|credential invalid|generating job credential",
    re.IGNORECASE,
)
_LATER = re.compile(
    r"\b(QOS|Assoc)\w*Submit\w*Limit\b"
    # Without the name of a limit this may be the number of jobs as well as the size of this one.
    r"|Job violates accounting/QOS policy"
    r"|Resource temporarily unavailable|Unable to create job record, try again|Requested nodes are busy"
    r"|temporarily unable to accept job|job queue full|creation temporarily disabled|try again (later|in a bit)"
    r"|not available now|System submissions disabled|Partition in DOWN state|Reservation not usable now"
    r"|Required (node|partition) not available|Slurm backup controller in standby mode|presently disabled"
    r"|breached requested QOS usage threshold",
    re.IGNORECASE,
)
_LIMIT_OF_THIS_JOB = re.compile(r"\b(QOS|Assoc)(?!\w*Submit)(Max|Min|Grp)\w+")
_REFUSED = re.compile(
    r"Invalid \S+.* specif|Invalid (account|partition|qos|job array|user id|group id|time|--\S+)|not permitted"
    r"|Requested node configuration is not available|Requested nodes not in this partition|Access/permission denied"
    r"|Requested time limit is invalid|Time limit specification required|Job size specification needs|too long"
    r"|More processors requested than permitted|(Node|CPU|Task) count specification invalid|dependency problem"
    r"|Memory required by task is not available|Memory specification can not be satisfied"
    r"|No partition specified|Access denied to requested reservation|Requested reservation is invalid"
    r"|Requested more tasks than available|not supported on this system|Burst Buffer|Job script not specified"
    # sbatch's own objections, before it talks to the controller.
    r"|unrecognized option|invalid option|requires an argument|invalid numeric value|Invalid directive"
    r"|Unable to open file|Batch script is empty|does not look like a batch script|DOS line breaks|sbatch --help",
    re.IGNORECASE,
)
_OBJECTION = re.compile(r"^(?:\S+: line [0-9]+: Unmatched|Invalid directive found|contain a NULL character)")
"""Lines about the script alone. The rest of such a line is the script's own text, which may hold any other words."""
_VERDICT = "Batch job submission failed: "
"""Begins the line with which sbatch ends; what follows is Slurm's, without text of the job."""
_SITE_POLICY = "Unspecified error"
"""The verdict where a site's job_submit plugin said no, after the plugin's own words."""
_REFUSES_PARSABLE = re.compile(r"(?<![\w/.])(?:--)?parsable\b(?!/)", re.IGNORECASE)
_ENDED_BY_OTHERS = 124
"""From here on an exit code is a time limit's, the shell's, or means a signal."""


def named_jobs(stdout: str, *, parsable: bool) -> tuple[Accepted, ...]:
    """The jobs that sbatch may have named, each once. Only one is an answer; several, such as a number in a site's
    greeting and that of ``--parsable``, are distinguished by the job's name and never by their order.

    ``parsable``: the option was given. Without it a number on a line of its own is not sbatch's.
    """
    found: dict[str, str] = {}
    for line in re.split(r"[\r\n]+", _TERMINAL.sub("", stdout)):
        text = line.strip()
        match = _SENTENCE.fullmatch(text) or (_PARSABLE.fullmatch(text) if parsable else None)
        if match:
            found[match["job"]] = match["cluster"] or found.get(match["job"], "")
    return tuple(Accepted(JobId(job), cluster) for job, cluster in found.items())


def parse_sbatch(returncode: int, stdout: str, stderr: str, *, parsable: bool = True) -> SubmitResult:
    """Classify sbatch's answer. With exit code 0 text on stderr is not a failure: it may have retried inside."""
    named = named_jobs(stdout, parsable=parsable)
    lines = _lines(stderr) or _lines(stdout)
    if returncode == 0:
        if len(named) == 1:
            return named[0]
        what = f"{len(named)} numbers that may be its job" if named else "no job id"
        return OutcomeUnknown(
            f"sbatch ended with exit code 0 but printed {what}: {_joined(lines)}", UnclearAnswer.NO_JOB_ID
        )
    if not lines:
        doubt = UnclearAnswer.UNKNOWN_ERROR if 0 < returncode < _ENDED_BY_OTHERS else UnclearAnswer.NO_ANSWER
        return OutcomeUnknown(f"sbatch ended with exit code {returncode} and printed nothing", doubt)
    answer = _failure(lines, _lines(stderr, only_own=True))
    if named and not isinstance(answer, OutcomeUnknown):
        return OutcomeUnknown(
            answer.message, UnclearAnswer.UNKNOWN_ERROR
        )  # a wrapper may have failed after sbatch did its work
    return answer


def _failure(lines: Sequence[str], own: Sequence[str]) -> Refused | LimitReached | OutcomeUnknown:
    """Lines may quote the job's own text, so the verdict is heard before them. ``own``: sbatch's, without those of a
    site's wrapper, whose greeting may hold any words."""
    message, heard = _joined(lines), _joined(own or lines)
    verdict = next((line.removeprefix(_VERDICT)[:1000] for line in reversed(lines) if line.startswith(_VERDICT)), "")
    if any(_OBJECTION.search(line) for line in lines):
        return Refused(message)
    if _NO_ANSWER.search(verdict or heard) or _SITE_TROUBLE.search(verdict or _joined(own)):
        return OutcomeUnknown(message)
    if _REFUSED.search(verdict):
        return Refused(message)
    if _LATER.search(heard) and not _LIMIT_OF_THIS_JOB.search(heard):
        return LimitReached(message)
    says_site = verdict == _SITE_POLICY and len(own or lines) > 1
    if says_site or _REFUSED.search(heard) or _LIMIT_OF_THIS_JOB.search(heard):
        return Refused(message)
    return OutcomeUnknown(message, UnclearAnswer.UNKNOWN_ERROR)


def refuses_parsable(answer: SubmitResult) -> bool:
    """Whether sbatch, or a site's wrapper of it, objects to ``--parsable`` in whatever words."""
    if not isinstance(answer, (Refused, OutcomeUnknown)):
        return False
    failed = isinstance(answer, Refused) or answer.doubt is UnclearAnswer.UNKNOWN_ERROR
    return failed and bool(_REFUSES_PARSABLE.search(answer.message))


def _lines(text: str, *, only_own: bool = False) -> list[str]:
    """What was said, without the prefix of each line, without blank ones and without what is meant for a terminal;
    with ``only_own`` the lines that have sbatch's prefix."""
    plain = _TERMINAL.sub("", text)
    lines = (_CONTROL.sub(" ", line).strip() for line in re.split(r"[\r\n]+", plain))
    if only_own:
        lines = (line for line in lines if line.startswith("sbatch: "))
    return [said for line in lines if (said := re.sub(r"^sbatch: (error: |fatal: |warning: )?", "", line).strip())]


def _joined(lines: Sequence[str]) -> str:
    return "; ".join(lines)[:1000]
