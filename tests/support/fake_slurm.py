"""Commands of our own on PATH that speak as Slurm's do, for answers that the real ones do not give on demand.

Tables are written with ``CELL_END`` after each cell; the commands put the delimiter there that they are asked for.
"""

from __future__ import annotations

from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from waiting import HANG_S

from hpc_agent.schedulers.slurm.driver import SlurmScheduler
from hpc_agent.schedulers.slurm.settings import SlurmSettings

SUBMITTED = datetime(2026, 11, 20, 12, 0, 7, tzinfo=timezone.utc)
"""When the jobs of these tables were submitted, started and ended."""
CELL_END = "<end of cell>"
_STAMP = str(int(SUBMITTED.timestamp()))
_DELIMITER_ASKED_FOR = r"""
for word; do
    case $word in
        --Format=*) columns=${word#*:}; column=${columns%%,*}; delimiter=${column#"${column%%[!0-9]*}"} ;;
        --delimiter=*) delimiter=${word#*=} ;;
    esac
done
"""
_PRINT = f'printf %s "${{table//"{CELL_END}"/$delimiter}}"'


def _line(*cells: str) -> str:
    return "".join(f"{cell}{CELL_END}" for cell in cells) + "\n"


QUEUE_HEADER = _line(
    *("JOBID", "STATE", "RESTART_", "SUBMIT_TIME", "START_TIME", "END_TIME", "EXIT_CODE", "NODELIST", "REASON", "NAME")
)
ACCOUNTING_HEADER = _line(
    *("JobID", "JobIDRaw", "State", "ExitCode", "Submit", "Start", "End", "Timelimit", "NodeList", "Reason", "JobName")
)
OWN_HEADER = _line("JOBID", "STATE", "RESTART_", "TIME", "TIME_LIMIT", "PREEMPT_TIME", "REASON")


def queue_row(
    job: str,
    state: str,
    *,
    name: str = "name",
    exit_code: str = "0:0",
    reason: str = "None",
    submitted: str = _STAMP,
    restarts: str = "0",
    ended: str = _STAMP,
) -> str:
    """A job as ``slurm.squeue`` asks for it, padded as squeue does."""
    cells = (job, state, restarts, submitted, _STAMP, ended, exit_code, "n1", reason, name)
    widths = (32, 24, 8, 24, 24, 24, 12, 128, 128, 256)
    return _line(*(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)))


def accounting_row(
    job: str,
    state: str,
    *,
    name: str = "name",
    exit_code: str = "0:0",
    reason: str = "None",
    submitted: str = _STAMP,
    raw: str = "",
    limit: str = "01:00:00",
) -> str:
    """A record as ``slurm.sacct`` asks for it."""
    return _line(job, raw or job, state, exit_code, submitted, _STAMP, _STAMP, limit, "n1", reason, name)


def own_row(job: str, state: str, *, reason: str = "None", restarts: str = "0", preempted: str = "N/A") -> str:
    """A job as ``slurm.squeue_own`` asks for it, after a second of its hour."""
    return _line(job, state, restarts, "0:01", "1:00:00", preempted, reason)


def printed(table: str, delimiter: str) -> str:
    """A table as a command prints it."""
    return table.replace(CELL_END, delimiter)


class FakeSlurm:
    """Shell commands in a folder that is first on PATH; each call is noted in ``calls``."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.bin = folder / "bin"
        self.bin.mkdir()

    def command(self, name: str, body: str) -> None:
        path = self.bin / name
        path.write_text(f'#!/bin/bash\necho "{name} $*" >> {self.folder}/calls\n{body}\n')
        path.chmod(0o755)

    def answer(self, name: str, table: str, after: str = "") -> None:
        """A command that prints a table, whatever it is asked for; ``after``: what it does then."""
        (self.bin / f"{name}.table").write_bytes(table.encode())
        self.command(name, f"{_DELIMITER_ASKED_FOR}IFS= read -rd '' table <{self.bin}/{name}.table\n{_PRINT}\n{after}")

    def squeue(self, *rows: str) -> None:
        self.answer("squeue", QUEUE_HEADER + "".join(rows))

    def sacct(self, *rows: str) -> None:
        self.answer("sacct", ACCOUNTING_HEADER + "".join(rows))

    @property
    def environ(self) -> dict[str, str]:
        return {"PATH": f"{self.bin}:/usr/bin:/bin"}

    def scheduler(self, **settings: Any) -> SlurmScheduler:
        """It waits long for an answer, as a busy machine needs, unless ``settings`` say otherwise."""
        return SlurmScheduler(
            SlurmSettings(**{"sbatch_timeout": HANG_S, "command_timeout": HANG_S, **settings}), environ=self.environ
        )

    def calls(self, name: str) -> int:
        return sum(line.startswith(f"{name} ") for line in (self.folder / "calls").read_text().splitlines())
