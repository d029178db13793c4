"""Workspace: a task's code on a node, and the command that runs it (Python, module, shell, notebook, program)."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Mapping, Sequence
from enum import Enum
from pathlib import Path

import msgspec

from hpc_agent.domain.task import TaskScript

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


class EntryPoint(msgspec.Struct, frozen=True):
    """Entry point of a task. ``text``: a file relative to the working folder; for MODULE and SHELL_COMMAND the text
    after ``-m`` or ``-c``. ``program``: what runs it where that is not Python. ``arguments``: of a file."""

    kind: EntryKind
    text: str
    program: str = ""
    arguments: tuple[str, ...] = ()

    @property
    def names_file(self) -> bool:
        if self.kind is EntryKind.PROGRAM:
            return not self.text.startswith("-")
        return self.kind not in (EntryKind.MODULE, EntryKind.SHELL_COMMAND)


class Workspace(msgspec.Struct, frozen=True):
    """Code of a task on a node. ``root``: the repository's root or the folder of a single script; ``cwd``: inside it.

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

        ``environ`` is the process's environment: ``$NAME`` in a module's arguments is expanded from it.
        ``options``: further options of the interpreter, e.g. ``-O``.
        """
        entry = self.entry
        if entry.kind is EntryKind.SHELL_COMMAND:
            return [entry.program, "-c", entry.text]
        if entry.program:
            arguments = [entry.text] if entry.names_file else shlex.split(entry.text)
            return [entry.program, *arguments, *entry.arguments]
        interpreter = [str(python), "-u", *options]
        if entry.kind is EntryKind.MODULE:
            return [*interpreter, "-m", *shlex.split(expand_variables(entry.text, environ))]
        if entry.kind is EntryKind.NOTEBOOK:
            return notebook_command(interpreter, entry.text, entry.arguments)
        return [*interpreter, entry.text, *entry.arguments]


def expand_variables(text: str, environ: Mapping[str, str]) -> str:
    """Replace ``$NAME`` and ``${NAME}`` where the name is known."""
    return re.sub(r"\$(?:(\w+)|\{(\w+)\})", lambda match: environ.get(match[1] or match[2], match[0]), text)


def entry_point_of(script: TaskScript) -> EntryPoint:
    """The entry point of ``script``; its kind follows from the entry point and the binary.

    See docs/internals/clearml-protocol.md#script-section.
    """
    text = script.entry_point.strip()
    binary = script.binary.strip()
    name = os.path.basename(binary)  # noqa: PTH119 (text, not a path of this machine)
    file, _ = split_arguments(text)
    if name in SHELLS and text.startswith("-c "):
        return EntryPoint(EntryKind.SHELL_COMMAND, text[3:].strip(), binary)
    if name in SHELLS:
        return EntryPoint(EntryKind.SHELL, text, binary)
    if name and not name.startswith("python"):
        return EntryPoint(EntryKind.PROGRAM, text, binary)
    if text.startswith("-m "):
        return EntryPoint(EntryKind.MODULE, text[3:].strip())
    if file.endswith(".sh"):
        # Python cannot run it, although the task's default binary is Python.
        return EntryPoint(EntryKind.SHELL, text, "/bin/bash")
    return EntryPoint(EntryKind.NOTEBOOK if file.endswith(".ipynb") else EntryKind.PYTHON, text)


def split_arguments(text: str) -> tuple[str, tuple[str, ...]]:
    """Split ``train.py --lr 1`` into file and arguments. A name may contain blanks: only a script's suffix ends it."""
    try:
        file, *arguments = shlex.split(text)
    except ValueError:
        return text, ()
    return (file, tuple(arguments)) if arguments and file.endswith(_SCRIPTS) else (text, ())


RUNNER = """\
import json, sys

def main(path):
    try:
        with open(path, encoding="utf-8-sig") as file:
            notebook = json.load(file)
    except ValueError as error:
        sys.exit(f"{path} is not a notebook: it is not JSON: {error}")
    if not isinstance(notebook, dict):
        sys.exit(f"{path} is not a notebook: its JSON has no cells")
    metadata = notebook.get("metadata") or {}
    named = (metadata.get("language_info") or {}).get("name") or (metadata.get("kernelspec") or {}).get("language")
    if named and not named.lower().startswith(("python", "ipython")):
        sys.exit(f"{path} is a notebook for {named}: only those for Python can be run")
    cells = notebook.get("cells")
    if cells is None:  # notebooks before version 4
        cells = [cell for sheet in notebook.get("worksheets", []) for cell in sheet["cells"]]
    try:
        from IPython.core.interactiveshell import InteractiveShell
        from traitlets.config import Config
    except ImportError:
        sys.exit("IPython is not among the packages of the task, and a notebook cannot be run without it")
    config = Config()
    config.HistoryManager.enabled = False  # a database in the home folder, which many jobs share
    shell = InteractiveShell.instance(config=config, colors="NoColor")
    ended = []
    shell.ask_exit = lambda: ended.append(True)  # exit() and quit(): as in Jupyter, after their cell
    for cell in cells:
        source = cell.get("source", cell.get("input", ""))
        text = source if isinstance(source, str) else "".join(source)
        tags = (cell.get("metadata") or {}).get("tags", ())
        if cell.get("cell_type") != "code" or not text.strip() or "skip-execution" in tags:
            continue
        result = shell.run_cell(text, store_history=True)
        error = result.error_before_exec or result.error_in_exec
        if isinstance(error, SystemExit):
            sys.exit(error.code)
        if error and "raises-exception" not in tags:
            sys.exit(1)
        if ended:
            break

sys.argv = sys.argv[1:]
main(sys.argv[0])
"""


def notebook_command(python: list[str], notebook: str, arguments: tuple[str, ...]) -> list[str]:
    """Command that runs a notebook. ``python``: the interpreter with its options; ``notebook``: relative to the cwd."""
    return [*python, "-c", RUNNER, notebook, *arguments]
