"""Runs one job of the local scheduler: ``python -m hpc_agent.schedulers.local.supervisor FOLDER GRACE [GPU …]``.

It outlives the daemon, starts the job if no other supervisor has, and writes down how it ended.
"""

from __future__ import annotations

import math
import os
import signal
import sys
import threading
from contextlib import suppress
from pathlib import Path

from hpc_agent.clock import SYSTEM, Clock
from hpc_agent.domain.job import JobState
from hpc_agent.errors import ProcessError
from hpc_agent.process import background, programs
from hpc_agent.process_id import process_id
from hpc_agent.schedulers.local.backend import JOB_ID
from hpc_agent.schedulers.local.jobs import DeviceClaim, JobFolder, LocalExit, Spec
from hpc_agent.utf8_mode import ensure_utf8_mode
from hpc_agent.wake_up import TERMINATION, WakeUp


class LocalSupervisor:
    """One job's process, from its start to its end."""

    def __init__(self, folder: JobFolder, grace: float, clock: Clock) -> None:
        self._folder = folder
        self._grace = grace
        self._clock = clock
        self._is_stopping = False
        self._wake = WakeUp()
        self._ended = threading.Event()

    def stop_on_signals(self) -> None:
        """From now on the program's signals end the job."""
        self._wake.on_signals(TERMINATION, self._stop)

    def _stop(self) -> None:
        self._is_stopping = True
        self._wake.set()

    def run(self, gpus: tuple[str, ...]) -> None:
        """Run the job unless another supervisor has it."""
        if not self._folder.take(DeviceClaim(self._clock.now(), process_id(os.getpid()), gpus)):
            return
        spec = self._folder.spec()
        assert spec is not None, "a job that is not claimed is never cleared away"
        self._folder.write_ending(self._supervise(spec, gpus))

    def _supervise(self, spec: Spec, gpus: tuple[str, ...]) -> LocalExit:
        env = {**os.environ, "CUDA_VISIBLE_DEVICES": ",".join(gpus), JOB_ID: self._folder.id}
        try:
            pid = background.spawn_detached(
                [str(self._folder.script)],
                env=env,
                cwd=Path(spec.workdir),
                output=Path(spec.output),
                first=self._introduce,
            )
        except ProcessError as error:
            return LocalExit(JobState.FAILED, self._clock.now(), exit_code=127, reason=str(error))
        threading.Thread(target=self._watch, args=(pid,), daemon=True).start()
        in_time = self._wait(spec.time_limit)
        if not self._ended.is_set():
            programs.kill_group(pid, signal.SIGTERM)
            self._clock.wait(self._ended, self._grace)
        # As Slurm does: with the script ends all that it started.
        programs.kill_group(pid, signal.SIGKILL)
        _, status = os.waitpid(pid, 0)
        return self._ending(os.waitstatus_to_exitcode(status), timed_out=not in_time)

    def _wait(self, time_limit: int | None) -> bool:
        """Until the job has ended or is to end; False after ``time_limit`` seconds."""
        end = math.inf if time_limit is None else self._clock.monotonic() + time_limit
        while not (self._ended.is_set() or self._is_stopping):
            left = end - self._clock.monotonic()
            if left <= 0:
                return False
            self._wake.wait(None if left == math.inf else left)
        return True

    def _introduce(self) -> None:
        """The job says itself who it is: if its supervisor dies right after its start, it is not taken for gone."""
        with suppress(OSError):
            if (child := process_id(os.getpid())) is not None:
                self._folder.write_child(child)

    def _watch(self, pid: int) -> None:
        # Not reaped yet: until then no other process can get this process group's number.
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
        self._ended.set()
        self._wake.set()

    def _ending(self, code: int, *, timed_out: bool) -> LocalExit:
        state = JobState.COMPLETED if code == 0 else JobState.FAILED
        if timed_out:
            state = JobState.TIMEOUT
        elif self._is_stopping and self._folder.cancel_request() is not None:
            state = JobState.CANCELLED
        return LocalExit(state, self._clock.now(), exit_code=max(code, 0), signal=max(-code, 0))


def main() -> None:
    ensure_utf8_mode()
    folder, grace, *gpus = sys.argv[1:]
    supervisor = LocalSupervisor(JobFolder(Path(folder)), float(grace), SYSTEM)
    supervisor.stop_on_signals()
    supervisor.run(tuple(gpus))


if __name__ == "__main__":
    main()
