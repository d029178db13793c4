"""Folders of job arrays, ``runs/.arrays/<batch>/``: which element is which job.

All elements of an array have one name in Slurm. Here each has a link, named by its index, to its job's own folder, and
``members`` has the name of its job, one a line. Both are on disk before sbatch is called; neither is changed, but a
link is removed before its job is submitted again: then the element is not meant any more.
"""

from __future__ import annotations

import re
import secrets
import threading
from collections.abc import Sequence
from pathlib import Path

import msgspec

from hpc_agent.domain.ids import JobId
from hpc_agent.file_records import Durability, ensure_directory, fsync_directory, write_atomic
from hpc_agent.schedulers.base import SubmitRequest

_PREFIX = "clearml_array_"
_NAME = re.compile(rf"{_PREFIX}(?P<batch>[0-9a-f]{{16}})")
_ELEMENT = re.compile(r"(?P<array>[0-9]+)_(?P<index>[0-9]+)")


class Element(msgspec.Struct, frozen=True):
    """Element of an array. ``array``: the name that Slurm knows it by."""

    array: str
    index: int


class ArrayFolder(msgspec.Struct, frozen=True):
    path: Path

    @property
    def name(self) -> str:
        """Of its array, in Slurm."""
        return f"{_PREFIX}{self.path.name}"

    @property
    def script(self) -> Path:
        return self.path / "array.sbatch"

    def link(self, index: int) -> Path:
        return self.path / str(index)

    def write(self, requests: Sequence[SubmitRequest], script: str) -> None:
        """Returns when all is on disk.

        Raises:
            OSError: it is not.
        """
        for index, request in enumerate(requests):
            self.link(index).symlink_to(request.workdir)
        members = "".join(f"{request.job_name}\n" for request in requests)
        write_atomic(self.path / "members", members.encode(), mode=0o600, durability=Durability.EITHER)
        write_atomic(self.script, script.encode(), mode=0o700, durability=Durability.EITHER)
        fsync_directory(self.path)
        fsync_directory(self.path.parent)

    def members(self) -> tuple[str, ...]:
        """Names of its jobs, by index; empty where they cannot be read, or are not written yet."""
        try:
            return tuple((self.path / "members").read_text(encoding="utf-8").splitlines())
        except OSError:
            return ()


def is_array_name(name: str) -> bool:
    """Whether Slurm calls an array of ours so, which an element's own name has not taken the place of."""
    return _NAME.fullmatch(name) is not None


class ArrayFolders:
    """All arrays of one folder of run directories. Safe to share between threads."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._members: dict[str, tuple[str, ...]] = {}
        """By batch; they never change."""
        self._batches: dict[str, list[str]] = {}
        """By the name of a job."""
        self._lock = threading.Lock()

    def create(self) -> ArrayFolder:
        """A new one, empty."""
        ensure_directory(self._path, mode=0o700)
        return self._folder(ensure_directory(self._path / secrets.token_hex(8), mode=0o700).name)

    def job_name(self, array: str, job: JobId) -> str | None:
        """The job's own name, by what Slurm calls it; None for any that is not an element of ours."""
        batch, element = _NAME.fullmatch(array), _ELEMENT.fullmatch(job)
        if batch is None or element is None:
            return None
        members, index = self._members_of(batch["batch"]), int(element["index"])
        return members[index] if index < len(members) else None

    def elements(self, job_name: str) -> list[Element]:
        """Those that are meant to be the job of this name."""
        for batch in self._listed() - self._members.keys():
            self._members_of(batch)
        found = []
        for batch in self._batches.get(job_name, ()):
            index = self._members[batch].index(job_name)
            if self._folder(batch).link(index).is_symlink():
                found.append(Element(self._folder(batch).name, index))
        return found

    def drop(self, job_name: str) -> None:
        """No element is this job from now on.

        Raises:
            OSError: that could not be written.
        """
        for element in self.elements(job_name):
            folder = self._folder(element.array.removeprefix(_PREFIX))
            folder.link(element.index).unlink(missing_ok=True)
            fsync_directory(folder.path)

    def _folder(self, batch: str) -> ArrayFolder:
        return ArrayFolder(self._path / batch)

    def _members_of(self, batch: str) -> tuple[str, ...]:
        with self._lock:
            if batch not in self._members and (members := self._folder(batch).members()):
                self._members[batch] = members
                for name in members:
                    self._batches.setdefault(name, []).append(batch)
            return self._members.get(batch, ())

    def _listed(self) -> set[str]:
        try:
            names = {path.name for path in self._path.iterdir()}
        except FileNotFoundError:
            return set()
        return {name for name in names if _NAME.fullmatch(f"{_PREFIX}{name}")}
