"""Commands that are run to their end: lists of words; every wait has a bound.

``run`` is called on the laptops where ``hpc-task`` is typed, too: it uses nothing that Linux alone has.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TypeVar

import msgspec

from hpc_agent import cancellation
from hpc_agent.child_processes import (
    reaped,
    start_tracked,
)
from hpc_agent.clock import SYSTEM
from hpc_agent.errors import ProcessError
from hpc_agent.request_counts import COUNTS

T = TypeVar("T")


class CompletedProcess(msgspec.Struct, frozen=True):
    """Result of a short program. Texts are decoded as UTF-8, undecodable bytes replaced; ``output`` is stdout as it
    came."""

    argv: tuple[str, ...]
    returncode: int
    stdout: str
    stderr: str
    output: bytes = b""

    @property
    def ok(self) -> bool:
        return self.returncode == 0

    @property
    def last_words(self) -> str:
        """The last lines that it printed on stderr, else stdout; for an error message."""
        text = self.stderr.strip() or self.stdout.strip()
        return "\n".join(text.splitlines()[-15:])


def run(
    argv: Sequence[str],
    *,
    timeout: float,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    input: str | None = None,
) -> CompletedProcess:
    """Run a short program to its end in a session of its own; a late one is killed with its children.

    Raises:
        ProcessError: it could not be started, or was still running after ``timeout`` seconds.
        Cancelled: see ``hpc_agent.cancellation``; the program was killed.
    """
    COUNTS.count_command(argv)
    try:
        with as_file(input.encode() if input is not None else None) as stdin:
            child = start_tracked(
                lambda: subprocess.Popen(
                    list(argv),
                    stdin=subprocess.DEVNULL if stdin is None else stdin,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.PIPE,
                    env=dict(env) if env is not None else None,
                    cwd=cwd,
                    start_new_session=True,
                )
            )
    except OSError as error:
        raise ProcessError(f"could not start {argv[0]}: {error.strerror or error}") from error
    try:
        out, err = _cancellable(lambda seconds: child.communicate(timeout=seconds), timeout)
    except BaseException as error:
        _kill(child)
        if isinstance(error, subprocess.TimeoutExpired):
            raise ProcessError(f"{argv[0]} gave no answer within {timeout:g} s") from error
        raise
    finally:
        reaped(child.pid)
    texts = (out.decode("utf-8", "replace"), err.decode("utf-8", "replace"))
    return CompletedProcess(tuple(argv), child.returncode, *texts, out)


def run_reporting(
    argv: Sequence[str],
    *,
    timeout: float,
    on_lines: Callable[[Sequence[str]], None],
    env: Mapping[str, str] | None = None,
) -> CompletedProcess:
    """As ``run``, for a program that takes its time: ``on_lines`` gets the lines that it has printed since the last
    call, once a second, also if there are none. Both streams come as one, as ``stdout``."""
    COUNTS.count_command(argv)
    try:
        child = start_tracked(
            lambda: subprocess.Popen(
                list(argv),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                env=dict(env) if env is not None else None,
                start_new_session=True,
            )
        )
    except OSError as error:
        raise ProcessError(f"could not start {argv[0]}: {error.strerror or error}") from error
    assert child.stdout is not None
    printed: list[str] = []
    reported = 0
    reader = threading.Thread(target=_collect_lines, args=(child.stdout, printed), name="output", daemon=True)
    reader.start()
    end = SYSTEM.monotonic() + timeout
    try:
        while child.poll() is None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                child.wait(_REPORT_S)
            cancellation.check()
            known = len(printed)
            on_lines(printed[reported:known])
            reported = known
            if SYSTEM.monotonic() >= end:
                raise ProcessError(f"{argv[0]} was not done after {timeout:g} s")
        reader.join(_LAST_LINES_S)
    except BaseException:
        kill_group(child.pid, signal.SIGKILL)
        child.wait()
        raise
    finally:
        reaped(child.pid)
    return CompletedProcess(tuple(argv), child.returncode, "\n".join(printed), "")


_REPORT_S = 1.0
_LAST_LINES_S = 5.0
"""How long the rest of an ended program's output is waited for: what it started may hold the pipe."""


def _collect_lines(pipe: IO[bytes], lines: list[str]) -> None:
    """Until the end of ``pipe``, which is then closed. A progress bar's carriage returns end lines too."""
    rest = b""
    with pipe:
        while block := os.read(pipe.fileno(), 1 << 16):
            *whole, rest = (rest + block).replace(b"\r", b"\n").split(b"\n")
            lines += [line.decode("utf-8", "replace") for line in whole if line.strip()]
    if rest.strip():
        lines.append(rest.decode("utf-8", "replace"))


