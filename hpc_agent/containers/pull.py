"""Fetching an image from its registry: minutes to hours, in which the person who waits sees that it goes on."""

from __future__ import annotations

import re
import shutil
from collections.abc import Sequence
from pathlib import Path

from hpc_agent.clock import Clock
from hpc_agent.containers.runtime_api import Argv
from hpc_agent.errors import ContainerError, ProcessError
from hpc_agent.process import programs
from hpc_agent.progress import Progress
from hpc_agent.redact import without_credentials
from hpc_agent.retry import is_away

_TRANSFER_S = 4 * 3600.0
"""An image of 20 GB comes slowly through a campus network, and its conversion takes as long."""
_LINE_S = 15.0
_SILENT_S = 60.0

_COLOURS = re.compile(r"\x1b\[[0-9;]*[A-Za-z]|[\x00-\x08\x0b-\x1f]")
_NO_PROGRESS = re.compile(r"^To see mksquashfs output|^$")
"""Lines that do not say what is being done."""
_LEVEL = re.compile(r"^(?:INFO|FATAL|ERROR|WARNING|Error)\s*:\s+")
_AWAY = re.compile(
    r"tls handshake timeout|unexpected eof"
    r"|50[0234]:? (?:bad gateway|service unavailable|gateway time|internal server error)",
    re.IGNORECASE,
)
_EXPECTED = re.compile(r"expected status \{[^}]*\}")
"""Charliecloud names the codes that did not come, too."""
_LIMITED = re.compile(r"toomanyrequests|too many requests|\b429\b", re.IGNORECASE)
_UNKNOWN = re.compile(
    r"manifest[ _]unknown|name[ _]unknown|(?<!executable file )not found|does not exist|no such image|\b404\b",
    re.IGNORECASE,
)
_REFUSED = re.compile(
    r"unauthorized|authentication required|access denied|\bdenied\b|forbidden|\b40[13]\b", re.IGNORECASE
)
_FULL = re.compile(r"no space left on device|disk quota exceeded", re.IGNORECASE)


class ImagePull:
    """One image on its way into the file ``making`` (None: into the runtime's own store)."""

    def __init__(self, reference: str, making: Path | None, clock: Clock, progress: Progress) -> None:
        self._reference = reference
        self._making = making
        self._clock = clock
        self._progress = progress
        self._began = self._reported = clock.monotonic()
        self._last = ""

    def run(self, commands: Sequence[Argv]) -> None:
        """Run the commands one after the other.

        Raises:
            ContainerError: one failed, or they took too long. Retryable if the registry did not answer.
        """
        for argv in commands:
            program = _program(argv)
            if "/" not in program and shutil.which(program) is None:
                folder = f", or put the image's file into {self._making.parent}" if self._making else ""
                raise ContainerError(
                    f"the image {self._name} cannot be fetched: {program} is not on this machine: install it, load its "
                    f"module before the daemon starts{folder}"
                )
            try:
                answer = programs.run_reporting(argv, timeout=_TRANSFER_S, on_lines=self._show)
            except ProcessError as error:
                raise ContainerError(f"the image {self._name} cannot be fetched: {error}") from error
            if not answer.ok:
                raise _failure(self._name, answer.last_words or f"exit code {answer.returncode}")

    @property
    def _name(self) -> str:
        return without_credentials(self._reference)

    def _show(self, lines: Sequence[str]) -> None:
        """A line of the program's now and then, and without one a sign of life."""
        plain = map(_plain, reversed(lines))
        self._last = next((line for line in plain if not _NO_PROGRESS.match(line)), self._last)
        silent = self._clock.monotonic() - self._reported
        if silent < (_LINE_S if self._last else _SILENT_S):
            return
        seconds = self._clock.monotonic() - self._began
        parts = [f"{seconds / 60:.0f} min" if seconds >= 120 else f"{seconds:.0f} s", self._size(), self._last]
        self._progress(f"Fetching the image {self._name}: {', '.join(filter(None, parts))}")
        self._reported = self._clock.monotonic()
        self._last = ""

    def _size(self) -> str:
        try:
            size = self._making.stat().st_size if self._making and self._making.is_file() else 0
        except OSError:
            return ""
        return f"{size / 1e6:.0f} MB written" if size else ""


def _program(argv: Argv) -> str:
    """The program that a command runs, through ``env`` or not."""
    words = argv[1:] if argv[0] == "env" else argv
    return next(word for word in words if argv[0] != "env" or "=" not in word)


def _plain(line: str) -> str:
    """A line of a program without colours, marks and passwords."""
    return without_credentials(_LEVEL.sub("", _COLOURS.sub("", line).strip()))[:200]


def _failure(name: str, output: str) -> ContainerError:
    """Error for a failed pull that says in its first words what the person can do."""
    words = "\n".join(filter(None, map(_plain, output.splitlines()[-5:])))
    meaning, retryable = _meaning(output)
    error = ContainerError(f"the image {name} cannot be fetched: {f'{meaning}: ' if meaning else ''}{words}")
    error.retryable = retryable
    return error


def _meaning(output: str) -> tuple[str, bool]:
    """What a program's last words mean, empty if that is not known, and whether another try may succeed."""
    output = _EXPECTED.sub("", output)
    if _LIMITED.search(output):
        return "its registry takes no more requests from here for now (who logs in to it may have more)", True
    if is_away(output) or _AWAY.search(output):
        return "its registry does not answer", True
    return next((meaning for pattern, meaning in _FINAL if pattern.search(output)), ""), False


_FINAL: Sequence[tuple[re.Pattern[str], str]] = (
    (_FULL, "a disk is full (the images' folder, or TMPDIR where layers are unpacked)"),
    (_UNKNOWN, "its registry has no image of this name and tag"),
    (_REFUSED, "its registry does not show it to this account (is the name right? else log in to the registry here)"),
)
