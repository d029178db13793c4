"""Description of a submission as a task: where the script comes from, and how a clone runs it again.

A clone is run by an agent, in a checkout of the repository or in an empty folder. The entry point is therefore a line
for bash that makes the script find what it found: the folder that it was submitted from, as the working folder and in
SLURM_SUBMIT_DIR, and its index in an array.
"""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Sequence
from pathlib import Path

import msgspec
from msgspec.structs import replace

from hpc_agent.domain.task import TaskScript
from hpc_agent.drafts import repository as git
from hpc_agent.drafts.repository import Repository
from hpc_agent.errors import SourceError
from hpc_agent.redact import HIDDEN
from hpc_agent.secret_values import masked_text, masked_words
from hpc_agent.tracking.command_line import CommandLine, resolve
from hpc_agent.tracking.sbatch_options import ArrayElements

_SHELL = "/bin/bash"
_EXPORTED = re.compile(r"""(?:[^,"']|"[^"]*"|'[^']*'|["'])+""")
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_CONSTANT = re.compile(r"[A-Z_][A-Z0-9_]*")
INDEX = "@INDEX@"
"""Placeholder of an element's index in ``TaskDescription.element``."""


class SubmittedScript(msgspec.Struct, frozen=True):
    """Script of a submission. ``path``: the script's file, None for standard input and ``--wrap``; ``name``: what
    its text is called where it has to travel; ``workdir``: where the job starts."""

    text: str
    path: Path | None
    name: str
    arguments: tuple[str, ...]
    workdir: Path


def interpreter(text: str) -> list[str]:
    """The words after ``#!``."""
    first = text.partition("\n")[0]
    words = first[2:].split() if first.startswith("#!") else []
    return words or ["/bin/sh"]


def reads_bash_env(text: str) -> bool:
    """Whether the script's interpreter is bash, which sources the file that BASH_ENV names before the first line.

    Not with -p and --posix; with -v it would show that file.
    """
    words = interpreter(text)
    if _base(words[0]) == "env":
        words = [word for word in words[1:] if not word.startswith("-S") and "=" not in word] or [""]
    unfit = [word for word in words[1:] if word in ("--posix", "--verbose") or re.match(r"-\w*[pv]", word)]
    return _base(words[0]) == "bash" and not unfit


def _base(word: str) -> str:
    return word.rpartition("/")[2]


class TaskDescription(msgspec.Struct, frozen=True):
    """``project``: its name unless the user gave one; ``element``: the entry point of one element of an array;
    ``notes``: sentences for the task's comment."""

    script: TaskScript
    project: str
    element: str = ""
    notes: tuple[str, ...] = ()


def describe(submitted: SubmittedScript, elements: ArrayElements) -> TaskDescription:
    """Look at the repository and describe the code. Reads only; what git cannot say is said in ``notes``."""
    notes: tuple[str, ...] = ()
    try:
        state = _state(submitted)
    except SourceError as error:
        state, notes = None, (f"No repository is recorded: {error}.",)
    if state is None:
        launch = _EntryPointBuilder(submitted, submitted.name, elements, cd=True)
        # After the colon comes the name under which an agent writes the text.
        script = TaskScript(working_dir=f".:{submitted.name}", binary=_SHELL, diff=submitted.text)
        return _described(script, launch, submitted.workdir.name or "sbatch", notes)
    repository, diff = state
    if not repository.pushed:
        notes = (f"Commit {repository.commit[:8]} was on no remote branch: push it before a clone runs.",)
    inside = submitted.workdir.is_relative_to(repository.root)
    start = submitted.workdir if inside else repository.root
    place, diff = _script_file(submitted, repository, start, diff)
    script = TaskScript(
        repository=repository.url,
        branch=repository.branch,
        commit=repository.commit,
        working_dir=start.relative_to(repository.root).as_posix(),
        binary=_SHELL,
        diff=diff,
    )
    project = repository.url.rstrip("/").rpartition("/")[2].removesuffix(".git")
    launch = _EntryPointBuilder(submitted, os.path.relpath(place, start), elements, cd=not inside)
    return _described(script, launch, project or repository.root.name, notes)


def _described(script: TaskScript, launch: _EntryPointBuilder, project: str, notes: tuple[str, ...]) -> TaskDescription:
    return TaskDescription(replace(script, entry_point=launch.whole()), project, launch.element(), notes)


def _state(submitted: SubmittedScript) -> tuple[Repository, str] | None:
    """The repository that the job starts in, else the one that the script lies in, and what was changed in it.

    Raises:
        SourceError: git cannot tell, or no other machine could get it.
    """
    folders = [submitted.workdir, *([submitted.path.parent] if submitted.path else [])]
    root = next((root for folder in folders if (root := git.find_root(folder))), None)
    if root is None:
        return None
    repository = git.read_repository(root)
    return repository, git.uncommitted(repository)


