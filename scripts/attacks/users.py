"""Two Unix users in addition to root, who share a group: what one of them does, in a process of its own."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

LAB = 61_100
"""The group of both. None of the numbers needs a name."""


@dataclass(frozen=True)
class User:
    uid: int
    groups: tuple[int, ...]


OWNER = User(61_001, (61_001, LAB))
COLLEAGUE = User(61_002, (61_002, LAB))
STRANGER = User(61_003, (61_003,))


def as_user(user: User, call: Callable[[], str], *, umask: int = 0o022, group: int | None = None) -> str:
    """What ``call`` returns when that user calls it. ``group``: what new files belong to.

    Raises:
        RuntimeError: it raised something.
    """
    reads, writes = os.pipe()
    child = os.fork()
    if not child:
        try:
            os.close(reads)
            os.setgroups(list(user.groups))
            os.setgid(user.groups[0] if group is None else group)
            os.setuid(user.uid)
            os.umask(umask)
            os.environ["HOME"] = "/nonexistent"
            answer = {"said": call()}
        except BaseException:  # noqa: BLE001 - reported to the parent
            answer = {"raised": traceback.format_exc()}
        os.write(writes, json.dumps(answer).encode()[:60_000])
        os._exit(0)
    os.close(writes)
    with os.fdopen(reads, "rb") as answer_of_child:
        said = answer_of_child.read()
    os.waitpid(child, 0)
    answer = json.loads(said)
    if "raised" in answer:
        raise RuntimeError(answer["raised"])
    return str(answer["said"])


@contextmanager
def ground() -> Iterator[Path]:
    """A folder where all of them meet, as a shared file system's: no user's home, sticky."""
    folder = Path(tempfile.mkdtemp(prefix="hpc-agent-users-", dir="/tmp"))
    folder.chmod(0o1777)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
