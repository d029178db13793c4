"""Environment of a staged task, made ready on this node while the server is still asked whether the task is ours.

It changes this node's cache alone, and is worth having whatever the answer is: a task that is lost here is run by
another job of the same sweep, most likely.
"""

from __future__ import annotations

import concurrent.futures
from collections.abc import Mapping
from pathlib import Path

import msgspec

from hpc_agent.cancellation import POLL_S, check, in_background
from hpc_agent.clock import Clock
from hpc_agent.config.settings import AllSettings
from hpc_agent.domain.env import EnvKey
from hpc_agent.envs.env_store import EnvStore, UsableEnv
from hpc_agent.file_records import read_record
from hpc_agent.logs import EventLog
from hpc_agent.progress import Progress
from hpc_agent.runs.directory import RUN_DIR, RunDirectory

log = EventLog("executor")


class PrefetchRequest(msgspec.Struct, frozen=True):
    """What of a ``StagedTask`` says which environment the task has: that type imports all about sources."""

    env: EnvKey | None = None
    env_sha256: str = ""


class EnvPrefetch:
    """``begin`` when the program starts; ``result`` when the environment is needed."""

    def __init__(self, settings: AllSettings, directory: RunDirectory, clock: Clock) -> None:
        self._settings = settings
        self._directory = directory
        self._clock = clock
        self._lines: list[str] = []

    def begin(self) -> None:
        self._future = in_background(self._open, "environment")

    def result(self, progress: Progress) -> UsableEnv | None:
        """Wait for it, and repeat its lines to ``progress``; None where it is to be opened in the usual way, which
        gives the error if there was one.

        Raises:
            Cancelled: see ``hpc_agent.cancellation``.
        """
        while not concurrent.futures.wait([self._future], POLL_S).done:
            check()
        error = self._future.exception()
        if error is not None:
            log.debug("environment.not_prefetched", error=error)
            return None
        for line in self._lines:
            progress(line)
        return self._future.result()

    def _open(self) -> UsableEnv | None:
        staged = read_record(self._directory.stage, PrefetchRequest)
        if staged is None or staged.env is None:
            return None
        hpc = self._settings.hpc
        store = EnvStore(hpc.cache, hpc.scratch, self._settings.python_packages, self._clock, mount=hpc.envs.mount)
        return store.use(staged.env, self._lines.append, sha256=staged.env_sha256)


def begin_prefetch(settings: AllSettings, environ: Mapping[str, str], clock: Clock) -> EnvPrefetch | None:
    """In a job of a daemon, which has staged all: begin to unpack the environment while this program is still imported
    and the server is asked."""
    run_dir = environ.get(RUN_DIR)
    if not run_dir:
        return None
    prefetch = EnvPrefetch(settings, RunDirectory(Path(run_dir)), clock)
    prefetch.begin()
    return prefetch
