"""Leases on shared work: one holder at a time as long as nothing goes wrong, and never stuck when it does."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
from datetime import datetime, timezone
from pathlib import Path

import pytest
from manual_clock import ManualClock
from waiting import wait_until

from hpc_agent.clock import SYSTEM
from hpc_agent.heartbeat import Silence
from hpc_agent.lease import HeartbeatTiming, Lease, lately_held, only_one


def test_one_holder_at_a_time(tmp_path: Path) -> None:
    first, second = (Lease(tmp_path / "work", SYSTEM) for _ in range(2))
    assert first.acquire()
    assert not second.acquire()
    first.release()
    assert second.acquire()
    second.release()
    assert list(tmp_path.iterdir()) == []


def test_beat_shows_that_the_holder_lives(tmp_path: Path) -> None:
    lease = Lease(tmp_path / "work", SYSTEM, HeartbeatTiming(interval=0.01))
    assert lease.acquire()
    before = (tmp_path / "work" / "owner").read_text()
    wait_until("a beat", (tmp_path / "work" / "owner").read_text, lambda seen: seen != before)
    lease.release()


def test_silent_holder_on_another_host_is_replaced_after_a_minute_of_watching(tmp_path: Path) -> None:
    work = tmp_path / "work"
    work.mkdir()
    (work / "owner").write_text("elsewhere 1 1 token 5\n")
    clock = ManualClock()
    lease = Lease(work, clock)
    assert not lease.acquire()
    clock.advance(59)
    assert not lease.acquire()
    (work / "owner").write_text("elsewhere 1 1 token 6\n")  # it beats: the watch begins again
    clock.advance(11)
    assert not lease.acquire()
    clock.advance(61)
    assert lease.acquire()
    lease.release()


def test_dead_holder_on_this_host_is_replaced_at_once(tmp_path: Path) -> None:
    child = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, text=True)
    work = tmp_path / "work"
    work.mkdir()
    (work / "owner").write_text(f"{socket.gethostname()} {child.stdout.strip()} 12345 token 0\n")
    lease = Lease(work, ManualClock())
    assert lease.acquire()
    lease.release()


def test_process_number_that_came_again_is_not_the_holder(tmp_path: Path) -> None:
    work = tmp_path / "work"
    work.mkdir()
    (work / "owner").write_text(f"{socket.gethostname()} {os.getpid()} 12345 token 0\n")
    lease = Lease(work, ManualClock())
    assert lease.acquire()
    lease.release()


def test_holder_that_died_while_it_gave_it_back_is_replaced_at_once(tmp_path: Path) -> None:
    (tmp_path / "work").mkdir()
    lease = Lease(tmp_path / "work", ManualClock())
    assert lease.acquire()
    lease.release()


def test_holder_is_never_seen_without_its_name(tmp_path: Path) -> None:
    lease = Lease(tmp_path / "work", SYSTEM, HeartbeatTiming(interval=0.0))
    assert lease.acquire()
    assert all(lease.is_held() for _ in range(5000))
    lease.release()


def test_lease_that_was_taken_over_is_left_to_its_new_holder(tmp_path: Path) -> None:
    lease = Lease(tmp_path / "work", SYSTEM)
    assert lease.acquire()
    (tmp_path / "work" / "owner").write_text("elsewhere 1 1 token 0\n")
    lease.release()
    assert (tmp_path / "work" / "owner").exists()


def test_a_process_that_waits_gets_what_the_other_made(tmp_path: Path) -> None:
    made: list[str] = []
    messages: list[str] = []

    def want(name: str) -> None:
        with only_one(
            tmp_path / "work", SYSTEM, done=lambda: bool(made), waiting=lambda: messages.append(name)
        ) as mine:
            if mine:
                SYSTEM.sleep(0.2)
                made.append(name)

    threads = [threading.Thread(target=want, args=(str(n),)) for n in range(10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(made) == 1
    assert len(messages) == 9


def test_next_one_tries_when_the_first_fails(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), only_one(tmp_path / "work", SYSTEM, done=lambda: False) as mine:
        assert mine
        raise RuntimeError
    with only_one(tmp_path / "work", SYSTEM, done=lambda: False) as mine:
        assert mine


def test_group_can_read_whose_lease_it_is_whatever_the_umask(tmp_path: Path) -> None:
    tmp_path.chmod(0o775)
    before = os.umask(0o077)
    try:
        lease = Lease(tmp_path / "leases" / "work", SYSTEM)
        assert lease.acquire()
    finally:
        os.umask(before)
    assert (tmp_path / "leases").stat().st_mode & 0o777 == 0o775
    assert (tmp_path / "leases" / "work" / "owner").stat().st_mode & 0o777 == 0o664
    lease.release()


def test_one_look_tells_whether_it_was_held_lately(tmp_path: Path) -> None:
    path = tmp_path / "lease"
    assert not lately_held(path, SYSTEM)
    lease = Lease(path, SYSTEM)
    assert lease.acquire()
    assert lately_held(path, SYSTEM)
    owner = path / "owner"
    os.utime(owner, (1, 1))
    assert not lately_held(path, SYSTEM), "its heartbeat does not change"
    owner.write_text(f"{socket.gethostname()} {os.getpid()} 1 abc 0\n")
    assert not lately_held(path, SYSTEM), "its process is gone, another one has the number"
    lease.release()


@pytest.mark.parametrize(("ahead", "held"), [(30, True), (90, False)])
def test_a_beat_from_the_future_is_as_good_as_one_as_long_ago(ahead: float, held: bool, tmp_path: Path) -> None:
    """The clock of the file server was put back: by how much is not known, and no lease may last forever."""
    path = tmp_path / "lease"
    lease = Lease(path, SYSTEM)
    assert lease.acquire()
    (path / "owner").write_text("elsewhere 1 1 token 5\n")
    future = SYSTEM.now().timestamp() + ahead
    os.utime(path / "owner", (future, future))
    assert lately_held(path, SYSTEM) is held
    lease.release()


class SlowReads:
    """A share that answers late: reading takes so many seconds of the clock."""

    def __init__(self, clock: ManualClock) -> None:
        self.clock = clock
        self.text: str | None = "elsewhere 1 1 token 5"
        self.takes = 0.0

    def read(self) -> str | None:
        self.clock.advance(self.takes)
        return self.text


def test_an_outage_is_not_silence() -> None:
    clock = ManualClock()
    share = SlowReads(clock)
    silence = Silence(share.read, clock)
    silence.seconds()
    clock.advance(30)
    assert silence.seconds() == 30
    share.takes = 90
    assert silence.seconds() == 0, "its writer was held up as well"
    share.takes = 0
    clock.advance(1)
    assert silence.seconds() == 0
    clock.advance(59)
    assert silence.seconds() == 59
    share.text = None
    assert silence.seconds() == 0, "nothing could be read"
    clock.seconds += 300
    assert silence.seconds() == 0, "nor later"
    share.text = "elsewhere 1 1 token 5"
    clock.advance(5)
    assert silence.seconds() == 0


def test_before_a_holder_is_called_dead_it_gets_time_to_beat_after_an_unseen_outage() -> None:
    """Two looks far apart, with an outage in between: the holder beats as soon as it is over."""
    clock = ManualClock()
    share = SlowReads(clock)
    clock.at(301, lambda: setattr(share, "text", "elsewhere 1 1 token 6"))
    silence = Silence(share.read, clock)
    assert not silence.is_dead()
    clock.advance(300)
    assert not silence.is_dead()


def test_a_holder_goes_on_beating_after_a_beat_that_could_not_be_read(tmp_path: Path) -> None:
    lease = Lease(tmp_path / "work", SYSTEM, HeartbeatTiming(interval=0.01))
    assert lease.acquire()
    owner = tmp_path / "work" / "owner"
    aside = tmp_path / "aside"
    aside.hardlink_to(owner)
    loop = tmp_path / "loop"
    loop.symlink_to(owner)
    loop.replace(owner)  # each open fails with ELOOP, as one fails with EIO or ESTALE on a share; it is never absent
    SYSTEM.sleep(0.1)
    assert lease.is_held()
    assert not Lease(tmp_path / "work", SYSTEM).acquire()
    aside.replace(owner)
    before = owner.read_text(encoding="utf-8")
    wait_until("a beat", lambda: owner.read_text(encoding="utf-8"), lambda seen: seen != before)
    lease.release()


def test_a_clock_that_differs_from_the_file_servers_makes_no_holder_dead(tmp_path: Path) -> None:
    lease = Lease(tmp_path / "lease", SYSTEM)
    assert lease.acquire()
    assert lately_held(tmp_path / "lease", ManualClock(datetime.fromtimestamp(0, timezone.utc)))
    lease.release()
