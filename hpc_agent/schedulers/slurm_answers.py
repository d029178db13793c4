"""What sbatch's answer means: accepted, refused, later, or uncertain (slurm.md section 2)."""

from __future__ import annotations

import re

from hpc_agent.domain.ids import JobId
from hpc_agent.domain.job import Accepted, Later, Refused, Submission, Uncertain

_ID = re.compile(r"^(?P<job>\d+)(;(?P<cluster>\S+))?$", re.MULTILINE)

_UNCERTAIN = re.compile(
    # The request may have arrived: sbatch says these also of jobs that the controller did queue.
    r"Socket timed out|Zero Bytes were transmitted|Unable to contact slurm controller|Message (send|receive) failure"
    r"|Communication (connection|shutdown) failure|Transport endpoint|Connection (refused|reset|timed out)|Broken pipe"
    r"|Unexpected message received|Protocol authentication error|Header lengths are longer"
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
    # sbatch's own objections, before it talks to anybody.
    r"|unrecognized option|invalid option|requires an argument|invalid numeric value|Invalid directive"
    r"|Unable to open file|Batch script is empty|does not look like a batch script|DOS line breaks|sbatch --help",
    re.IGNORECASE,
)
_SITE_POLICY = "Batch job submission failed: Unspecified error"
"""How sbatch ends when a site's job_submit plugin said no, after the plugin's own words."""


def parse_sbatch(returncode: int, stdout: str, stderr: str) -> Submission:
    """Classify sbatch's answer. With exit code 0 words on stderr are no failure: it may have retried inside."""
    if returncode == 0:
        # Some sites wrap sbatch and print more: the last matching line is the id.
        ids = list(_ID.finditer(stdout))
        if not ids:
            return Uncertain(f"sbatch ended with exit code 0 but printed no job id: {_words(stdout, stderr)}")
        return Accepted(JobId(ids[-1]["job"]), ids[-1]["cluster"] or "")
    words = _words(stdout, stderr)
    if not words or _UNCERTAIN.search(words):
        return Uncertain(words or f"sbatch ended with exit code {returncode} and said nothing")
    if _LATER.search(words) and not _LIMIT_OF_THIS_JOB.search(words):
        return Later(words)
    if _REFUSED.search(words) or _LIMIT_OF_THIS_JOB.search(words) or _says_site(words):
        return Refused(words)
    return Uncertain(words)


def _says_site(words: str) -> bool:
    return _SITE_POLICY in words and words != _SITE_POLICY


def _words(stdout: str, stderr: str) -> str:
    """What sbatch said, on one line, without the prefix of each line."""
    text = stderr.strip() or stdout.strip()
    lines = (re.sub(r"^sbatch: (error: |fatal: |warning: )?", "", line).strip() for line in text.splitlines())
    return "; ".join(line for line in lines if line)[:1000]
