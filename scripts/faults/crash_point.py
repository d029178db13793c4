"""``hpc-agent``, but for one moment: it is killed before or after one of its calls to the outside.

    CRASH='{"command": "daemon", "door": "rename submit.json", "nth": 1, "when": "after", "mark": "/…/crashed",
            "log": "/…/doors"}' python -m faults.crash_point daemon --queue …

Counted are the doors through which anything outside changes or is asked: HTTP requests, programs that are started,
signals, lines of the console, and whatever makes, renames or removes a file or folder. A door is known by its label and
how often it was passed, for threads come in any order. What is done again and again at the pace of a clock is known by
the door before it in its thread: how often it was passed before differs from run to run. Only the first process that
gets there dies: it leaves ``mark``. Every door that is passed goes as a line into ``log``.

That no door is missing is watched by an audit hook of the interpreter: what it sees outside of a door goes into ``log``
as an escape, and the enumeration refuses to go on. What is written into a file that was opened in a door, and its
fsync, are not doors of their own: our records are written under temporary names that are not read.
"""

from __future__ import annotations

import builtins
import io
import json
import os
import re
import signal
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

ESCAPED = "ESCAPED"
SINCE = " since "
"""Between the label of a door that is passed again and again, and the door before it."""
SUPERVISOR = "supervisor"
"""How the local scheduler's process is named here."""
PACED = re.compile(
    r"call (?:queues\.get_all|tasks\.get_all|tasks\.ping|workers\.status_report|workers\.get_runtime_properties)|"
    r"unlink \.news/#\.#|open (?:owner|\S+\.beat)|open \.seen\.json\S*|rename seen\.json|(?:run|start) (?:squeue|sacct)"
)
"""What only looks, says that a process lives, or writes down for how long something was seen. News of a job are no
more than a reason to look: whether those of several come together is chance."""
_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
_FILES = ("rename", "link", "symlink", "remove", "rmdir", "mkdir", "chmod", "chown", "utime", "truncate", "setxattr")
_PROCESSES = ("kill", "killpg", "fork", "forkpty", "posix_spawn", "exec", "system")
_OTHERS = ("subprocess.Popen", "socket.connect", "socket.sendto", "sqlite3.connect")
_CHANGES = frozenset([*(f"os.{name}" for name in (*_FILES, *_PROCESSES)), *_OTHERS])


