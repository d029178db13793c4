"""Who gets which share of a machine."""

from __future__ import annotations

import pytest

from hpc_agent.domain.attempt import Attempt
from hpc_agent.domain.capacity import (
    Capacity,
    GpuRange,
    QueueCandidates,
    choose,
    held_back,
    parse_allocation,
    shared_out,
)
from hpc_agent.domain.ids import AttemptId, QueueId, TaskId
from hpc_agent.errors import InputError


@pytest.mark.parametrize(
    ("word", "queue", "least", "most"),
    [
        ("dual_gpus=2", "dual_gpus", 2, 2),
        ("single=1", "single", 1, 1),
        ("quad=1-4", "quad", 1, 4),
        ("a=b=3", "a=b", 3, 3),
        ("my queue=8", "my queue", 8, 8),
    ],
)
def test_a_queue_says_how_many_gpus_its_jobs_get(word: str, queue: str, least: int, most: int) -> None:
    assert parse_allocation(word) == (queue, GpuRange(least, most))


@pytest.mark.parametrize("word", ["plain", "=2", "q=", "q=0", "q=4-1", "q=x", "q=1-", "q=-1"])
def test_what_says_nothing_useful_is_refused(word: str) -> None:
    with pytest.raises(InputError, match="1-4"):
        parse_allocation(word)


@pytest.mark.parametrize(
    ("room", "wanted", "granted"),
    [
        (Capacity(), GpuRange(2, 4), 2),
        (Capacity(jobs=1, gpus=4), GpuRange(2, 2), 2),
        (Capacity(jobs=1, gpus=4), GpuRange(1, 2), 2),
        (Capacity(jobs=1, gpus=3), GpuRange(1, 8), 3),
        (Capacity(jobs=1, gpus=1), GpuRange(2, 4), None),
        (Capacity(jobs=0, gpus=4), GpuRange(1, 1), None),
        (Capacity(jobs=1, gpus=0), GpuRange(0, 0), 0),
        (Capacity(jobs=0), GpuRange(0, 0), None),
        (Capacity(gpus=0), GpuRange(0, 0), 0),
        (Capacity(jobs=1, gpus=0, all_gpus=2), GpuRange(3, 4), 3),
        (Capacity(jobs=1, gpus=0, all_gpus=2), GpuRange(2, 4), None),
    ],
)
def test_a_job_gets_what_is_free_up_to_its_most(room: Capacity, wanted: GpuRange, granted: int | None) -> None:
    assert room.grant(wanted) == granted


def test_gpus_are_given_out_until_they_are_gone() -> None:
    room = Capacity(jobs=8, gpus=4)
    given = []
    for wanted in (GpuRange(2, 2), GpuRange(2, 2), GpuRange(1, 1)):
        granted = room.grant(wanted)
        given.append(granted)
        room = room if granted is None else room.without(granted)
    assert given == [2, 2, None]
    assert room == Capacity(jobs=6, gpus=0)


def test_slots_are_given_out_until_they_are_gone() -> None:
    room = Capacity(jobs=1).without(0)
    assert room.full
    assert Capacity().without(3) == Capacity()


def test_the_first_task_that_a_limit_holds_back_gets_a_message() -> None:
    a, b, c, d = (Attempt(TaskId(name), AttemptId(name)) for name in "abcd")
    lanes = [QueueCandidates(QueueId("one"), (a, b, c), live=1, limit=2), QueueCandidates(QueueId("two"), (d,))]
    chosen = choose(lanes, 1, 2, fair=False)
    assert chosen == [a]
    assert held_back(lanes, chosen, 2) == {
        b: "Waiting: the scheduler has 2 jobs of this queue, the most at a time (max_jobs)",
        d: "Waiting: the scheduler has 2 jobs of all queues, the most at a time (hpc.max_jobs)",
    }
    assert held_back(lanes, [a, b, c, d], 9) == {}


def test_owners_with_the_fewest_jobs_go_first() -> None:
    due = [Attempt(TaskId(name), AttemptId("0123abcd")) for name in ("a1", "a2", "a3", "b1", "a4", "c1", "b2")]

    def order(jobs: dict[str, int]) -> list[str]:
        return [attempt.task for attempt in shared_out(due, lambda attempt: attempt.task[0], jobs)]

    assert order({}) == ["a1", "b1", "c1", "a2", "b2", "a3", "a4"]
    assert order({"a": 2, "c": 1}) == ["b1", "c1", "b2", "a1", "a2", "a3", "a4"]
    assert order({"b": 5}) == ["a1", "c1", "a2", "a3", "a4", "b1", "b2"]
