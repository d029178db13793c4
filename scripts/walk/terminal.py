"""Terminal of an ordinary user: runs a command line on a pseudo-terminal, as that user, and types the answers."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import re
import select
import struct
import subprocess
import termios
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

LINES = 50
_CONTROL = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


@dataclass(frozen=True)
class Outcome:
    """``output``: the bytes that the terminal got, as text; ``code``: the exit code."""

    output: str
    code: int


@dataclass(frozen=True)
class Terminal:
    """``columns``: its width; ``environ``: what a login of the user sets."""

    user: str
    home: Path
    environ: Mapping[str, str]
    columns: int = 100

    def run(self, line: str, answers: Sequence[tuple[str, str]] = (), limit_s: float = 600) -> Outcome:
        """Run a line of bash. ``answers``: each is typed once the text before it is on the screen.

        Raises:
            TimeoutError: it did not end in ``limit_s`` seconds; with what it printed.
        """
        ours, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", LINES, self.columns, 0, 0))
        child = subprocess.Popen(
            [*self._as_user(), "setsid", "--ctty", "--wait", "bash", "-c", line],
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            cwd=self.home,
            env=dict(self.environ),
        )
        os.close(theirs)
        try:
            output = _converse(ours, child, list(answers), time.monotonic() + limit_s)
        finally:
            os.close(ours)
            with contextlib.suppress(subprocess.TimeoutExpired):
                child.wait(10)
            child.kill()
        return Outcome(output, child.wait())

    def succeeds(self, line: str) -> bool:
        """Whether a line of bash ends with 0; what it prints is not shown."""
        argv = [*self._as_user(), "bash", "-c", line]
        done = subprocess.run(
            argv, cwd=self.home, env=dict(self.environ), stdin=subprocess.DEVNULL, capture_output=True, check=False
        )
        return done.returncode == 0

    def _as_user(self) -> list[str]:
        return ["setpriv", f"--reuid={self.user}", f"--regid={self.user}", "--init-groups"]


def _converse(screen: int, child: subprocess.Popen[bytes], answers: list[tuple[str, str]], deadline: float) -> str:
    """Read until the program has ended; a daemon that it left behind may hold the terminal open."""
    printed, begin = "", 0
    while True:
        ended = child.poll() is not None
        ready, _, _ = select.select([screen], [], [], 0.2)
        if ready:
            try:
                block = os.read(screen, 65536)
            except OSError:  # EIO: no program has it open any more.
                return printed
            printed += block.decode("utf-8", "replace")
            if answers and answers[0][0] in printed[begin:]:
                os.write(screen, f"{answers.pop(0)[1]}\n".encode())
                begin = len(printed)
        elif ended:
            return printed
        if time.monotonic() > deadline:
            raise TimeoutError(printed)


def on_screen(output: str) -> str:
    """What is to be seen in the end: without colours, and without what a line was overwritten with."""
    lines = []
    for line in output.replace("\r\n", "\n").split("\n"):
        shown = ""
        for part in line.split("\r"):
            plain = _CONTROL.sub("", part)
            erased = part.startswith(("\x1b[K", "\x1b[2K"))
            shown = plain if erased else plain + shown[len(plain) :]
        lines.append(shown.rstrip())
    return "\n".join(lines)
