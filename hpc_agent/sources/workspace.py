"""A task's code on a node, and the command that runs it."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from hpc_agent.domain.task import Script

SHELLS = ("bash", "zsh", "sh")


class Kind(Enum):
    PYTHON = "python"
    MODULE = "module"
    SHELL = "shell"
    SHELL_COMMAND = "shell command"
    NOTEBOOK = "notebook"


@dataclass(frozen=True)
class Entry:
    """What a task runs. ``text``: a file relative to the working folder; for MODULE and SHELL_COMMAND the words after
    ``-m`` or ``-c``. ``program``: the shell for the two shell kinds, else empty."""

    kind: Kind
    text: str
    program: str = ""


@dataclass(frozen=True)
class Workspace:
    """``root``: the repository's root or the folder of a single script; ``cwd`` is inside it and exists.

    ``notes``: sentences for the task's log (missing submodules, Large File Storage pointers).
    """

    root: Path
    cwd: Path
    entry: Entry
    notes: tuple[str, ...] = ()

    @property
    def script_dir(self) -> Path:
        """Folder of the entry file, the working folder for modules and commands."""
        if self.entry.kind in (Kind.MODULE, Kind.SHELL_COMMAND):
            return self.cwd
        return (self.cwd / self.entry.text).parent

    def preparation(self, python: Path) -> list[str] | None:
        """The command to run before ``command``, or None: a notebook is converted to a script next to it."""
        if self.entry.kind is not Kind.NOTEBOOK:
            return None
        return [str(python), "-m", "nbconvert", "--to", "python", self.entry.text]

    def command(self, python: Path, environ: Mapping[str, str], *, options: Sequence[str] = ()) -> list[str]:
        """The argument list of the task's process, to be run in ``cwd`` (wire.md 4.12).

        ``environ`` is the process's environment: ``$NAME`` in a module's arguments stands for its values.
        ``options``: further options of the interpreter, e.g. ``-O``.
        """
        entry = self.entry
        if entry.kind is Kind.SHELL:
            return [entry.program, entry.text]
        if entry.kind is Kind.SHELL_COMMAND:
            return [entry.program, "-c", entry.text]
        interpreter = [str(python), "-u", *options]
        if entry.kind is Kind.MODULE:
            return [*interpreter, "-m", *shlex.split(expand(entry.text, environ))]
        if entry.kind is Kind.NOTEBOOK:
            return [*interpreter, str(Path(entry.text).with_suffix(".py"))]
        return [*interpreter, entry.text]


def expand(text: str, environ: Mapping[str, str]) -> str:
    """``$NAME`` and ``${NAME}`` replaced where the name is known."""
    return re.sub(r"\$(?:(\w+)|\{(\w+)\})", lambda match: environ.get(match[1] or match[2], match[0]), text)


def entry_of(script: Script) -> Entry:
    """What ``script`` asks to run, its kind told by the entry point and the binary (wire.md 4.7, 4.12)."""
    text = script.entry_point.strip()
    shell = _shell(script.binary.strip(), text)
    if text.startswith("-m ") and not shell:
        return Entry(Kind.MODULE, text[3:].strip())
    if text.startswith("-c ") and shell:
        return Entry(Kind.SHELL_COMMAND, text[3:].strip(), shell)
    if shell:
        return Entry(Kind.SHELL, text, shell)
    if text.endswith(".ipynb"):
        return Entry(Kind.NOTEBOOK, text)
    return Entry(Kind.PYTHON, text)


def _shell(binary: str, entry: str) -> str:
    if os.path.basename(binary) in SHELLS:  # noqa: PTH119 (a word, not a path of this machine)
        return binary
    # Python cannot run it, whatever the task's default for the binary says.
    return "/bin/bash" if entry.endswith(".sh") else ""
