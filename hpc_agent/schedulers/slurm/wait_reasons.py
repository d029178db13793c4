"""Slurm's wait reasons, explained to the user of a job."""

from __future__ import annotations

import re

from hpc_agent.domain.ids import JobId
from hpc_agent.domain.job import WaitMeaning

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
        "a limit of your account or QOS is reached: it starts when others of its jobs have ended",
    ),
    (r"^ReqNodeNotAvail", "its nodes are down or reserved"),
    (r"^Priority$", "jobs with a higher priority are ahead of it"),
    (r"^Resources$", "it is next, once enough is free"),
    (r"^Dependency$", "the jobs that it depends on have not ended"),
    (r"^BeginTime$", "its begin time is still to come"),
    (r"^JobArrayTaskLimit$", "as many elements of its array run as may run at once"),
    (r"^Licenses$", "the licences that it asks for are in use"),
    (r"^Reservation$", "its reservation has not begun"),
)
_LAUNCH_FAILED = "launch failed requeued held"


def readable(reason: str) -> str:
    """A reason as a sentence has it; some have underscores for spaces."""
    return reason.replace("_", " ") if " " not in reason else reason


def meaning(reason: str, job: JobId) -> WaitMeaning:
    """What follows from a reason of ``readable``; nothing for one that is not known. See ``domain.wait_reason`` for the
    placeholders that are left in the advice."""
    if reason == _LAUNCH_FAILED:
        return WaitMeaning(stuck=True, not_launched=True)
    for patterns in (_HOPELESS, _STUCK, _GOES_ON):
        for pattern, advice in patterns:
            if re.search(pattern, reason):
                hopeless = patterns is _HOPELESS
                return WaitMeaning(
                    advice.replace("{job}", job), stuck=hopeless or patterns is _STUCK, hopeless=hopeless
                )
    return WaitMeaning()
