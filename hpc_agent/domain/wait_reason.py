"""Reason why a job waits, as a sentence for its user."""

from __future__ import annotations

import re
from dataclasses import dataclass

from hpc_agent.domain.job import JobState, LiveJob


@dataclass(frozen=True)
class WaitReason:
    """``text`` is for the task's status message."""

    text: str
    stuck: bool = False
    """It goes on only if a person acts: worth a line in the console too."""
    hopeless: bool = False
    """It never goes on: the scheduler says so."""
    not_launched: bool = False
    """The scheduler failed to start it, and holds it for that reason only."""


_HOPELESS = (
    (r"DependencyNeverSatisfied", "a job that it depends on did not end as it must"),
    (r"Reservation \S+ was deleted|ReservationDeleted|^InvalidReservation", "its reservation is over"),
)
_STUCK = (
    (r"^JobHeldAdmin", "an administrator holds it: ask them, or take the task off its queue"),
    (r"^JobHeldUser|requeued in held state", "it is held: `scontrol release {job}` lets it go on"),
    (r"^PartitionTimeLimit", "it asks for more time than its partition allows: ask for less with {time}"),
    (r"^PartitionNodeLimit", "it asks for more nodes than its partition allows: ask for less with {nodes}"),
    (r"^PartitionDown|^PartitionInactive", "its partition is closed: ask the administrators for how long"),
    (r"^BadConstraints|^NodesNotAvailable", "no node has what it asks for: ask for less"),
    (r"^InvalidAccount|^InvalidQOS|^QOSNotAllowed|^AccountNotAllowed", "its account or QOS is not allowed here"),
    (r"(Per(Job|Node)|WallDuration\w*)(Limit)?$", "it asks for more than one job may have: ask for less"),
    (
        # …RunMinutes are what running jobs may still use: those come back when they end.
        r"^(Assoc|QOS)Grp(\w*(?<!Run)Minutes|Wall)(Limit)?$",
        "the budget of its account or QOS is used up: ask those who manage it",
    ),
)
_GOES_ON = (
    (r"Reserved for maintenance", "a maintenance is ahead: with a shorter {time} it may run before"),
    (
        r"^(Assoc|QOS)((Grp|Max)\w+|\w*Limit)$",
        "a limit of your account is met: it starts when others of its jobs have ended",
    ),
    (r"^ReqNodeNotAvail", "its nodes are down or reserved"),
)
_LAUNCH_FAILED = "launch failed requeued held"


@dataclass(frozen=True)
class RequestTerms:
    """How the user asked for what the job needs."""

    time: str = "time_limit"
    nodes: str = "num_nodes"


SCRIPT_TERMS = RequestTerms("--time", "--nodes")


def explain_wait(job: LiveJob, terms: RequestTerms = RequestTerms(), title: str = "") -> WaitReason:
    """For a job that waits for its start, or its next start. ``title``: what to call it, ``Slurm job 12`` if empty."""
    title = title or job.title
    reason = job.reason.replace("_", " ") if " " not in job.reason else job.reason
    shown = f" ({reason})" if reason and reason != "None" else ""
    start = f", expected to start {job.expected_start:%Y-%m-%d %H:%M} UTC" if job.expected_start else ""
    again = " again" if job.restarts or job.state is JobState.REQUEUED else ""
    if reason == _LAUNCH_FAILED:
        return WaitReason(f"{title} could not be started on its node{shown}", stuck=True, not_launched=True)
    for patterns in (_HOPELESS, _STUCK, _GOES_ON):
        for pattern, words in patterns:
            if re.search(pattern, reason):
                said = words.format(job=job.id, time=terms.time, nodes=terms.nodes)
                if patterns is _HOPELESS:
                    return WaitReason(f"{title} can never start{shown}: {said}", stuck=True, hopeless=True)
                return WaitReason(f"{title} is waiting{again}{shown}: {said}{start}", stuck=patterns is _STUCK)
    return WaitReason(f"{title} is waiting{again}{shown}{start}")