class CrashPoint:
    def __init__(self, door: str, nth: int, when: str, mark: Path, log: Path) -> None:
        self._door = door
        self._nth = nth
        self._when = when
        self._mark = mark
        self._log = log
        self._count: Counter[str] = Counter()
        self._lock = threading.Lock()
        self._inside = threading.local()

    def wrap(self, owner: Any, name: str, label: Callable[..., str | None]) -> None:
        """Make ``owner.name`` a door, where it has a label."""
        through = getattr(owner, name)

        def door(*args: Any, **kwargs: Any) -> Any:
            text = None if self._is_inside_ours() else label(*args, **kwargs)
            if text is None:
                return through(*args, **kwargs)
            here = self._pass(plain(text))
            if here and self._when == "before":
                self._die()
            depth = getattr(self._inside, "depth", 0)
            self._inside.depth = depth + 1
            try:
                return through(*args, **kwargs)
            finally:
                self._inside.depth = depth
                if here and self._when == "after":
                    self._die()

        setattr(owner, name, door)

    def watch(self) -> None:
        """Note what changes anything outside of a door."""

        def see(event: str, args: tuple[Any, ...]) -> None:
            if getattr(self._inside, "depth", 0) or self._is_inside_ours() or not _changes(event, args):
                return
            self._note(f"{threading.get_native_id()} {ESCAPED} {event} {args[:2]}")

        sys.addaudithook(see)

    def _pass(self, label: str) -> bool:
        """Count; True if it is here that we die."""
        is_paced = PACED.fullmatch(label) is not None
        if is_paced:
            label += f"{SINCE}{getattr(self._inside, 'last', 'the start')}"
        with self._lock:
            self._count[label] += 1
            number = self._count[label]
            self._note(f"{threading.get_native_id()} {number} {label}")
        if not is_paced:
            self._inside.last = f"{label} ({number})"
        return (label, number) == (self._door, self._nth)

    def _is_inside_ours(self) -> bool:
        return getattr(self._inside, "ours", False)

    def _note(self, text: str) -> None:
        self._inside.ours = True
        try:
            descriptor = os.open(self._log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
            os.write(descriptor, f"{os.getpid()} {text}\n".encode())
            os.close(descriptor)
        finally:
            self._inside.ours = False

    def _die(self) -> None:
        self._inside.ours = True
        try:
            os.close(os.open(self._mark, os.O_CREAT | os.O_EXCL))
        except FileExistsError:
            self._inside.ours = False
            return
        os.kill(os.getpid(), signal.SIGKILL)


def plain(label: str) -> str:
    """Without what differs from run to run: ids, hashes, process numbers."""
    label = re.sub(r"(?<![0-9A-Za-z])[0-9a-f]{8,}(?![0-9A-Za-z])", "#", label)
    return re.sub(r"\.\d+\.#", ".#", label)


def _changes(event: str, args: tuple[Any, ...]) -> bool:
    if event == "open":
        path, _, flags = args
        return bool(flags & _WRITES) and _is_outside(path) and not _is_lock(path)
    if event == "os.mkdir":
        return not Path(os.fsdecode(args[0])).is_dir()
    return event in _CHANGES


def _is_outside(path: object) -> bool:
    """Not a descriptor that is open already, a pseudo device, or the interpreter's own cache."""
    text = os.fspath(path) if isinstance(path, (str, bytes, os.PathLike)) else None
    if text is None:
        return False
    name = text.decode() if isinstance(text, bytes) else text
    return not name.startswith(("/dev/", "/proc/")) and "__pycache__" not in name


def _is_lock(path: Any) -> bool:
    """A file that is only ever locked: to open it again changes nothing."""
    return _name(path) == "lock" and Path(os.fsdecode(path)).exists()


def _name(path: Any) -> str:
    """Its last part; with the folder above where it consists of ids only."""
    if isinstance(path, int):
        return str(path)
    found = Path(os.fsdecode(path))
    above = next((folder.name for folder in found.parents if not _is_id(folder.name)), "") if _is_id(found.name) else ""
    return f"{above}/{found.name}" if above else found.name


def _is_id(name: str) -> bool:
    return re.fullmatch(r"#(?:\.#)?", plain(name)) is not None


def _opened(path: Any, flags: int) -> str | None:
    return f"open {_name(path)}" if flags & _WRITES and _is_outside(path) else None


def install(point: CrashPoint) -> None:
    """Before anything imports a name out of these modules."""
    for name in ("rename", "replace", "link", "symlink"):
        point.wrap(os, name, lambda _source, target, *_, _verb=name, **__: f"{_verb} {_name(target)}")
    # One that is there already is made again, and nothing happens.
    point.wrap(os, "mkdir", lambda path, *_, **__: None if Path(path).is_dir() else f"mkdir {_name(path)}")
    for name in ("rmdir", "unlink", "remove", "chmod", "utime", "truncate", "kill", "killpg"):
        point.wrap(os, name, lambda path, *_, _verb=name, **__: f"{_verb} {'' if 'kill' in _verb else _name(path)}")
    point.wrap(os, "open", lambda path, flags, *_, **__: _opened(path, flags))
    for owner in (builtins, io):
        point.wrap(
            owner, "open", lambda path, mode="r", *_, **__: f"open {_name(path)}" if _writes(path, mode) else None
        )
    point.wrap(subprocess.Popen, "__init__", lambda _self, argv, *_, **__: f"start {_name(argv[0])}")

    from hpc_agent.process import programs

    point.wrap(programs, "run", lambda argv, **_: f"run {_name(argv[0])}")

    from hpc_agent.api import session

    point.wrap(session.ApiSession, "_send", lambda _self, _path, endpoint, *_: f"call {endpoint}")

    from hpc_agent.telemetry import spool

    point.wrap(spool.Spool, "write", lambda *_: "write the console")
    point.wrap(spool.Spool, "remember", lambda *_: "write the mark")
    point.watch()


def _writes(path: Any, mode: str) -> bool:
    return bool(set(mode) & set("wax+")) and _is_outside(path) and not _is_lock(path)


def prepare(command: str) -> None:
    """Install the crash point, if it is one of ``command``."""
    crash = json.loads(os.environ.get("CRASH") or "{}")
    if crash and crash["command"] == command:
        install(CrashPoint(crash["door"], crash["nth"], crash["when"], Path(crash["mark"]), Path(crash["log"])))


def main() -> None:
    prepare(sys.argv[1] if len(sys.argv) > 1 else "")
    from hpc_agent.cli.main import main as hpc_agent

    hpc_agent()


if __name__ == "__main__":
    main()