def _cancellable(wait: Callable[[float], T], timeout: float) -> T:
    """Wait with ``wait(seconds)``, looking for a cancellation where this thread's work can be cancelled.

    Raises:
        subprocess.TimeoutExpired: it took longer than ``timeout`` seconds.
        Cancelled
    """
    end = SYSTEM.monotonic() + timeout
    while cancellation.is_cancellable():
        try:
            return wait(max(min(cancellation.POLL_S, end - SYSTEM.monotonic()), 0.0))
        except subprocess.TimeoutExpired:
            cancellation.check()
            if SYSTEM.monotonic() >= end:
                raise
    return wait(timeout)


def wait_for(child: subprocess.Popen[bytes], timeout: float | None) -> int | None:
    """The exit code of a child (negative: the signal), or None if it still runs after ``timeout`` seconds."""
    try:
        code = child.wait(timeout)
    except subprocess.TimeoutExpired:
        return None
    reaped(child.pid)
    return code


def _kill(child: subprocess.Popen[bytes]) -> None:
    if hasattr(os, "killpg"):
        kill_group(child.pid, signal.SIGKILL)
    else:
        child.kill()
    try:
        child.communicate(timeout=5)
    except subprocess.TimeoutExpired:
        # A process outside the group holds the pipes: what it may still print is not waited for.
        _close_pipes(child)


def _close_pipes(child: subprocess.Popen[bytes]) -> None:
    for pipe in (child.stdin, child.stdout, child.stderr):
        if pipe is not None:
            with contextlib.suppress(BrokenPipeError):  # what it did not read is of no interest
                pipe.close()


@contextmanager
def writing_to(argv: Sequence[str], *, timeout: float) -> Iterator[IO[bytes]]:
    """Enter with the stdin of a program; on leaving, it has read all and ended well.

    ``timeout``: seconds that it may take after its stdin is closed.

    Raises:
        ProcessError: it could not be started, failed (with its last lines), or did not end in time.
    """
    with _streaming(argv, timeout, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL) as child:
        assert child.stdin is not None
        try:
            yield child.stdin
            child.stdin.close()
        except BrokenPipeError:
            pass  # it ended early: its exit code and stderr have the reason


@contextmanager
def reading_from(argv: Sequence[str], *, timeout: float) -> Iterator[IO[bytes]]:
    """Enter with the stdout of a program, to be read to its end; on leaving, it has ended well.

    Raises:
        ProcessError: as ``writing_to``.
    """
    with _streaming(argv, timeout, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        yield child.stdout


@contextmanager
def _streaming(argv: Sequence[str], timeout: float, *, stdin: int, stdout: int) -> Iterator[subprocess.Popen[bytes]]:
    # In memory: a pipe that is not drained could block it, and a file could meet the full disk that it reports.
    stderr = os.memfd_create("stderr")
    try:
        try:
            child = start_tracked(
                lambda: subprocess.Popen(list(argv), stdin=stdin, stdout=stdout, stderr=stderr, start_new_session=True)
            )
        except OSError as error:
            raise ProcessError(f"could not start {argv[0]}: {error.strerror or error}") from error
        _widen(child.stdin or child.stdout)
        try:
            yield child
            code = _cancellable(child.wait, timeout)
        except BaseException as error:
            kill_group(child.pid, signal.SIGKILL)
            child.wait()
            if isinstance(error, subprocess.TimeoutExpired):
                raise ProcessError(f"{argv[0]} did not end within {timeout:g} s") from error
            raise
        finally:
            reaped(child.pid)
            _close_pipes(child)
        if code != 0:
            lines = os.pread(stderr, 4000, 0).decode("utf-8", "replace").strip().splitlines()
            failure = ProcessError(f"{argv[0]} failed: {lines[0] if lines else f'exit code {code}'}")
            failure.exit_code = code
            raise failure
    finally:
        os.close(stderr)


def _widen(pipe: IO[bytes] | None) -> None:
    """A pipe of 1 MiB lets both ends work at once: 0.57 s where the usual 64 KiB take 1.1 s for 449 MB to tar."""
    import fcntl  # hpc-task runs where it is not

    if pipe is not None:
        with contextlib.suppress(OSError):  # beyond the user's share of pipe memory: slower, and right
            fcntl.fcntl(pipe, fcntl.F_SETPIPE_SZ, 1 << 20)


def kill_group(pgid: int, number: int) -> bool:
    """Send a signal to a whole process group; False when it is gone."""
    try:
        os.killpg(pgid, number)
    except ProcessLookupError:
        return False
    except PermissionError:
        # Some member runs under another user (setuid): the others got the signal.
        return True
    return True


@contextmanager
def as_file(data: bytes | None) -> Iterator[int | None]:
    """A descriptor from which a child can read ``data``, without a process that must feed it."""
    if data is None:
        yield None
        return
    with _memory_file("stdin") as file:
        file.write(data)
        file.seek(0)
        yield file.fileno()


def _memory_file(name: str) -> IO[bytes]:
    """A file in memory; in the temporary folder where the system has no such thing."""
    if hasattr(os, "memfd_create"):
        return os.fdopen(os.memfd_create(name), "w+b")
    return tempfile.TemporaryFile()
