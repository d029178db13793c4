"""Files that are written together: each is there whole or not at all, and who was first stays first."""

from __future__ import annotations

import os
import stat
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from hpc_agent.file_batches import FileWrite, write_together

NAMES = ("os.link", "os.rename")
_seen: list[list[str]] = []


def _note(event: str, arguments: tuple[object, ...]) -> None:
    if _seen and event in NAMES:
        _seen[-1].append(Path(str(arguments[1])).name)


sys.addaudithook(_note)


@contextmanager
def names_given() -> Iterator[list[str]]:
    """The names that files get inside, in order."""
    _seen.append([])
    try:
        yield _seen[-1]
    finally:
        _seen.pop()


def folders(tmp_path: Path, count: int) -> list[Path]:
    found = [tmp_path / f"run {number}" for number in range(count)]
    for folder in found:
        folder.mkdir()
    return found


def test_all_are_written_in_order_each_with_its_mode(tmp_path: Path) -> None:
    runs = folders(tmp_path, 40)
    scripts = [FileWrite(run / "job.sbatch", run.name.encode(), mode=0o700) for run in runs]
    records = [FileWrite.of_record(run / "submit.json", {"run": run.name}, is_first=True) for run in runs]
    with names_given() as names:
        assert write_together([*scripts, *records]) == [True] * 80
    assert names == ["job.sbatch"] * 40 + ["submit.json"] * 40
    for run in runs:
        assert sorted(path.name for path in run.iterdir()) == ["job.sbatch", "submit.json"]
        assert (run / "job.sbatch").read_bytes() == run.name.encode()
        assert stat.S_IMODE((run / "job.sbatch").stat().st_mode) == 0o700
        assert run.name in (run / "submit.json").read_text()


def test_one_that_is_there_is_left_as_it_is_and_the_others_are_written(tmp_path: Path) -> None:
    first, second = folders(tmp_path, 2)
    (first / "submit.json").write_bytes(b"another daemon's")
    writes = [FileWrite(run / "submit.json", b"ours", is_first=True) for run in (first, second)]
    assert write_together(writes) == [False, True]
    assert (first / "submit.json").read_bytes() == b"another daemon's"
    assert (second / "submit.json").read_bytes() == b"ours"
    assert [path.name for run in (first, second) for path in run.iterdir()] == ["submit.json"] * 2


def test_of_many_that_write_the_same_at_once_one_is_first(tmp_path: Path) -> None:
    runs = folders(tmp_path, 20)
    answers: list[list[bool]] = []

    def write(who: bytes) -> None:
        answers.append(write_together([FileWrite(run / "submit.json", who, is_first=True) for run in runs]))

    writers = [threading.Thread(target=write, args=(str(number).encode(),)) for number in range(4)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert [sum(each) for each in zip(*answers, strict=True)] == [1] * 20


def test_where_one_cannot_be_written_none_gets_its_name(tmp_path: Path) -> None:
    """Content comes first: a batch on a full disk leaves the records as they were."""
    runs = folders(tmp_path, 10)
    os.rmdir(runs[7])
    with names_given() as names, pytest.raises(FileNotFoundError):
        write_together([FileWrite(run / "submit.json", b"ours") for run in runs])
    assert names == []
    assert [path for run in runs if run.is_dir() for path in run.iterdir()] == []
