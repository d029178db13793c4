"""What a pilot starts, and how many pilots are asked for, whatever waits."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from hpc_agent.domain.pilot_slots import (
    PilotQueueState,
    PilotState,
    Slot,
    TaskDemand,
    may_run,
    to_hand_over,
    to_start,
    wanted_pilots,
)

slots = st.builds(Slot, st.integers(1, 8), st.integers(0, 16), st.integers(0, 4))
wholes = st.builds(Slot, st.integers(1, 16), st.integers(0, 32), st.integers(0, 4))
demands = st.lists(st.builds(TaskDemand, slots, st.integers(1, 100)), max_size=12)
counts = st.integers(0, 50)
queues = st.builds(PilotQueueState, counts, counts, counts, counts, st.integers(0, 9), st.integers(1, 9))


@st.composite
def pilots(draw: st.DrawFn) -> PilotState:
    whole = draw(wholes)
    free = Slot(
        draw(st.integers(0, whole.cpus)), draw(st.integers(0, whole.memory_mb)), draw(st.integers(0, whole.gpus))
    )
    return PilotState(whole, free, draw(st.integers(0, 100)))


@given(demands, pilots())
def test_what_starts_fits_into_what_is_free_and_into_the_time_that_is_left(
    waiting: list[TaskDemand], pilot: PilotState
) -> None:
    started = [waiting[index] for index in to_start(waiting, pilot)]
    assert sum(each.slot.cpus for each in started) <= pilot.free.cpus
    assert sum(each.slot.memory_mb for each in started) <= pilot.free.memory_mb
    assert sum(each.slot.gpus for each in started) <= pilot.free.gpus
    assert all(each.seconds <= pilot.seconds_left for each in started)


@given(demands, pilots())
def test_no_task_overtakes_one_that_this_pilot_could_run(waiting: list[TaskDemand], pilot: PilotState) -> None:
    runnable = [index for index, demand in enumerate(waiting) if may_run(demand, pilot)]
    started = to_start(waiting, pilot)
    assert started == runnable[: len(started)]


@given(demands, wholes, st.integers(0, 100))
def test_an_empty_pilot_starts_the_first_task_that_it_may_run(
    waiting: list[TaskDemand], whole: Slot, left: int
) -> None:
    pilot = PilotState(whole, whole, left)
    runnable = [index for index, demand in enumerate(waiting) if may_run(demand, pilot)]
    assert to_start(waiting, pilot)[:1] == runnable[:1]


@given(queues, st.integers(1, 9))
def test_pilots_are_asked_for_only_while_a_task_is_ready_and_up_to_the_maximum(
    queue: PilotQueueState, most: int
) -> None:
    wanted = wanted_pilots(queue, most)
    tasks = queue.in_queue + queue.waiting + queue.running
    assert wanted <= most
    assert (wanted == 0) == (queue.waiting + queue.running == 0)
    assert wanted in (0, most) or wanted * queue.slots >= tasks


@given(queues)
def test_no_slot_of_a_running_pilot_stays_free_while_tasks_wait(queue: PilotQueueState) -> None:
    ready = to_hand_over(queue) + queue.waiting
    assert ready >= (queue.running_pilots * queue.slots - queue.running if queue.running_pilots else queue.slots)


@given(queues)
def test_what_is_handed_over_ahead_is_bounded_by_what_ended_lately(queue: PilotQueueState) -> None:
    given = to_hand_over(queue)
    free = max(queue.running_pilots * queue.slots - queue.running, 0) if queue.running_pilots else queue.slots
    assert given <= max(free - queue.waiting, 0) + queue.running_pilots + 2 * queue.ended + 1
