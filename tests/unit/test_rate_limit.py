"""Commands of a scheduler come at a rate that its site bears."""

from __future__ import annotations

from manual_clock import ManualClock

from hpc_agent.schedulers.rate_limit import TokenBucket
from hpc_agent.schedulers.slurm.driver import SlurmScheduler
from hpc_agent.schedulers.slurm.settings import SlurmSettings


def test_a_burst_is_free_and_what_follows_waits() -> None:
    clock = ManualClock()
    bucket = TokenBucket(2, 3, clock)
    begun = clock.monotonic()
    for _ in range(3):
        bucket.take()
    assert clock.monotonic() == begun
    for _ in range(4):
        bucket.take()
    assert clock.monotonic() - begun == 2


def test_a_rest_fills_it_up_to_the_burst() -> None:
    clock = ManualClock()
    bucket = TokenBucket(2, 30, clock)
    for _ in range(30):
        bucket.take()
    assert bucket.available() == 0
    clock.sleep(5)
    assert bucket.available() == 10
    clock.sleep(3600)
    assert bucket.available() == 30


def test_without_a_rate_there_is_no_limit() -> None:
    clock = ManualClock()
    bucket = TokenBucket(0, 1, clock)
    for _ in range(100):
        bucket.take()
    assert bucket.available() is None


def test_submissions_leave_room_for_the_queries_of_a_pass() -> None:
    clock = ManualClock()
    capacity = SlurmScheduler(SlurmSettings(request_burst=10), clock=clock).room()
    assert (capacity.jobs, capacity.at_once) == (7, 4)
    assert SlurmScheduler(SlurmSettings(requests_per_second=0), clock=clock).room().jobs is None
    assert SlurmScheduler(SlurmSettings(request_burst=1), clock=clock).room().jobs == 1
