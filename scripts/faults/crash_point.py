"""``hpc-agent``, but for one moment: it is killed before or after its k-th call to the outside.

    CRASH='{"command": "daemon", "at": 17, "when": "after", "mark": "/…/crashed", "log": "/…/doors"}' \
        python -m faults.crash_point daemon --queue …

Counted are the doors through which anything outside changes or is asked: HTTP requests, programs, records on disk. Only
the first process that gets there dies: it leaves ``mark``. Every door that is passed goes as a line into ``log``.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any


class CrashPoint:
    def __init__(self, at: int, when: str, mark: Path, log: Path) -> None:
        self._at = at
        self._when = when
        self._mark = mark
        self._log = log
        self._count = 0
        self._lock = threading.Lock()

    def wrap(self, owner: Any, name: str, label: Callable[..., str]) -> None:
        """Make ``owner.name`` a door."""
        through = getattr(owner, name)

        def door(*args: Any, **kwargs: Any) -> Any:
            with self._lock:
                self._count += 1
                number = self._count
            self._note(number, label(*args, **kwargs))
            if (number, self._when) == (self._at, "before"):
                self._die()
            try:
                return through(*args, **kwargs)
            finally:
                if (number, self._when) == (self._at, "after"):
                    self._die()

        setattr(owner, name, door)

    def _note(self, number: int, label: str) -> None:
        line = f"{os.getpid()} {number} {label}\n".encode()
        descriptor = os.open(self._log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        os.write(descriptor, line)
        os.close(descriptor)

    def _die(self) -> None:
        try:
            os.close(os.open(self._mark, os.O_CREAT | os.O_EXCL))
        except FileExistsError:
            return
        os.kill(os.getpid(), signal.SIGKILL)
        return


def install(point: CrashPoint) -> None:
    """Before anything imports a name out of these modules."""
    from hpc_agent import files

    point.wrap(files, "write_atomic", lambda path, *_, **__: f"write {path.name}")
    point.wrap(files, "rename_new", lambda _source, target: f"publish {target.name}")
    point.wrap(os, "link", lambda _source, target, **_: f"link {Path(target).name}")
    point.wrap(Path, "rename", lambda path, _target: f"rename {path.name}")

    from hpc_agent import process

    point.wrap(process, "run", lambda argv, **_: f"run {Path(argv[0]).name}")
    point.wrap(process, "spawn_detached", lambda argv, **_: f"spawn {Path(argv[0]).name}")
    point.wrap(process.Supervised, "__init__", lambda *_, **__: "start the task's process")

    from hpc_agent.api import session

    point.wrap(session.Session, "_send", lambda _self, _path, endpoint, *_: f"call {endpoint}")

    from hpc_agent.telemetry import spool

    point.wrap(spool.Spool, "write", lambda *_: "write the console")


def main() -> None:
    from hpc_agent.cli.main import main as hpc_agent

    crash = json.loads(os.environ.get("CRASH") or "{}")
    if crash and crash["command"] in sys.argv[1:2]:
        install(CrashPoint(crash["at"], crash["when"], Path(crash["mark"]), Path(crash["log"])))
    hpc_agent()


if __name__ == "__main__":
    main()
