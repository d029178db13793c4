"""How fast waiting tasks become jobs: a daemon's pass against a bare loop of sbatch, and one task on an idle system."""

from __future__ import annotations

import os
import statistics
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from hpc_agent.config.settings import AllSettings
from hpc_agent.domain.ids import TaskId
from hpc_agent.request_counts import COUNTS
from hpc_agent.runs.directory import RunDirectory, RunsFolder
from scale.site import ScaleSite, cancel_all, goal, listed_jobs

if TYPE_CHECKING:
    from _typeshed import FileDescriptorLike

RATE = 0.8
"""Of the rate of a bare loop, at least."""
ARRAYS_S = 2.0
"""For a thousand tasks, at most."""
TIMES = 5
"""The rate of jobs of their own, at least."""
LATE_S = 0.3
"""How much more than the poll interval a single task may take to become a job."""
POLL_S = 1.0
HANGS_S = 120.0
LOOP = "for _ in $(seq {count}); do sbatch --hold --parsable --output=/dev/null {script} >/dev/null; done"


def one_by_one(site: ScaleSite, count: int, rounds: int) -> Mapping[str, object]:
    """``count`` tasks become held jobs, the rate limit lifted, in turn with a shell loop that submits a script of
    theirs as often."""
    ours, loop, made = [], [], Counts()
    for number in range(rounds):
        seconds, settings = _submit_all(site, f"bulk-{number}", count, [], made)
        ours.append(seconds)
        script = next(settings.hpc.runs.glob("*/*/job.sbatch"))
        cancel_all()
        argv = ["bash", "-c", LOOP.format(count=count, script=script)]
        loop.append(_seconds(lambda argv=argv: subprocess.run(argv, check=True)))  # type: ignore[misc]
        cancel_all()
    ratio = statistics.median(loop) / statistics.median(ours)
    return {
        "tasks": count,
        "seconds": {"ours": [round(each, 3) for each in ours], "loop of sbatch": [round(each, 3) for each in loop]},
        "for each task": made.for_each(count * rounds),
        "goals": [goal("one by one: rate of a bare loop of sbatch", ratio, RATE, at_least=True)],
    }


def as_arrays(site: ScaleSite, count: int, rounds: int) -> Mapping[str, object]:
    """``count`` tasks become held jobs as job arrays, in turn with as many that become jobs of their own."""
    together, alone, made = [], [], Counts()
    for number in range(rounds):
        more = [f"slurm.array_size: {count}"]
        together.append(_submit_all(site, f"arrays-{number}", count, more, made)[0])
        cancel_all()
        alone.append(_submit_all(site, f"alone-{number}", count, [], Counts())[0])
        cancel_all()
    seconds = statistics.median(together)
    ratio = statistics.median(alone) / seconds
    return {
        "tasks": count,
        "seconds": {"as arrays": [round(each, 3) for each in together], "alone": [round(each, 3) for each in alone]},
        "for each task": made.for_each(count * rounds),
        "goals": [
            goal(f"{count} tasks as arrays: seconds", seconds, ARRAYS_S * count / 1000),
            goal("as arrays: times the rate of jobs of their own", ratio, TIMES, at_least=True),
        ],
    }


def _submit_all(site: ScaleSite, name: str, count: int, more: Sequence[str], made: Counts) -> tuple[float, AllSettings]:
    """Seconds that the first pass of a new daemon takes, which submits all tasks of its queue."""
    queue = site.client.queues.resolve(name, create=True)
    site.enqueue(queue, count)
    daemon, settings = site.daemon(name, queue, more)
    COUNTS.forget()
    with made.counted():
        seconds = _seconds(daemon.run_pass)
    assert listed_jobs() == count, f"{listed_jobs()} jobs of {count} tasks"
    return seconds, settings


class Counts:
    """What passes of this process cost others."""

    def __init__(self) -> None:
        self.fsyncs = 0
        self.requests = 0
        self.processor_seconds = 0.0

    @contextmanager
    def counted(self) -> Iterator[None]:
        real, lock = os.fsync, threading.Lock()

        def fsync(fd: FileDescriptorLike) -> None:
            with lock:
                self.fsyncs += 1
            real(fd)

        before, begun = COUNTS.so_far(), time.process_time()
        os.fsync = fsync
        try:
            yield
        finally:
            os.fsync = real
            self.processor_seconds += time.process_time() - begun
            self.requests += COUNTS.so_far() - before

    def for_each(self, tasks: int) -> Mapping[str, float]:
        return {
            "fsyncs": round(self.fsyncs / tasks, 2),
            "HTTP requests": round(self.requests / tasks, 2),
            "ms of our processor time": round(1000 * self.processor_seconds / tasks, 2),
        }


def single(site: ScaleSite, times: int) -> Mapping[str, object]:
    """A task is enqueued at any moment between two passes of an idle daemon; until its job is accepted."""
    queue = site.client.queues.resolve("single", create=True)
    daemon, settings = site.daemon("single", queue, [f"poll_interval: {POLL_S}"])
    running = threading.Thread(target=daemon.run)
    running.start()
    try:
        time.sleep(3 * POLL_S)
        took = []
        for number in range(times):
            time.sleep(POLL_S * number / times)
            [task] = site.enqueue(queue, 1)
            took.append(_seconds(lambda task=task: _wait_until_accepted(settings.hpc.runs, task)))  # type: ignore[misc]
    finally:
        daemon.stop()
        running.join()
        cancel_all()
    return {
        "seconds": [round(each, 3) for each in took],
        "goals": [goal("enqueued to accepted, one task, slowest", max(took), POLL_S + LATE_S)],
    }


def _wait_until_accepted(runs: Path, task: TaskId) -> None:
    deadline = time.monotonic() + HANGS_S
    while not any(_is_accepted(directory) for directory in RunsFolder(runs).attempts(task)):
        assert time.monotonic() < deadline, f"task {task} was not submitted in {HANGS_S:g} s"
        time.sleep(0.01)


def _is_accepted(directory: RunDirectory) -> bool:
    record = directory.submission()
    return record is not None and record.state == "accepted"


def _seconds(act: Callable[[], object]) -> float:
    begun = time.monotonic()
    act()
    return time.monotonic() - begun