def _script_file(submitted: SubmittedScript, repository: Repository, start: Path, diff: str) -> tuple[Path, str]:
    """Where the script lies in a checkout, and the patch, which brings it there if git does not."""
    path = submitted.path
    if path is None or not path.is_relative_to(repository.root):
        path = start / submitted.name
        while path.exists():
            path = path.with_name(f"sbatch_{path.name}")
    elif git.is_tracked(repository.root, path.relative_to(repository.root).as_posix()):
        return path, diff
    relative = path.relative_to(repository.root).as_posix()
    return path, (diff if not diff or diff.endswith("\n") else diff + "\n") + new_file(relative, submitted.text)


def new_file(path: str, text: str) -> str:
    """A patch that makes the file ``path`` (relative to the root), as git would write it."""
    lines = text.split("\n")
    ended = lines[-1] == ""
    lines = lines[:-1] if ended else lines
    head = f"diff --git a/{path} b/{path}\nnew file mode 100755\n"
    if not lines:
        return head
    body = "".join(f"+{line}\n" for line in lines) + ("" if ended else "\\ No newline at end of file\n")
    return f"{head}--- /dev/null\n+++ b/{path}\n@@ -0,0 +1,{len(lines)} @@\n{body}"


class _EntryPointBuilder(msgspec.Struct, frozen=True):
    """The line for bash, after ``-c``. With ``cd`` the script starts in the folder that the job started in, which is
    outside of what the agent checked out."""

    submitted: SubmittedScript
    script: str
    elements: ArrayElements
    cd: bool

    def whole(self) -> str:
        if not self.elements.indices:
            return f"{self._start} && exec {self._words}"
        indices = _spelled(self.elements.spec)
        return (
            f"{self._start} && for i in {indices}; do SLURM_ARRAY_TASK_ID=$i {self._words} || code=$?; done; "
            "exit ${code:-0}"
        )

    def element(self) -> str:
        return f"{self._start} && SLURM_ARRAY_TASK_ID={INDEX} exec {self._words}" if self.elements.indices else ""

    @property
    def _start(self) -> str:
        cd = f"cd {shlex.quote(str(self.submitted.workdir))} && " if self.cd else ""
        return f'-c {cd}export SLURM_SUBMIT_DIR="$PWD"'

    @property
    def _words(self) -> str:
        file = f'"$OLDPWD"/{shlex.quote(self.script)}' if self.cd else shlex.quote(self.script)
        # All who see the task see them.
        arguments = map(shlex.quote, masked_words(self.submitted.arguments))
        return " ".join([shlex.join(interpreter(self.submitted.text)), file, *arguments])


def _spelled(spec: str) -> str:
    """``1-5:2,9`` → ``$(seq 1 2 5) 9``."""
    words = []
    for part in spec.split(","):
        bounds, _, step = part.strip().partition(":")
        first, dash, last = bounds.partition("-")
        words.append(f"$(seq {first} {step or 1} {last})" if dash else first)
    return " ".join(words)


def comment(command: CommandLine, notes: Sequence[str], when: str) -> str:
    """The task's comment: how it was submitted, without secrets."""
    options, rest = command.words[: command.insert_at], command.words[command.insert_at :]
    shown = [*masked_words(_names_only(options)), *masked_words(rest)]
    if HIDDEN in "".join(shown):
        notes = (*notes, f"{HIDDEN} replaces what looked like a secret: give it to a clone by other means.")
    return "\n".join([f"{when}:", f"sbatch {shlex.join(shown)}", *notes])


def _names_only(options: Sequence[str]) -> list[str]:
    """The options of sbatch, with the values of ``--export`` left out and those of ``--wrap`` masked."""
    shown: list[str] = []
    before = ""
    for word in options:
        option, equals, value = word.partition("=")
        if before in _HIDE:
            shown.append(_HIDE[before](word))
        elif equals and _long_name(option) in _HIDE:
            shown.append(f"{option}={_HIDE[_long_name(option)](value)}")
        else:
            shown.append(word)
        before = "" if before in _HIDE else _long_name(word)
    return shown


def _long_name(word: str) -> str:
    return resolve(word[2:]) if word.startswith("--") else ""


def exported_names(value: str) -> str:
    """``ALL,A=1,B="x,y"`` → ``ALL,A,B``. A word in small letters may be the rest of a value with a comma in it."""
    parts = (part.partition("=") for part in _EXPORTED.findall(value))
    names = ((name.strip(), bool(equals)) for name, equals, _ in parts)
    return ",".join(name for name, is_set in names if (_NAME if is_set else _CONSTANT).fullmatch(name))


_HIDE = {"export": exported_names, "wrap": masked_text}
"""Long option of sbatch → what is shown of its value."""
