"""The clock of the tests is a clock, and moves only when it is asked to."""

from __future__ import annotations

import threading
from datetime import datetime, timedelta, timezone

import pytest
from manual_clock import START, ManualClock

from hpc_agent.clock import Clock


def test_time_passes_by_sleep_and_advance_alone() -> None:
    manual = ManualClock()
    clock: Clock = manual
    assert (clock.now(), clock.monotonic()) == (START, 0.0)
    clock.sleep(1.5)
    manual.advance(2, hours=1, days=1)
    assert clock.monotonic() == 1.5 + 2 + 3600 + 86400
    assert clock.now() == START + timedelta(seconds=clock.monotonic())
    assert manual.sleeps == [1.5]


def test_starts_at_any_time() -> None:
    start = datetime(2030, 5, 1, tzinfo=timezone.utc)
    assert ManualClock(start).now() == start


def test_time_does_not_go_back() -> None:
    with pytest.raises(ValueError, match="-1"):
        ManualClock().advance(-1)


def test_actions_happen_at_their_time_in_their_order_and_once() -> None:
    clock, happened = ManualClock(), list[tuple[str, float]]()

    def later(name: str) -> None:
        happened.append((name, clock.seconds))

    clock.at(30, lambda: later("second"))
    clock.at(10, lambda: later("first"))
    clock.at(61, lambda: later("not yet"))
    clock.advance(9)
    assert happened == []
    clock.sleep(51)
    assert happened == [("first", 10), ("second", 30)]
    assert clock.seconds == 60


def test_action_may_let_time_pass_and_plan_another() -> None:
    clock, happened = ManualClock(), list[float]()

    def slow() -> None:
        clock.advance(100)
        clock.at(120, lambda: happened.append(clock.seconds))

    clock.at(10, slow)
    clock.advance(20)
    assert (clock.seconds, happened) == (110, [])
    clock.advance(10)
    assert happened == [120]


def test_wait_ends_at_once_when_the_event_is_set_and_else_after_its_seconds() -> None:
    clock, event = ManualClock(), threading.Event()
    assert not clock.wait(event, 5)
    assert clock.seconds == 5
    clock.at(8, event.set)
    assert clock.wait(event, 5)
    assert clock.wait(event, 5)
    assert clock.seconds == 10


def test_wait_in_the_background_lets_no_time_pass() -> None:
    clock, event, answers = ManualClock(), threading.Event(), list[bool]()
    background = threading.Thread(target=lambda: answers.append(clock.wait(event, 0.001)))
    background.start()
    clock.advance(3600)
    background.join(0.1)
    assert background.is_alive()
    event.set()
    background.join(30)
    assert (answers, clock.seconds) == ([True], 3600)
