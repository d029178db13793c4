"""Children that run for long, and end when this process does."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import msgspec

from hpc_agent.child_processes import (
    become_subreaper,
    reap_orphans,
    reaped,
    start_tracked,
    surviving_descendants,
)
from hpc_agent.errors import ProcessError
from hpc_agent.process.programs import kill_group, wait_for


class StopTimeouts(msgspec.Struct, frozen=True):
    """Timeouts of the steps TERM → (INT →) KILL, in seconds."""

    term: float = 10.0
    interrupt: float = 1.5
    """From SIGTERM to SIGINT for programs that do not end at SIGTERM by themselves; 0: no SIGINT."""
    kill: float = 5.0


class Supervised:
    """A long-running child in a session and process group of its own.

    Its output goes straight to a file: what it printed is not lost with us, and no wait depends on a pipe that
    a grandchild holds open.
    """

    def __init__(
        self, argv: Sequence[str], *, env: Mapping[str, str], cwd: Path, output: int, forwards_signals: bool = False
    ) -> None:
        """``output`` is an open file descriptor for stdout and stderr; it stays the caller's.

        ``forwards_signals``: the child forwards signals to what it started and waits for its end, as podman does. Its
        helpers would take a signal as their own.

        Raises:
            ProcessError: it could not be started.
        """
        self._forwards_signals = forwards_signals
        become_subreaper()
        self._child = _start_bound(argv, env=env, cwd=cwd, output=output)

    @property
    def pid(self) -> int:
        return self._child.pid

    def poll(self) -> int | None:
        """The exit code (negative: the signal that ended it), or None while it runs."""
        return self._child.poll()

    def wait(self, timeout: float | None = None) -> int | None:
        """As ``poll``, after waiting up to ``timeout`` seconds."""
        try:
            return self._child.wait(timeout)
        except subprocess.TimeoutExpired:
            return None

    def signal(self, number: int) -> bool:
        """Signal the child and all that descends from it, whatever session it moved to; False when all are gone."""
        kill_group(self.pid, number)
        reap_orphans()
        if self._forwards_signals:
            return self.poll() is None
        found = surviving_descendants(self.pid)
        for pid in found:
            # Those of the group have it already: a second TERM changes nothing.
            with contextlib.suppress(ProcessLookupError, PermissionError):
                if os.getpgid(pid) != self.pid:
                    os.kill(pid, number)
        return bool(found)

    def signal_chosen(self, number: int, chosen: Callable[[int], bool]) -> list[int]:
        """Signal those of the child and its descendants whose pid is ``chosen``; returns them."""
        found = [pid for pid in surviving_descendants(self.pid) if chosen(pid)]
        for pid in found:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, number)
        return found

    def has_left_processes(self) -> bool:
        """Whether something that the child started lives on after its end."""
        return not self._forwards_signals and bool(surviving_descendants(self.pid))

    def reap_orphans(self) -> None:
        """Reap what was adopted and has ended."""
        reap_orphans()

    def sweep(self, pause: Callable[[], None]) -> None:
        """Kill all that it left behind, over and over: they may fork faster than one look at them takes."""
        for _ in range(_SWEEPS):
            if not self.signal(signal.SIGKILL):
                return
            pause()


_SWEEPS = 20
_LAUNCHER = Path(__file__).parent.with_name("exec_launcher.py")


def _start_bound(
    argv: Sequence[str],
    *,
    env: Mapping[str, str],
    cwd: Path,
    output: int,
    stdin: int = subprocess.DEVNULL,
    errors_to: int = subprocess.STDOUT,
) -> subprocess.Popen[bytes]:
    """Start a program that the kernel kills when the calling thread ends, whatever it ends of: a task must not run on
    at the same time as its next start when this agent was killed.

    Raises:
        ProcessError: it could not be started.
    """
    reads, writes = os.pipe()
    launcher = [sys.executable, "-I", "-S", str(_LAUNCHER), str(os.getpid()), str(writes)]
    try:
        with os.fdopen(reads, "rb") as errors:
            try:
                child = start_tracked(
                    lambda: subprocess.Popen(
                        [*launcher, *argv],
                        stdin=stdin,
                        stdout=output,
                        stderr=errors_to,
                        env=dict(env),
                        cwd=cwd,
                        start_new_session=True,
                        pass_fds=(writes,),
                    )
                )
            finally:
                os.close(writes)
            refused = errors.read()  # until the launcher became the program, or wrote the error
    except OSError as error:
        raise ProcessError(f"could not start {argv[0]}: {error.strerror or error}") from error
    if refused:
        child.wait()
        reaped(child.pid)
        raise ProcessError(f"could not start {argv[0]}: {os.strerror(int(refused))}")
    return child


class Conversation:
    """Child that takes orders on stdin and answers on stdout, a line each; it ends when this process does."""

    def __init__(self, argv: Sequence[str], *, env: Mapping[str, str], cwd: Path, errors_to: int) -> None:
        """``errors_to`` is an open file descriptor for its stderr; it stays the caller's.

        Raises:
            ProcessError: it could not be started.
        """
        pipe = subprocess.PIPE
        self._child = _start_bound(argv, env=env, cwd=cwd, output=pipe, stdin=pipe, errors_to=errors_to)

    def lines(self) -> Iterator[bytes]:
        """Its lines, as they come, until it prints no more."""
        assert self._child.stdout is not None
        yield from self._child.stdout

    def order(self, line: bytes) -> bool:
        """Send one; False if it reads no more."""
        assert self._child.stdin is not None
        try:
            self._child.stdin.write(line)
            self._child.stdin.flush()
        except (OSError, ValueError):
            return False
        return True

    def finish(self) -> None:
        """No more orders."""
        assert self._child.stdin is not None
        with contextlib.suppress(OSError):
            self._child.stdin.close()

    def wait(self, timeout: float) -> int | None:
        """Its exit code (negative: the signal), or None if it still runs after ``timeout`` seconds."""
        return wait_for(self._child, timeout)

    def kill(self) -> None:
        kill_group(self._child.pid, signal.SIGKILL)
