"""Reason why a job waits, as a sentence for its user. A backend tells what it means (``LiveJob.waits``)."""

from __future__ import annotations

import msgspec

from hpc_agent.domain.job import JobState, LiveJob


class WaitReason(msgspec.Struct, frozen=True):
    """``text`` is for the task's status message."""

    text: str
    stuck: bool = False
    """It goes on only if a user acts: worth a line in the console too."""
    hopeless: bool = False
    """It never goes on: the scheduler says so."""
    not_launched: bool = False
    """The scheduler failed to start it, and holds it for that reason only."""


class RequestTerms(msgspec.Struct, frozen=True):
    """Terms in which the user requested resources; advice of a backend names ``{time}`` and ``{nodes}``."""

    time: str = "time_limit"
    nodes: str = "num_nodes"

    def fill(self, advice: str) -> str:
        return advice.replace("{time}", self.time).replace("{nodes}", self.nodes)


SOONER = "; it would start sooner on partition "
"""What the daemon adds to the status message of a job that waits, where another partition is better."""
TASK_TERMS = RequestTerms()
SCRIPT_TERMS = RequestTerms("--time", "--nodes")


def explain_wait(job: LiveJob, terms: RequestTerms = TASK_TERMS, title: str = "") -> WaitReason:
    """For a job that waits for its start, or its next start. ``title``: what to call it, ``Slurm job 12`` if empty."""
    title = title or job.title
    shown = f" ({job.reason})" if job.reason else ""
    meaning = job.waits
    advice = f": {terms.fill(meaning.advice)}" if meaning.advice else ""
    if meaning.not_launched:
        return WaitReason(f"{title} could not be started on its node{shown}", stuck=True, not_launched=True)
    if meaning.hopeless:
        return WaitReason(f"{title} can never start{shown}{advice}", stuck=True, hopeless=True)
    start = f", expected to start {job.expected_start:%Y-%m-%d %H:%M} UTC" if job.expected_start else ""
    again = " again" if job.restarts or job.state is JobState.REQUEUED else ""
    return WaitReason(f"{title} is waiting{again}{shown}{advice}{start}", stuck=meaning.stuck)
