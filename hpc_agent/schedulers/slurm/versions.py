"""Differences between versions of Slurm, in one place, named by version.

Tested on real ones: 20.11, 22.05, 24.11 and 26.05 (``scripts/test-matrix``); what others change is from Slurm's own
changelogs (docs/internals/slurm.md#versions).
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import msgspec

from hpc_agent.domain.job import JobState

OLDEST_TESTED = (20, 11)
NEWEST_TESTED = (26, 5)

GPUS_OVERLAP_SINCE = (21, 8)
"""``srun --overlap`` shares GPUs too; before, only CPUs."""

STATES_SHOWN_FOR_OTHERS = {
    # Flags that squeue shows in place of a job's state. None of them is final.
    "CONFIGURING": JobState.RUNNING,
    "POWER_UP_NODE": JobState.RUNNING,
    "RESIZING": JobState.RUNNING,
    "SIGNALING": JobState.RUNNING,
    "UPDATE_DB": JobState.RUNNING,
    "STAGE_OUT": JobState.COMPLETING,
    "STOPPED": JobState.SUSPENDED,
    "RESV_DEL_HOLD": JobState.PENDING,
    "LAUNCH_FAILED": JobState.REQUEUED,
    "RECONFIG_FAIL": JobState.REQUEUED,
    "REQUEUE_FED": JobState.REQUEUED,
    "REQUEUE_HOLD": JobState.REQUEUED,
    "SPECIAL_EXIT": JobState.REQUEUED,
    "EXPEDITING": JobState.REQUEUED,  # from 25.11 on
}


class SlurmVersion(msgspec.Struct, frozen=True, order=True):
    """Year and month of a release, as in ``24.11``, and the number of the update."""

    year: int
    month: int
    update: str = ""

    def __str__(self) -> str:
        return f"{self.year}.{self.month:02}" + (f".{self.update}" if self.update else "")

    @property
    def release(self) -> tuple[int, int]:
        return self.year, self.month


def parse_version(text: str) -> SlurmVersion | None:
    """``24.11.5`` of ``SLURM_VERSION``; None for what is not a version."""
    match = re.match(r"([0-9]{2})\.([0-9]{2})(?:\.([0-9A-Za-z.-]+))?", text)
    return SlurmVersion(int(match[1]), int(match[2]), match[3] or "") if match else None


def exit_status(text: str) -> tuple[int, int] | None:
    """Exit code and signal of a cell; None where it is not known.

    squeue prints a wait status (256 × code + signal) up to 22.05, ``code:signal`` from 23.02 on, as sacct does in all
    versions, and nothing where the job has no status yet. Read by its form, so that further versions fit too.
    """
    if match := re.fullmatch(r"([0-9]{1,9}):([0-9]{1,9})", text):
        return int(match[1]), int(match[2])
    if re.fullmatch(r"[0-9]{1,9}", text):
        return int(text) >> 8, int(text) & 0x7F
    return None


def notes(version: SlurmVersion | None, config: Mapping[str, str]) -> list[str]:
    """What follows from the version and from ``scontrol show config`` for those who serve queues, a sentence each."""
    found = []
    if version is None:
        found.append("Slurm's version is not known")
    elif version.release > NEWEST_TESTED:
        found.append(f"newer than {_release(NEWEST_TESTED)}, the newest that was tested")
    elif version.release < OLDEST_TESTED:
        found.append(f"older than {_release(OLDEST_TESTED)}, the oldest that was tested")
    age = re.match(r"[0-9]+", config.get("MinJobAge", ""))
    remembers = f"{age[0]} s (MinJobAge)" if age else "some minutes"
    if config.get("AccountingStorageType", "").endswith("slurmdbd"):
        found.append("how jobs ended is asked of accounting (sacct)")
    else:
        found.append(f"no accounting: how jobs ended is known to the controller only, for {remembers}")
    if config.get("JobRequeue") == "0":
        found.append("JobRequeue=0: jobs are not requeued after a node failure or preemption unless they ask for it")
    if "rl_enable" in config.get("SlurmctldParameters", ""):
        found.append("the site limits requests per user (rl_enable): commands may wait")
    return found


def _release(release: tuple[int, int]) -> str:
    return str(SlurmVersion(*release))
