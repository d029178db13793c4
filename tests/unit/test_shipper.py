"""Each line of the console reaches the server once and in order, whatever answers get lost and whichever process
dies."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from manual_clock import ManualClock

from hpc_agent.domain.ids import TaskId, WorkerId
from hpc_agent.errors import ApiError, ServerUnreachableError
from hpc_agent.retry import ONCE, Budget
from hpc_agent.telemetry.checkpoint import Batch, Checkpoint
from hpc_agent.telemetry.shipper import DOUBT_S, ConsoleSource, Shipper
from hpc_agent.telemetry.spool import Spool

TASK = TaskId("a" * 32)
WORKER = WorkerId("n1:slurm:7")
BEGIN = datetime(2026, 1, 1, tzinfo=timezone.utc)
BEGIN_MS = int(BEGIN.timestamp() * 1000)
LINES = "".join(f"line {number}\n" for number in range(10))


class EventsInMemory:
    """The calls of ``api.events.EventsApi`` that a shipper makes; it may raise ``before`` and ``after`` it stores."""

    def __init__(self) -> None:
        self.stored: list[dict[str, Any]] = []
        self.largest: int | None = None
        """Events of a request beyond which it is refused as too large."""
        self.before: Callable[[], None] = lambda: None
        self.after: Callable[[], None] = lambda: None
        self.taken: int | None = None
        """How many events of a request are stored; all when None."""
        self.requests = 0

    def add(self, events: list[dict[str, Any]], **_: object) -> int:
        self.requests += 1
        self.before()
        if self.largest is not None and sum(len(event["msg"]) for event in events) > self.largest:
            raise ApiError("events.add_batch", 413, 0, "too large")
        self.stored += events[: self.taken]
        self.after()
        return len(events[: self.taken])

    def timestamps(self, _task: TaskId, worker: WorkerId, first: int, last: int, **_: object) -> set[int]:
        return {e["timestamp"] for e in self.stored if e["worker"] == worker and first <= e["timestamp"] <= last}

    def latest(self, _task: TaskId, **_: object) -> int:
        return max((event["timestamp"] for event in self.stored), default=0)

    @property
    def text(self) -> str:
        """As the server shows it."""
        return "".join(event["msg"] for event in sorted(self.stored, key=lambda event: event["timestamp"]))


def once(error: Exception) -> Callable[[], None]:
    left = [error]

    def fail() -> None:
        if left:
            raise left.pop()

    return fail


class Bench:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.events = EventsInMemory()
        self.clock = ManualClock(BEGIN)

    def spool(self, name: str = "console") -> Spool:
        return Spool(self.folder / f"{name}.log", self.folder / f"{name}.offset")

    def write(self, text: str, name: str = "console") -> None:
        spool = self.spool(name)
        spool.write(text.encode())
        spool.close()

    def shipper(self, worker: WorkerId = WORKER, **more: Any) -> Shipper:
        return Shipper(self.spool(), ConsoleSource(TASK, worker), self.events, self.clock, **more)  # type: ignore[arg-type]


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def test_the_whole_console_is_sent_and_the_mark_is_at_its_end(bench: Bench) -> None:
    bench.write(LINES + "without an end")
    assert bench.shipper().drain(ONCE)
    assert bench.events.text == LINES + "without an end"
    assert bench.spool().mark() == Checkpoint(len(LINES) + 14, bench.events.latest(TASK))
    requests = bench.events.requests
    assert bench.shipper().drain(ONCE)
    assert bench.events.requests == requests


def test_what_was_added_is_sent_with_later_stamps(bench: Bench) -> None:
    bench.write("first\n")
    assert bench.shipper().drain(ONCE)
    bench.clock.start -= timedelta(hours=1)  # another node's clock
    bench.write("second\n")
    assert bench.shipper().drain(ONCE)
    assert bench.events.text == "first\nsecond\n"
    first, second = (event["timestamp"] for event in bench.events.stored)
    assert (first, second) == (BEGIN_MS, BEGIN_MS + 1)


def test_stamps_come_after_what_others_have_sent(bench: Bench) -> None:
    bench.events.stored.append({"worker": "login", "timestamp": BEGIN_MS + 5000, "msg": "by the daemon\n"})
    bench.write("ours\n")
    assert bench.shipper().drain(ONCE)
    assert bench.events.text == "by the daemon\nours\n"


@pytest.mark.parametrize("stored", [True, False])
def test_a_line_whose_answer_was_lost_is_neither_lost_nor_doubled(bench: Bench, stored: bool) -> None:
    lost = once(ServerUnreachableError("no answer", uncertain=True))
    if stored:
        bench.events.after = lost
    else:
        bench.events.before = lost
    bench.write(LINES)
    assert bench.shipper().drain(Budget(60))
    assert bench.events.text == LINES
    # A server of many parts shows an event some time after it took it.
    assert bench.clock.seconds >= DOUBT_S


def test_a_refusal_is_tried_again_and_then_given_up(bench: Bench) -> None:
    def refuse() -> None:
        raise ApiError("events.add_batch", 401, 0, "no")

    bench.events.before = refuse
    bench.write(LINES)
    assert not bench.shipper().drain(Budget(60))
    assert 3 < bench.events.requests < 12
    assert bench.clock.seconds <= 60
    bench.events.before = lambda: None
    assert bench.shipper().drain(ONCE)
    assert bench.events.text == LINES


@pytest.mark.parametrize("stored", [True, False])
def test_the_successor_of_a_sender_that_died_sends_what_is_missing(bench: Bench, stored: bool) -> None:
    """Under the dead one's name: the server knows its events by it."""
    bench.write(LINES)

    class DiedError(Exception):
        pass

    if stored:
        bench.events.after = once(DiedError())
    else:
        bench.events.before = once(DiedError())
    with pytest.raises(DiedError):
        bench.shipper().drain(ONCE)
    assert bench.spool().mark().sending is not None
    bench.write("more\n")
    assert bench.shipper(WorkerId("login")).drain(ONCE)
    assert bench.events.text == LINES + "more\n"
    assert [event["worker"] for event in bench.events.stored] == [WORKER, "login"]


