"""Waiting ends with what was awaited, or with a failure that says what was seen instead."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest
from waiting import contains, empty, equals, wait_until


def states(*values: object) -> Iterator[object]:
    yield from values
    while True:
        yield values[-1]


def test_returns_the_first_true_state() -> None:
    seen = states(None, [], ["job 7"], ["job 8"])
    assert wait_until("a job", lambda: next(seen)) == ["job 7"]


def test_returns_the_first_accepted_state() -> None:
    seen = states("pending", "running", "ended")
    assert wait_until("it to run", lambda: next(seen), equals("running")) == "running"


def test_is_over_as_soon_as_the_state_is_there() -> None:
    event = threading.Event()
    timer = threading.Timer(0.05, event.set)
    timer.start()
    assert wait_until("the timer", event.is_set)
    timer.join()


def test_failure_names_what_was_awaited_and_what_was_seen_last() -> None:
    seen = states("pending", "configuring")
    with pytest.raises(pytest.fail.Exception) as raised:
        wait_until("job 7 to run", lambda: next(seen), equals("running"), timeout=0.1)
    assert str(raised.value) == "waited 0.1 s for job 7 to run; last seen: 'configuring'"


def test_failure_shows_the_end_of_a_long_state() -> None:
    log = "line\n" * 10_000 + "the newest line"
    with pytest.raises(pytest.fail.Exception, match="the newest line") as raised:
        wait_until("a line", lambda: log, contains("another line"), timeout=0)
    assert len(str(raised.value)) < 3000


def test_state_is_looked_at_even_when_there_is_no_time() -> None:
    assert wait_until("what is there", lambda: "it", timeout=0) == "it"


def test_error_of_the_look_is_not_swallowed() -> None:
    def look() -> str:
        raise LookupError("no such job")

    with pytest.raises(LookupError, match="no such job"):
        wait_until("a job", look)


@pytest.mark.parametrize(
    ("accept", "accepted", "refused"),
    [
        (contains("b"), ["abc", ["a", "b"], {"b": 1}], ["a", [], ["abc"]]),
        (equals(3), [3], [4, None, "3"]),
        (empty, [None, [], "", {}], ["a", [0]]),
    ],
)
def test_conditions(accept: object, accepted: list[object], refused: list[object]) -> None:
    assert callable(accept)
    assert [bool(accept(state)) for state in (*accepted, *refused)] == [True] * len(accepted) + [False] * len(refused)
