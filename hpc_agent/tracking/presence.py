"""One follower for all jobs of a user, on whichever login node."""

from __future__ import annotations

from datetime import datetime, timezone

from hpc_agent.clock import Clock
from hpc_agent.files import ensure_directory
from hpc_agent.lease import Lease, Pace
from hpc_agent.logs import Events
from hpc_agent.tracking.follow import Follower
from hpc_agent.tracking.records import Folders

log = Events("follow")

_PACE = Pace()


def somebody_follows(folders: Folders, clock: Clock) -> bool:
    """Whether a follower gave a sign of life lately. Ask after the job is noted down: one that is about to end looks
    again when it has ended."""
    try:
        beat = (folders.lease / "owner").stat().st_mtime
    except OSError:
        return False
    age = (clock.now() - datetime.fromtimestamp(beat, timezone.utc)).total_seconds()
    return abs(age) < _PACE.dead_after / 2


def follow_alone(follower: Follower, folders: Folders, clock: Clock, *, once: bool) -> None:
    """Follow, unless another does."""
    ensure_directory(folders.path, mode=0o700)
    while True:
        lease = Lease(folders.lease, clock, _PACE)
        if not lease.acquire():
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