def test_of_a_batch_that_was_stored_in_part_the_rest_is_sent(bench: Bench) -> None:
    text = "".join(f"{number:08d} {'x' * 991}\n" for number in range(200))
    bench.write(text)
    bench.events.taken = 1

    def take_all() -> None:
        bench.events.taken = None if bench.events.stored else 1

    bench.events.before = take_all
    assert bench.shipper().drain(Budget(60))
    assert bench.events.text == text


def test_requests_shrink_until_they_pass(bench: Bench) -> None:
    text = "".join(f"{number:08d} {'x' * 991}\n" for number in range(200))
    bench.write(text)
    bench.events.largest = 5000
    assert bench.shipper().drain(ONCE)
    assert bench.events.text == text
    assert max(len(event["msg"]) for event in bench.events.stored) <= 5000


def test_nothing_is_sent_once_the_console_is_anothers(bench: Bench) -> None:
    bench.write(LINES)
    assert not bench.shipper(ours=lambda: False).drain(ONCE)
    assert (bench.events.requests, bench.spool().mark()) == (0, Checkpoint())


def test_a_batch_that_was_written_down_is_not_sent_once_the_console_is_anothers(bench: Bench) -> None:
    bench.write(LINES)
    bench.spool().remember(Checkpoint(sending=Batch((len(LINES),), BEGIN_MS, WORKER)))
    assert not bench.shipper(ours=lambda: False).drain(ONCE)
    assert bench.events.requests == 0


def test_consoles_of_earlier_starts_are_sent_first(bench: Bench) -> None:
    bench.write("first start, cut", "console.0")
    bench.write("second start\n")
    assert bench.shipper(earlier=[bench.spool("console.0")]).drain(ONCE)
    assert bench.events.text == "first start, cutsecond start\n"
    assert bench.spool("console.0").mark().offset == len("first start, cut")


def test_a_file_that_was_begun_again_is_sent_from_its_new_beginning(bench: Bench) -> None:
    bench.write("old and long\n")
    assert bench.shipper(rewritable=True).drain(ONCE)
    (bench.folder / "console.log").write_text("new\n")
    assert bench.shipper(rewritable=True).drain(ONCE)
    assert bench.events.text == "old and long\nnew\n"


def test_progress_that_ends_no_line_is_collapsed(bench: Bench) -> None:
    bench.write("10%\r20%\r100%\ndone\n")
    assert bench.shipper().drain(ONCE)
    assert bench.events.text == "100%\ndone\n"
