"""Where a task's files go and what is run, from its script section alone.

See docs/internals/clearml-protocol.md#script-section.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from hpc_agent.domain.task import TaskScript
from hpc_agent.errors import SourceError
from hpc_agent.sources.layout import Origin, StagedSource, plan_layout
from hpc_agent.sources.workspace import RUNNER, EntryKind, EntryPoint, Workspace, entry_point_of

REPOSITORY = StagedSource(Origin.REPOSITORY, name="model", commit="c0ffee")
SCRIPT = StagedSource(Origin.SCRIPT)
TEXT = "print('hello')\n"
PATCH = "diff --git a/x b/x\n--- a/x\n+++ b/x\n@@ -1 +1 @@\n-a\n+b\n"


def test_script_alone_is_one_file_in_one_folder() -> None:
    made = plan_layout(TaskScript(entry_point="deep/down/train.py", working_dir="deep", diff=TEXT), SCRIPT)
    assert (made.folder, made.working_dir, made.script_file, made.entry.text) == ("code", ".", "train.py", "train.py")
    assert any("not used" in note for note in made.notes)


def test_script_without_a_name_is_untitled() -> None:
    assert plan_layout(TaskScript(diff=TEXT), SCRIPT).script_file == "untitled.py"
    assert plan_layout(TaskScript(diff=TEXT, entry_point="-m torch.run x.py"), SCRIPT).script_file == "untitled.py"
    assert (
        plan_layout(TaskScript(diff="ls", binary="/bin/bash", entry_point="-c ls"), SCRIPT).script_file == "untitled.sh"
    )
    assert plan_layout(TaskScript(diff=TEXT, entry_point="-m a", working_dir=".:b.py"), SCRIPT).script_file == "b.py"


def test_script_next_to_a_repository_goes_to_the_working_folder() -> None:
    made = plan_layout(TaskScript(repository="r", entry_point="x.py", working_dir="src", diff=TEXT), REPOSITORY)
    assert (made.folder, made.working_dir, made.script_file) == ("model", "src", "x.py")


def test_patch_is_not_taken_for_a_script() -> None:
    assert plan_layout(TaskScript(repository="r", entry_point="x.py", diff=PATCH), REPOSITORY).script_file == ""
    submodule = f"Submodule lib 123..456:\n{PATCH}"
    assert plan_layout(TaskScript(repository="r", entry_point="x.py", diff=submodule), REPOSITORY).script_file == ""


def test_entry_point_may_name_its_folder() -> None:
    made = plan_layout(TaskScript(repository="r", entry_point="x.py:src", diff=""), REPOSITORY)
    assert (made.working_dir, made.entry.text) == ("src", "x.py")


@pytest.mark.parametrize(
    "script",
    [
        TaskScript(repository="r", entry_point="x.py", working_dir=".."),
        TaskScript(repository="r", entry_point="x.py", working_dir="a/../../b"),
        TaskScript(repository="r", entry_point="x.py", working_dir="/etc"),
        TaskScript(repository="r", entry_point="../x.py"),
        TaskScript(repository="r", entry_point="/usr/bin/x.py"),
    ],
)
def test_path_out_of_the_repository_is_refused(script: TaskScript) -> None:
    with pytest.raises(SourceError, match="outside"):
        plan_layout(script, REPOSITORY)


def test_name_of_a_script_cannot_leave_its_folder() -> None:
    assert plan_layout(TaskScript(diff=TEXT, entry_point="../../etc/passwd"), SCRIPT).script_file == "passwd"
    assert plan_layout(TaskScript(diff=TEXT, entry_point="a/.."), SCRIPT).script_file == "untitled.py"


@pytest.mark.parametrize(
    ("script", "entry"),
    [
        (TaskScript(entry_point="a/x.py"), EntryPoint(EntryKind.PYTHON, "a/x.py")),
        (TaskScript(entry_point="x.py", binary="python3.11"), EntryPoint(EntryKind.PYTHON, "x.py")),
        (TaskScript(entry_point="-m pkg.mod --a 1"), EntryPoint(EntryKind.MODULE, "pkg.mod --a 1")),
        (TaskScript(entry_point="n.ipynb"), EntryPoint(EntryKind.NOTEBOOK, "n.ipynb")),
        (TaskScript(entry_point="x.sh", binary="/bin/bash"), EntryPoint(EntryKind.SHELL, "x.sh", "/bin/bash")),
        (TaskScript(entry_point="x.sh", binary="python"), EntryPoint(EntryKind.SHELL, "x.sh", "/bin/bash")),
        (TaskScript(entry_point="-c echo $X", binary="zsh"), EntryPoint(EntryKind.SHELL_COMMAND, "echo $X", "zsh")),
        (TaskScript(entry_point="x.sh 1 2", binary="python3"), EntryPoint(EntryKind.SHELL, "x.sh 1 2", "/bin/bash")),
        (TaskScript(entry_point="n.ipynb --x", binary="python3"), EntryPoint(EntryKind.NOTEBOOK, "n.ipynb --x")),
        (
            TaskScript(entry_point="fit.R", binary="/usr/bin/Rscript"),
            EntryPoint(EntryKind.PROGRAM, "fit.R", "/usr/bin/Rscript"),
        ),
        (TaskScript(entry_point="-e 1", binary="perl"), EntryPoint(EntryKind.PROGRAM, "-e 1", "perl")),
    ],
)
def test_kind_of_the_entry(script: TaskScript, entry: EntryPoint) -> None:
    assert entry_point_of(script) == entry


@pytest.mark.parametrize(
    ("entry", "command"),
    [
        (EntryPoint(EntryKind.PYTHON, "a b.py"), ["/e/python", "-u", "-O", "a b.py"]),
        (
            EntryPoint(EntryKind.MODULE, "run --n=$N ${M} '$HOME x' $NO"),
            ["/e/python", "-u", "-O", "-m", "run", "--n=4", "two", "words", "/h x", "$NO"],
        ),
        (EntryPoint(EntryKind.SHELL, "x.sh", "bash"), ["bash", "x.sh"]),
        (EntryPoint(EntryKind.SHELL_COMMAND, "echo $N", "sh"), ["sh", "-c", "echo $N"]),
        (EntryPoint(EntryKind.NOTEBOOK, "d/n.ipynb"), ["/e/python", "-u", "-O", "-c", RUNNER, "d/n.ipynb"]),
        (
            EntryPoint(EntryKind.NOTEBOOK, "n.ipynb", arguments=("1",)),
            ["/e/python", "-u", "-O", "-c", RUNNER, "n.ipynb", "1"],
        ),
        (
            EntryPoint(EntryKind.PYTHON, "x.py", arguments=("--a", "b c")),
            ["/e/python", "-u", "-O", "x.py", "--a", "b c"],
        ),
        (EntryPoint(EntryKind.SHELL, "x.sh", "bash", ("1",)), ["bash", "x.sh", "1"]),
        (EntryPoint(EntryKind.PROGRAM, "fit R.R", "Rscript", ("1",)), ["Rscript", "fit R.R", "1"]),
        (EntryPoint(EntryKind.PROGRAM, "-e 'print 1'", "perl"), ["perl", "-e", "print 1"]),
    ],
)
def test_command_of_the_task(entry: EntryPoint, command: list[str]) -> None:
    workspace = Workspace(Path("/w"), Path("/w/src"), entry)
    environ = {"N": "4", "M": "two words", "HOME": "/h"}
    assert workspace.command(Path("/e/python"), environ, options=["-O"]) == command


@pytest.mark.parametrize(
    ("entry_point", "file", "arguments"),
    [
        ("train.py --lr 0.1 'a b'", "train.py", ("--lr", "0.1", "a b")),
        ("deep/train.py --out ../x", "train.py", ("--out", "../x")),
        ("my train.py", "my train.py", ()),
        ("it's.py", "it's.py", ()),
        ("train.py", "train.py", ()),
    ],
)
def test_arguments_are_separated_from_the_script_name(entry_point: str, file: str, arguments: tuple[str, ...]) -> None:
    made = plan_layout(TaskScript(entry_point=entry_point, diff=TEXT), SCRIPT)
    assert (made.script_file, made.entry.text, made.entry.arguments) == (file, file, arguments)


def test_folder_of_the_script_is_the_entry_files() -> None:
    assert Workspace(Path("/w"), Path("/w/src"), EntryPoint(EntryKind.PYTHON, "a/x.py")).script_dir == Path("/w/src/a")
    assert Workspace(Path("/w"), Path("/w/src"), EntryPoint(EntryKind.MODULE, "a")).script_dir == Path("/w/src")
