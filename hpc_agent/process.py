"""The only module that starts programs. Commands are lists; every wait has a bound.

Only ``run`` is called on the laptops where ``hpc-task`` is typed: it uses nothing that Linux alone has.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, NoReturn, TypeVar

from hpc_agent import cancellation
from hpc_agent.child_processes import (
    become_subreaper,
    reap_orphans,
    reaped,
    start_tracked,
    surviving_descendants,
)
from hpc_agent.clock import SYSTEM
from hpc_agent.errors import ProcessError
from hpc_agent.request_counts import COUNTS

T = TypeVar("T")


@dataclass(frozen=True)
class CompletedProcess:
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
        with _as_file(input.encode() if input is not None else None) as stdin:
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


@dataclass(frozen=True)
class StopTimeouts:
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
_LAUNCHER = Path(__file__).with_name("exec_launcher.py")


def _start_bound(argv: Sequence[str], *, env: Mapping[str, str], cwd: Path, output: int) -> subprocess.Popen[bytes]:
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
                        stdin=subprocess.DEVNULL,
                        stdout=output,
                        stderr=subprocess.STDOUT,
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


class Helper:
    """Helper program of ours that works for as long as it gets input; it may outlive this process."""

    def __init__(self, argv: Sequence[str], *, stdin: int, stdout: int, stderr: int) -> None:
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
        try:
            code = self._child.wait(timeout)
        except subprocess.TimeoutExpired:
            return None
        reaped(self._child.pid)
        return code


def pass_through(
    argv: Sequence[str], *, env: Mapping[str, str], input: bytes | None, on_output: Callable[[bytes], None]
) -> tuple[int, bytes]:
    """Run a program in our place, for the user at the terminal: it reads our stdin (or ``input``), and what it prints
    on stdout and stderr goes on to ours as it comes. Signals that would end us reach it instead.

    ``on_output`` gets each piece of its stdout. Returns its exit code (negative: the signal that ended it) and the
    beginning of its stderr.

    Raises:
        ProcessError: it could not be started.
    """
    COUNTS.count_command(argv)
    try:
        with _as_file(input) as stdin:
            child = subprocess.Popen(
                list(argv), stdin=stdin, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=dict(env)
            )
    except OSError as error:
        raise ProcessError(f"could not start {argv[0]}: {error.strerror or error}") from error
    errors = bytearray()
    with child, _forwarding_signals(child), selectors.DefaultSelector() as selector:
        assert child.stdout is not None and child.stderr is not None
        selector.register(child.stdout, selectors.EVENT_READ, sys.stdout.fileno())
        selector.register(child.stderr, selectors.EVENT_READ, sys.stderr.fileno())
        while selector.get_map():
            for key, _ in selector.select():
                piece = os.read(key.fd, 65536)
                if not piece:
                    selector.unregister(key.fileobj)
                    continue
                _write_all(key.data, piece)
                if key.fileobj is child.stdout:
                    on_output(piece)
                elif len(errors) < 65536:
                    errors += piece
        return child.wait(), bytes(errors)


@contextmanager
def _as_file(data: bytes | None) -> Iterator[int | None]:
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


@contextmanager
def _forwarding_signals(child: subprocess.Popen[bytes]) -> Iterator[None]:
    """What is sent to us is for the child; Ctrl-C in a terminal reaches both, so that we need only stay."""

    def forward(number: int, _frame: object) -> None:
        if number in (signal.SIGTERM, signal.SIGHUP):
            child.send_signal(number)

    numbers = (signal.SIGTERM, signal.SIGHUP, signal.SIGINT, signal.SIGQUIT)
    before = {number: signal.signal(number, forward) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _write_all(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    with contextlib.suppress(BrokenPipeError):  # the reader has left; the child's work is done anyway
        while view:
            view = view[os.write(descriptor, view) :]


def spawn_detached(
    argv: Sequence[str],
    *,
    env: Mapping[str, str],
    cwd: Path,
    output: Path,
    first: Callable[[], None] | None = None,
) -> int:
    """Start a program that outlives us, output appended to a file; returns its pid, which leads a group of its own.

    ``first`` is called in the new process before it becomes the program; only for callers without other threads.

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
