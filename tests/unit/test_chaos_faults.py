"""What the chaos run notes of its faults, where Slurm does not tell at once."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from faults import chaos_faults
from faults.chaos_faults import Fault, Troublemaker
from faults.chaos_rows import Row

FAULT = Fault("cancelled by hand", pause=1, seconds=3, choice=0.0)


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> Iterator[SimpleNamespace]:
    """Seconds that pass only while a fault waits."""
    clock = SimpleNamespace(seconds=100.0)

    def sleep(seconds: float) -> None:
        clock.seconds += seconds

    monkeypatch.setattr(chaos_faults, "time", SimpleNamespace(time=lambda: clock.seconds, sleep=sleep))
    yield clock


def troublemaker(**site: Any) -> Troublemaker:
    return Troublemaker(SimpleNamespace(**site), server=None)  # type: ignore[arg-type]


def test_a_node_counts_as_given_up_from_when_it_was_last_known_to_be_up(clock: SimpleNamespace) -> None:
    """slurmctld may take it for dead and be away before it can be asked: its jobs end in between."""
    states = iter([{"n1": "idle*"}, {"n1": "mixed*"}, {}, {}, {}, {"n1": "down*"}])
    trouble = troublemaker(cluster=SimpleNamespace(node_states=lambda: next(states)))
    assert trouble._until_down("n1", since=100.0) == 101.0
    assert clock.seconds == 103.0


def test_a_node_that_was_never_asked_about_may_be_down_since_it_was_stopped() -> None:
    states = iter([{}, {"n1": "down"}])
    trouble = troublemaker(cluster=SimpleNamespace(node_states=lambda: next(states)))
    assert trouble._until_down("n1", since=99.0) == 99.0


@pytest.mark.parametrize(("code", "made"), [(0, True), (1, False)])
def test_a_requeue_that_was_refused_is_none_and_a_scancel_is_noted_whatever_it_says(code: int, made: bool) -> None:
    row = Row("task", "7", "RUNNING", "n1", "main")
    asked: list[tuple[str, ...]] = []

    def slurm(*argv: str) -> SimpleNamespace:
        asked.append(argv)
        return SimpleNamespace(returncode=code, stdout="")

    trouble = troublemaker(slurm=slurm, rows=lambda: [] if len(asked) > 1 else [row], ahead_of=lambda _task: 5.0)
    trouble.stopping = True  # no wait for another victim
    assert trouble.requeue(FAULT) is made
    asked.clear()
    assert trouble.cancel(FAULT)
    [hit] = [hit for hit in trouble.hits if hit.cancels]
    assert (hit.job, hit.tasks) == ("7", frozenset({"task"}))


def test_an_urgent_job_whose_sbatch_failed_may_have_preempted_others() -> None:
    row = Row("task", "7", "RUNNING", "n1", "scavenge")

    def slurm(*argv: str) -> SimpleNamespace:
        return SimpleNamespace(returncode=argv[0] == "sbatch", stdout="")

    trouble = troublemaker(slurm=slurm, rows=lambda: [row], ahead_of=lambda _task: 5.0)
    assert not trouble.preempt(FAULT)
    [hit] = trouble.hits
    assert (hit.node, hit.partition) == ("n1", "scavenge")
