"""Probe of what Slurm tells a job about itself: run inside one, as ``probe.py FILE DELIMITER``.

Writes FILE.start.json when it starts (FILE.restart.json where that is not for the first time), FILE.end.json when it
gets SIGTERM, and its environment as FILE.environment.json. It goes on until it is killed.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from pathlib import Path
from types import FrameType

import msgspec

from hpc_agent.domain.ids import JobId
from hpc_agent.process import programs
from hpc_agent.schedulers.slurm import commands
from hpc_agent.schedulers.slurm.commands import for_queries


def ask(moment: str) -> None:
    argv = commands.squeue_own(JobId(os.environ["SLURM_JOB_ID"]), sys.argv[2])
    answer = programs.run(argv, timeout=20, env=for_queries(os.environ))
    write(moment, answer)


def write(moment: str, answer: programs.CompletedProcess) -> None:
    path = Path(f"{sys.argv[1]}.{moment}.json")
    unfinished = path.with_suffix(".new")
    unfinished.write_text(json.dumps(msgspec.structs.asdict(answer)))
    unfinished.rename(path)


def environment() -> programs.CompletedProcess:
    ours = sorted(f"{name}={value}\n" for name, value in os.environ.items() if name.startswith("SLURM_"))
    return programs.CompletedProcess(("env",), 0, "".join(ours), "")


def at_end(number: int, frame: FrameType | None) -> None:
    ask("end")


def main() -> None:
    signal.signal(signal.SIGTERM, at_end)
    again = "SLURM_RESTART_COUNT" in os.environ
    write("environment-restart" if again else "environment", environment())
    ask("restart" if again else "start")
    while True:
        time.sleep(0.1)  # not signal.pause(), before which the signal may come


main()
