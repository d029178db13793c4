"""The simulated site of ``scripts/bench/site``: its daemons and tasks do what those of a real one do."""

from __future__ import annotations

from pathlib import Path

import pytest
from site_load.busy_server import waiting
from site_load.executors import EXECUTORS, Work
from site_load.simulation import DAEMONS, Size, simulate
from site_load.timeline import ProgramClock, Timeline

from hpc_agent.executor import watch

WORK = Work(seconds=150, line_every=30, ping_every=60, around={"tasks.started": 1})


def test_ended_tasks_are_followed_by_others_from_the_queue(tmp_path: Path) -> None:
    seen = simulate(tmp_path, Size(entries=200, daemons=2, running=10, seconds=300), WORK)
    # Ten tasks of 150 s each at all times: 20 end in 300 s, as many are submitted, and each one's end is recorded.
    assert 18 <= seen.ended <= 22
    assert 16 <= seen.commands["sbatch"] <= 24
    assert seen.traffic.requests[EXECUTORS, "tasks.started"] == seen.ended
    assert seen.commands["scancel"] == 0
    assert seen.traffic.requests[DAEMONS, "queues.get_all"] == pytest.approx(2 * 300 / 5, rel=0.4)


def test_running_tasks_ask_at_the_intervals_of_the_real_watch(tmp_path: Path) -> None:
    seen = simulate(tmp_path, Size(entries=20, daemons=1, running=4, seconds=120), WORK)
    asked = seen.traffic.requests[EXECUTORS, "tasks.get_all"]
    assert asked == pytest.approx(4 * 120 / watch.STATUS_INTERVAL_S, rel=0.05)
    assert seen.traffic.requests[EXECUTORS, "events.add_batch"] == pytest.approx(4 * 120 / 30, abs=4)


def test_program_that_sleeps_does_not_hold_up_the_others() -> None:
    timeline, happened = Timeline(), []
    sleeper, other = ProgramClock(timeline), ProgramClock(timeline)

    def sleep() -> None:
        sleeper.sleep(100)
        happened.append(("sleeper", sleeper.monotonic()))

    timeline.after(1, sleep)
    timeline.after(2, lambda: happened.append(("other", other.monotonic())))
    timeline.run_until(10)
    assert happened == [("sleeper", 101.0), ("other", 2.0)]


def test_many_tasks_do_not_keep_a_server_from_answering_others() -> None:
    # 400 tasks would look 267 times a second, and the server answers 100 requests.
    paced, fixed = (waiting(400, 0.01, paced=paced) for paced in (True, False))
    assert fixed.answer_s > 2
    assert paced.answer_s < fixed.answer_s / 3
    assert paced.look_s < 1.2 * fixed.look_s, "an abort is noticed no later"


def test_tasks_look_as_often_as_they_like_while_the_server_answers_at_once() -> None:
    assert watch.status_interval(0.1) == watch.STATUS_INTERVAL_S
    assert watch.status_interval(0.5) == 5
    assert watch.status_interval(60) == watch.LONGEST_STATUS_INTERVAL_S
