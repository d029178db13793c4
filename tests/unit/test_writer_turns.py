"""The order in which threads get the database's writer."""

from __future__ import annotations

import threading

from waiting import equals, wait_until

from hpc_agent.server.store.writer_turns import WriterTurns


def test_calls_that_change_state_go_before_events_and_each_kind_in_its_order() -> None:
    turns = WriterTurns()
    order: list[str] = []
    waiting: list[threading.Thread] = []

    def take(name: str, urgent: bool) -> None:
        with turns.turn(urgent=urgent):
            order.append(name)

    with turns.turn(urgent=False):
        for name in ("event 1", "event 2", "claim 1", "event 3", "claim 2"):
            thread = threading.Thread(target=take, args=(name, name.startswith("claim")))
            thread.start()
            waiting.append(thread)
            wait_until(f"{name} to wait", lambda: turns.waiting, equals(len(waiting)))
    for thread in waiting:
        thread.join()
    assert order == ["claim 1", "claim 2", "event 1", "event 2", "event 3"]


def test_a_turn_that_fails_is_over() -> None:
    turns = WriterTurns()
    for _ in range(2):
        try:
            with turns.turn(urgent=True):
                raise ValueError
        except ValueError:
            pass
    with turns.turn(urgent=False):
        assert turns.waiting == 0
