"""One follower for all jobs of a user, on whichever login node."""

from __future__ import annotations

from hpc_agent.clock import Clock
from hpc_agent.file_records import ensure_directory
from hpc_agent.lease import HeartbeatTiming, Lease, lately_held
from hpc_agent.logs import EventLog
from hpc_agent.tracking.follower import Follower
from hpc_agent.tracking.tracked_records import TrackedRoot

log = EventLog("follow")

_PACE = HeartbeatTiming()


def is_followed(folders: TrackedRoot, clock: Clock) -> bool:
    """Ask after the job is noted down: a follower that is about to leave looks once more when it has left."""
    return lately_held(folders.lease, clock, _PACE)


def acquire_follower(follower: Follower, folders: TrackedRoot, clock: Clock, *, once: bool) -> None:
    """Follow until nothing is left, unless another process does."""
    ensure_directory(folders.path, mode=0o700)
    while True:
        lease = Lease(folders.lease, clock, _PACE)
        if not _acquired(lease, clock, patience=0 if once else 1.5 * _PACE.dead_after):
            log.info("another process follows the jobs")
            return
        try:
            if once:
                follower.run_pass()
                return
            follower.run()
        finally:
            lease.release()
        if not follower.has_work():
            return


def _acquired(lease: Lease, clock: Clock, patience: float) -> bool:
    """A holder on another machine shows that it is dead by standing still while we watch."""
    deadline = clock.monotonic() + patience
    while not lease.acquire():
        if clock.monotonic() >= deadline:
            return False
        clock.sleep(_PACE.beat)
    return True
