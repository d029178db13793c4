"""A task's code on a node, and the command that runs it."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from hpc_agent.domain.task import TaskScript
from hpc_agent.sources import notebook

SHELLS = ("bash", "zsh", "sh")
_SCRIPTS = (".py", ".ipynb", ".sh", ".bash", ".zsh")


class EntryKind(Enum):
    PYTHON = "python"
    MODULE = "module"
    SHELL = "shell"
    SHELL_COMMAND = "shell command"
    NOTEBOOK = "notebook"
    PROGRAM = "program"
    """Neither Python nor a shell runs it: Rscript, perl, julia …"""

    @property
    def needs_python(self) -> bool:
        return self in (EntryKind.PYTHON, EntryKind.MODULE, EntryKind.NOTEBOOK)


@dataclass(frozen=True)
class EntryPoint:
    """What a task runs. ``text``: a file relative to the working folder; for MODULE and SHELL_COMMAND the words after
    ``-m`` or ``-c``. ``program``: what runs it where that is not Python. ``arguments``: of a file."""

    kind: EntryKind
    text: str
    program: str = ""
    arguments: tuple[str, ...] = ()

    @property
    def names_file(self) -> bool:
        if self.kind is EntryKind.PROGRAM:
            return not self.text.startswith("-")
        return self.kind not in (EntryKind.MODULE, EntryKind.SHELL_COMMAND)


@dataclass(frozen=True)
class Workspace:
    """``root``: the repository's root or the folder of a single script; ``cwd`` is inside it and exists.

    ``notes``: sentences for the task's log (missing submodules, Large File Storage pointers).
    """

    root: Path
    cwd: Path
    entry: EntryPoint
    notes: tuple[str, ...] = ()

    @property
    def script_dir(self) -> Path:
        """Folder of the entry file, the working folder for modules and commands."""
        return (self.cwd / self.entry.text).parent if self.entry.names_file else self.cwd

    def command(self, python: Path, environ: Mapping[str, str], *, options: Sequence[str] = ()) -> list[str]:
        """The argument list of the task's process, to be run in ``cwd``.

        See docs/internals/clearml-protocol.md#process-environment.

        ``environ`` is the process's environment: ``$NAME`` in a module's arguments stands for its values.
        ``options``: further options of the interpreter, e.g. ``-O``.
        """
        entry = self.entry
        if entry.kind is EntryKind.SHELL_COMMAND:
            return [entry.program, "-c", entry.text]
        if entry.program:
            words = [entry.text] if entry.names_file else shlex.split(entry.text)
            return [entry.program, *words, *entry.arguments]
        interpreter = [str(python), "-u", *options]
        if entry.kind is EntryKind.MODULE:
            return [*interpreter, "-m", *shlex.split(expand(entry.text, environ))]
        if entry.kind is EntryKind.NOTEBOOK:
            return notebook.command(interpreter, entry.text, entry.arguments)
        return [*interpreter, entry.text, *entry.arguments]


def expand(text: str, environ: Mapping[str, str]) -> str:
    """``$NAME`` and ``${NAME}`` replaced where the name is known."""
    return re.sub(r"\$(?:(\w+)|\{(\w+)\})", lambda match: environ.get(match[1] or match[2], match[0]), text)


def entry_of(script: TaskScript) -> EntryPoint:
    """What ``script`` asks to run, its kind told by the entry point and the binary.

    See docs/internals/clearml-protocol.md#script-section.
    """
    text = script.entry_point.strip()
    binary = script.binary.strip()
    name = os.path.basename(binary)  # noqa: PTH119 (a word, not a path of this machine)
    file, _ = parted(text)
    if name in SHELLS and text.startswith("-c "):
        return EntryPoint(EntryKind.SHELL_COMMAND, text[3:].strip(), binary)
    if name in SHELLS:
        return EntryPoint(EntryKind.SHELL, text, binary)
    if name and not name.startswith("python"):
        return EntryPoint(EntryKind.PROGRAM, text, binary)
    if text.startswith("-m "):
        return EntryPoint(EntryKind.MODULE, text[3:].strip())
    if file.endswith(".sh"):
        # Python cannot run it, whatever the task's default for the binary says.
        return EntryPoint(EntryKind.SHELL, text, "/bin/bash")
    return EntryPoint(EntryKind.NOTEBOOK if file.endswith(".ipynb") else EntryKind.PYTHON, text)


def parted(text: str) -> tuple[str, tuple[str, ...]]:
    """``train.py --lr 1`` taken apart. A name may have blanks in it: only what ends as scripts do ends the name."""
    try:
        file, *arguments = shlex.split(text)
    except ValueError:
        return text, ()
    return (file, tuple(arguments)) if arguments and file.endswith(_SCRIPTS) else (text, ())
