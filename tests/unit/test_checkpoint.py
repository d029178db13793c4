"""The checkpoint of a console: cheap to write, and never half of one is read."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from hpc_agent.telemetry.checkpoint import Batch, Checkpoint, CheckpointFile


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "console.offset"


def test_last_checkpoint_is_read_by_another_process(path: Path) -> None:
    file = CheckpointFile(path)
    for offset in range(1, 50):
        file.write(Checkpoint(offset, offset, sending=Batch((offset + 1,), offset + 1, "worker")))

    assert CheckpointFile(path).read() == Checkpoint(49, 49, sending=Batch((50,), 50, "worker"))


def test_no_file_or_an_unreadable_one_is_an_empty_checkpoint(path: Path) -> None:
    assert CheckpointFile(path).read() == Checkpoint()
    path.write_bytes(b"\0\0\0{")
    assert CheckpointFile(path).read() == Checkpoint()


@pytest.mark.parametrize("rest", [b'{"offset": 7, "timesta', b"\0\0\0\0\0", b'{"offset": "seven"}\n'])
def test_line_that_is_not_whole_leaves_the_one_before(path: Path, rest: bytes) -> None:
    CheckpointFile(path).write(Checkpoint(5, 6))
    with path.open("ab") as file:
        file.write(rest)

    assert CheckpointFile(path).read() == Checkpoint(5, 6)


def test_checkpoint_of_an_older_version_is_read(path: Path) -> None:
    path.write_bytes(b'{"offset":12,"timestamp_ms":3,"sending":null,"before":""}')

    assert CheckpointFile(path).read() == Checkpoint(12, 3)


def test_only_the_first_write_makes_a_new_file(path: Path) -> None:
    file = CheckpointFile(path)
    file.write(Checkpoint(1))
    inode = path.stat().st_ino
    file.write(Checkpoint(2))
    assert path.stat().st_ino == inode
    file.close()
    file.write(Checkpoint(3))
    assert path.stat().st_ino != inode
    assert CheckpointFile(path).read() == Checkpoint(3)


def test_process_taken_for_dead_does_not_write_into_the_file_of_its_successor(path: Path) -> None:
    dead, successor = CheckpointFile(path), CheckpointFile(path)
    dead.write(Checkpoint(1))
    successor.write(Checkpoint(10))
    os.link(path, path.with_name("kept"))
    before = path.read_bytes()
    dead.write(Checkpoint(2))

    assert path.with_name("kept").read_bytes() == before


def test_file_stays_small(path: Path) -> None:
    file = CheckpointFile(path)
    for offset in range(2000):
        file.write(Checkpoint(offset, sending=Batch((offset,), offset)))

    assert path.stat().st_size <= 64 * 1024
    assert CheckpointFile(path).read().offset == 1999


def test_checkpoint_goes_into_a_new_file_where_the_open_file_fails(path: Path) -> None:
    file = CheckpointFile(path)
    file.write(Checkpoint(1))
    path.unlink()
    file.write(Checkpoint(2))

    assert CheckpointFile(path).read() == Checkpoint(2)


def test_refused_write_is_an_error(path: Path) -> None:
    file = CheckpointFile(path)
    file.write(Checkpoint(1))
    path.unlink()
    path.parent.rmdir()

    with pytest.raises(FileNotFoundError):
        file.write(Checkpoint(2))
