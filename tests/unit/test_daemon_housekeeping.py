"""Housekeeping of a daemon: old run directories, nodes on which jobs die, queues that another one serves."""

from __future__ import annotations

import os
import shutil
import sys
import time
from datetime import timedelta
from pathlib import Path

import pytest
from manual_clock import ManualClock

from hpc_agent.daemon.nodes import DEATHS, BadNodes
from hpc_agent.daemon.prune import Pruner
from hpc_agent.daemon.served_queues import QueueLeases
from hpc_agent.domain.attempt import Attempt
from hpc_agent.domain.ids import AttemptId, QueueId, TaskId
from hpc_agent.lease import Lease
from hpc_agent.runs.attempt_records import DoneRecord
from hpc_agent.runs.directory import RunDirectory, RunsFolder
from hpc_agent.runs.session_folders import SessionFolders

QUEUE, OTHER = QueueId("a" * 32), QueueId("b" * 32)


def attempt(number: int, task: str = "0" * 32) -> Attempt:
    return Attempt(TaskId(task), AttemptId(f"{number:08}"))


class Runs:
    """A folder of runs, each settled so many days ago or not at all."""

    def __init__(self, folder: Path, clock: ManualClock) -> None:
        self.folder = RunsFolder(folder)
        self.sessions = SessionFolders(folder.parent / "sessions", self.folder)
        self._clock = clock

    def add(self, number: int, settled_days_ago: float | None) -> RunDirectory:
        run = self.folder.of(attempt(number)).create()
        if settled_days_ago is not None:
            at = self._clock.now() - timedelta(days=settled_days_ago)
            run.write_settled(DoneRecord(at=at, why="completed"))
        return run


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def runs(tmp_path: Path, clock: ManualClock) -> Runs:
    return Runs(tmp_path / "runs", clock)


