"""Places for staging, shared out between users."""

from __future__ import annotations

import threading
from collections.abc import Callable

from hpc_agent.daemon.login_staging import Slots


def holder(slots: Slots, user: str, end: threading.Event) -> tuple[threading.Thread, threading.Event]:
    """A thread that holds a place of ``user`` until ``end``, and an event that says when it has one."""
    has = threading.Event()

    def work() -> None:
        with slots.slot(user):
            has.set()
            end.wait(60)

    thread = threading.Thread(target=work)
    thread.start()
    return thread, has


def held(*holders: tuple[threading.Thread, threading.Event]) -> list[bool]:
    return [has.is_set() for _, has in holders]


def waits_for(condition: Callable[[], bool]) -> None:
    until = threading.Event()
    for _ in range(600):
        if condition():
            return
        until.wait(0.05)
    raise AssertionError("it did not come about")


def test_one_user_cannot_have_all_places() -> None:
    slots, end = Slots(3, 2), threading.Event()
    greedy = [holder(slots, "eve", end) for _ in range(5)]
    waits_for(lambda: sum(held(*greedy)) == 2)
    other = holder(slots, "ann", end)
    assert other[1].wait(30)
    assert sum(held(*greedy)) == 2
    end.set()
    waits_for(lambda: all(held(*greedy)))
    for thread, _ in [*greedy, other]:
        thread.join()


def test_places_are_limited_for_all_together() -> None:
    slots, end = Slots(2, 2), threading.Event()
    first = [holder(slots, user, end) for user in ("ann", "bob")]
    waits_for(lambda: all(held(*first)))
    late = holder(slots, "cem", end)
    assert not late[1].is_set()
    end.set()
    assert late[1].wait(30)
    for thread, _ in [*first, late]:
        thread.join()
