"""Programs that outlive this process, and this process in the background."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NoReturn

from hpc_agent.child_processes import (
    start_tracked,
)
from hpc_agent.errors import ProcessError
from hpc_agent.process.programs import wait_for


class Helper:
    """Helper program of ours that works for as long as it gets input; it may outlive this process."""

    def __init__(
        self,
        argv: Sequence[str],
        *,
        stdin: int,
        stderr: int,
        stdout: int = subprocess.DEVNULL,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
    ) -> None:
        """
        Raises:
            ProcessError: it could not be started.
        """
        try:
            self._child = start_tracked(
                lambda: subprocess.Popen(
                    list(argv),
                    stdin=stdin,
                    stdout=stdout,
                    stderr=stderr,
                    env=dict(env) if env is not None else None,
                    cwd=cwd,
                    start_new_session=True,
                )
            )
        except OSError as error:
            raise ProcessError(f"could not start {argv[0]}: {error.strerror or error}") from error

    @property
    def pid(self) -> int:
        return self._child.pid

    def wait(self, timeout: float | None = None) -> int | None:
        """Its exit code, or None if it still works after ``timeout`` seconds."""
        return wait_for(self._child, timeout)


def spawn_detached(
    argv: Sequence[str],
    *,
    env: Mapping[str, str],
    cwd: Path,
    output: Path,
    first: Callable[[], None] | None = None,
    pass_fds: Sequence[int] = (),
) -> int:
    """Start a program that outlives us, output appended to a file; returns its pid, which leads a group of its own.

    ``first`` is called in the new process before it becomes the program; only for callers without other threads.
    ``pass_fds``: descriptors that it inherits.

    Raises:
        ProcessError: it could not be started.
    """
    try:
        with output.open("ab") as sink:
            child = subprocess.Popen(
                list(argv),
                stdin=subprocess.DEVNULL,
                stdout=sink,
                stderr=subprocess.STDOUT,
                env=dict(env),
                cwd=cwd,
                start_new_session=True,
                preexec_fn=first,
                pass_fds=pass_fds,
            )
    except OSError as error:
        raise ProcessError(f"could not start {argv[0]}: {error.strerror or error}") from error
    # Not ours to wait for: Popen would warn about it when collected.
    child.returncode = 0
    return child.pid


def replace_process(argv: Sequence[str]) -> NoReturn:
    """Become another program, found on ``PATH``: process id, open files and environment stay.

    Raises:
        ProcessError: it could not be started.
    """
    try:
        os.execvp(argv[0], list(argv))  # noqa: S606 - a list of arguments, no shell
    except OSError as error:
        raise ProcessError(f"{argv[0]} cannot be started: {error.strerror or error}") from error


def detach() -> tuple[bool, int]:
    """Split in two: one process goes on in the background, without terminal and output, in a session of its own; the
    other one reports to its user how that went.

    Returns (True, descriptor to write to) in the background, (False, descriptor to read from) in the foreground. The
    reader sees the end when the background has closed its end, or died.
    """
    reads, writes = os.pipe()
    child = os.fork()
    if child:
        os.close(writes)
        os.waitpid(child, 0)
        return False, reads
    os.setsid()
    if os.fork():
        # Its child does not lead a session: a terminal that it opens does not become its own.
        os._exit(0)
    os.close(reads)
    nothing = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(nothing, descriptor)
    os.close(nothing)
    return True, writes


def send_output_to(path: Path) -> None:
    """Append what this process prints from now on, and its last traceback, to a file."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    for target in (1, 2):
        os.dup2(descriptor, target)
    os.close(descriptor)