class TestPruner:
    def test_a_run_directory_is_made_though_a_sweep_removes_its_tasks_empty_folder(self, runs: Runs) -> None:
        new = runs.folder.of(attempt(1))
        swept: list[str] = []

        def sweep(event: str, arguments: tuple[object, ...]) -> None:
            if event == "os.mkdir" and str(arguments[0]) == str(new.path) and not swept:
                swept.append(event)
                runs.folder.drop_if_empty(new.attempt.task)

        sys.addaudithook(sweep)  # called just before
        new.create()
        assert swept and new.path.is_dir()

    def test_settled_runs_are_removed_when_they_are_old_enough(self, runs: Runs, clock: ManualClock) -> None:
        old, young, open_run = runs.add(1, 31), runs.add(2, 29), runs.add(3, None)
        Pruner(runs.folder, runs.sessions, 30, clock).turn(wait=True)
        assert [run.path.exists() for run in (old, young, open_run)] == [False, True, True]

    def test_the_folder_of_a_task_goes_with_its_last_run(self, runs: Runs, clock: ManualClock) -> None:
        old = runs.add(1, 31)
        Pruner(runs.folder, runs.sessions, 30, clock).turn(wait=True)
        assert not old.path.parent.exists()
        assert runs.folder.tasks() == []

    def test_it_looks_a_few_times_a_day(self, runs: Runs, clock: ManualClock) -> None:
        pruner = Pruner(runs.folder, runs.sessions, 30, clock)
        pruner.turn(wait=True)
        late = runs.add(1, 31)
        clock.advance(hours=5.9)
        pruner.turn(wait=True)
        assert late.path.exists()
        Pruner(runs.folder, runs.sessions, 30, clock).turn(wait=True)
        assert late.path.exists(), "another process has swept"
        clock.advance(hours=0.2)
        pruner.turn(wait=True)
        assert not late.path.exists()

    def test_the_folder_of_a_session_goes_with_the_last_run_of_its_task(self, runs: Runs, clock: ManualClock) -> None:
        days = {"over": 31, "without a task": 31, "waits": 31, "young": 29}
        folders = {name: runs.sessions.create() for name in days}
        runs.add(1, 31)
        runs.folder.of(attempt(1, "1" * 32)).create()
        for name, task in (("over", "0" * 32), ("waits", "1" * 32), ("young", "2" * 32)):
            runs.sessions.set_task(folders[name], TaskId(task))
        for name, folder in folders.items():
            at = (clock.now() - timedelta(days=days[name])).timestamp()
            os.utime(folder, (at, at))
        Pruner(runs.folder, runs.sessions, 30, clock).turn(wait=True)
        assert {name for name, folder in folders.items() if folder.exists()} == {"waits", "young"}

    def test_zero_days_keep_them_forever(self, runs: Runs, clock: ManualClock) -> None:
        old, session = runs.add(1, 10_000), runs.sessions.create()
        os.utime(session, (1, 1))
        Pruner(runs.folder, runs.sessions, 0, clock).turn(wait=True)
        assert old.path.exists()
        assert session.exists()

    def test_the_folder_of_an_array_goes_with_the_last_run_of_its_jobs(self, runs: Runs, clock: ManualClock) -> None:
        old, young = runs.add(1, 31), runs.add(2, 29)
        of_old, of_both, new = (runs.folder.path / ".arrays" / name for name in ("1", "2", "3"))
        for folder, members in ((of_old, [old]), (of_both, [old, young]), (new, [])):
            folder.mkdir(parents=True)
            for index, run in enumerate(members):
                (folder / str(index)).symlink_to(run.path)
            at = 1.0 if members else time.time()
            os.utime(folder, (at, at))
        Pruner(runs.folder, runs.sessions, 30, clock).turn(wait=True)
        assert [folder.exists() for folder in (of_old, of_both, new)] == [False, True, True]

    def test_a_record_that_cannot_be_read_keeps_its_run(self, runs: Runs, clock: ManualClock) -> None:
        broken = runs.add(1, 31)
        (broken.path / "settled.json").write_text("{", encoding="utf-8")
        Pruner(runs.folder, runs.sessions, 30, clock).turn(wait=True)
        assert broken.path.exists()


class TestBadNodes:
    def test_a_node_is_avoided_after_several_deaths(self, tmp_path: Path, clock: ManualClock) -> None:
        nodes = BadNodes(tmp_path / "nodes.json", clock)
        assert [nodes.blame("n1", attempt(number)) for number in range(DEATHS)] == [False] * (DEATHS - 1) + [True]
        assert nodes.avoided() == ["n1"]

    def test_one_job_counts_once(self, tmp_path: Path, clock: ManualClock) -> None:
        nodes = BadNodes(tmp_path / "nodes.json", clock)
        assert not any(nodes.blame("n1", attempt(1)) for _ in range(DEATHS + 1))
        assert nodes.avoided() == []

    def test_it_is_used_again_after_a_day(self, tmp_path: Path, clock: ManualClock) -> None:
        nodes = BadNodes(tmp_path / "nodes.json", clock)
        for number in range(DEATHS):
            nodes.blame("n1", attempt(number))
        clock.advance(hours=24.1)
        assert nodes.avoided() == []

    def test_a_file_that_cannot_be_read_or_written_avoids_none(self, tmp_path: Path, clock: ManualClock) -> None:
        path = tmp_path / "nodes.json"
        path.write_text("{", encoding="utf-8")
        assert BadNodes(path, clock).avoided() == []
        (tmp_path / "file").touch()
        nodes = BadNodes(tmp_path / "file" / "nodes.json", clock)
        assert not nodes.blame("n1", attempt(1))
        assert nodes.avoided() == []


