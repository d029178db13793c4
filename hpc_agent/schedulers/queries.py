"""Runs the commands of a scheduler; no answer is an error of its own, never an empty answer."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

from hpc_agent.errors import ProcessError, SchedulerUnavailableError
from hpc_agent.process import programs


def run(
    argv: Sequence[str], environ: Mapping[str, str], timeout: float, cwd: Path | None = None
) -> programs.CompletedProcess:
    """
    Raises:
        SchedulerUnavailableError: the command could not be started, or gave no answer within ``timeout`` seconds.
    """
    try:
        return programs.run(argv, timeout=timeout, env=environ, cwd=cwd)
    except ProcessError as error:
        advice = "; run this on a login node, or load the site's module first" if not shutil.which(argv[0]) else ""
        raise SchedulerUnavailableError(f"the scheduler gave no information: {error}{advice}") from error


def printed(answer: programs.CompletedProcess) -> str:
    """What a query printed.

    Raises:
        SchedulerUnavailableError: an exit code other than 0, or text on stderr only, which are not information.
    """
    if not answer.ok or (not answer.stdout.strip() and answer.stderr.strip()):
        raise SchedulerUnavailableError(
            f"{answer.argv[0]} ended with exit code {answer.returncode}: {answer.last_words or 'it printed nothing'}"
        )
    return answer.stdout