class TestTurns:
    def test_a_queue_is_served_by_one_and_passes_on(self, tmp_path: Path, clock: ManualClock) -> None:
        first, second = (QueueLeases(tmp_path, [QUEUE], clock) for _ in range(2))
        assert first.ours() == {QUEUE}
        assert second.ours() == frozenset()
        first.give_back()
        assert second.ours() == {QUEUE}
        second.give_back()

    def test_another_queue_is_added(self, tmp_path: Path, clock: ManualClock) -> None:
        turns = QueueLeases(tmp_path, [QUEUE], clock)
        turns.also(OTHER)
        turns.also(OTHER)
        assert turns.ours() == {QUEUE, OTHER}
        turns.give_back()

    def test_a_lease_that_was_lost_ends_the_service_and_does_not_block_it(
        self, tmp_path: Path, clock: ManualClock
    ) -> None:
        turns = QueueLeases(tmp_path, [QUEUE], clock)
        assert turns.ours() == {QUEUE}
        # Taken for dead and replaced by another, as after a suspended login node.
        [owner] = (tmp_path / QUEUE).glob("owner*")
        owner.unlink()
        other = Lease(tmp_path / QUEUE, clock)
        assert other.acquire()
        assert turns.ours() == frozenset()
        other.release()
        assert turns.ours() == {QUEUE}
        turns.give_back()

    def test_the_queue_of_a_daemon_that_beats_no_more_is_taken_over(self, tmp_path: Path, clock: ManualClock) -> None:
        # On this clock, nothing in the background beats.
        silent = QueueLeases(tmp_path, [QUEUE], clock)
        assert silent.ours() == {QUEUE}
        turns = QueueLeases(tmp_path, [QUEUE], clock)
        turns.wait_for_one()
        assert turns.ours() == {QUEUE}
        assert 60 <= clock.monotonic() <= 90
        assert silent.ours() == frozenset()
        turns.give_back()

    def test_it_does_not_wait_for_a_queue_that_is_free(self, tmp_path: Path, clock: ManualClock) -> None:
        turns = QueueLeases(tmp_path, [QUEUE], clock)
        turns.wait_for_one()
        assert clock.monotonic() == 0
        turns.give_back()


class TestOpenAttempts:
    """The index of attempts that are not settled, without which a daemon lists all run directories."""

    def test_has_the_attempts_whose_directories_were_made_and_not_settled(self, runs: Runs, clock: ManualClock) -> None:
        index = runs.folder.open_attempts
        runs.folder.of(attempt(1)).create()
        assert index.load() is None
        index.mark_complete()
        settled = runs.folder.of(attempt(2)).create()
        assert index.load() == {attempt(1), attempt(2)}
        settled.write_settled(DoneRecord(at=clock.now(), why="completed"))
        assert index.load() == {attempt(1)}

    def test_a_directory_that_was_deleted_and_made_again_is_in_it_again(self, runs: Runs) -> None:
        index = runs.folder.open_attempts
        index.mark_complete()
        run = runs.folder.of(attempt(1)).create()
        index.remove(attempt(1))
        run.create()
        assert index.load() == set()
        shutil.rmtree(run.path)
        run.create()
        assert index.load() == {attempt(1)}

    def test_a_sweep_adds_what_another_version_made(self, runs: Runs, clock: ManualClock) -> None:
        index = runs.folder.open_attempts
        index.mark_complete()
        runs.add(1, 1)
        runs.folder.of(attempt(2)).create()
        index.remove(attempt(2))
        Pruner(runs.folder, runs.sessions, 0, clock).turn(wait=True)
        assert index.load() == {attempt(2)}

    def test_a_sweep_drops_what_never_got_a_directory(self, runs: Runs, clock: ManualClock) -> None:
        index = runs.folder.open_attempts
        index.mark_complete()
        index.add(attempt(1))
        index.add(attempt(2))
        os.utime(index.path / f"{attempt(1).task}.{attempt(1).id}", (1, 1))
        Pruner(runs.folder, runs.sessions, 0, clock).turn(wait=True)
        assert index.load() == {attempt(2)}
