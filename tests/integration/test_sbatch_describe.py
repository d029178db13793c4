"""The task of a submission, from real repositories; what an agent does with it is run with real git and bash."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from hpc_agent.domain.task import TaskScript
from hpc_agent.tracking.describe import (
    INDEX,
    SubmittedScript,
    TaskDescription,
    describe,
    interpreter,
    new_file,
    reads_bash_env,
)
from hpc_agent.tracking.sbatch_options import ArrayElements

SCRIPT = '#!/bin/bash\necho "$SLURM_SUBMIT_DIR|$PWD|$SLURM_ARRAY_TASK_ID|$*"\n'
NO_ARRAY = ArrayElements()


def git(folder: Path, *arguments: str) -> None:
    subprocess.run(["git", "-c", "user.name=a", "-c", "user.email=a@b", *arguments], cwd=folder, check=True)


@pytest.fixture
def code(tmp_path: Path) -> Path:
    """A pushed repository with a script at jobs/run.sh."""
    remote, folder = tmp_path / "remote.git", tmp_path / "a lab"
    git(tmp_path, "init", "-q", "--bare", "-b", "main", str(remote))
    git(tmp_path, "init", "-q", "-b", "main", str(folder))
    (folder / "jobs").mkdir()
    (folder / "jobs" / "run.sh").write_text(SCRIPT)
    git(folder, "add", ".")
    git(folder, "commit", "-q", "-m", "first")
    git(folder, "remote", "add", "origin", f"file://{remote}")
    git(folder, "push", "-q", "-u", "origin", "main")
    return folder


def submitted(path: Path | None, workdir: Path, *arguments: str, text: str = SCRIPT) -> SubmittedScript:
    return SubmittedScript(text, path, path.name if path else "wrap.sh", arguments, workdir)


def run(script: TaskScript, folder: Path, entry_point: str = "") -> list[str]:
    """As an agent runs it: a checkout of the repository with the patch, or an empty folder with the text."""
    checkout = folder / "checkout"
    if script.repository:
        git(folder, "clone", "-q", script.repository.removeprefix("file://"), str(checkout))
        git(checkout, "checkout", "-q", script.commit)
        if script.diff:
            subprocess.run(["git", "apply", "-"], cwd=checkout, input=script.diff, text=True, check=True)
        start = checkout / script.working_dir
    else:
        checkout.mkdir()
        start = checkout
        (checkout / script.working_dir.partition(":")[2]).write_text(script.diff)
    line = (entry_point or script.entry_point).removeprefix("-c ")
    done = subprocess.run([script.binary, "-c", line], cwd=start, text=True, capture_output=True, check=True)
    return done.stdout.replace(str(checkout), "CHECKOUT").splitlines()


def test_a_script_of_a_repository_runs_from_where_it_was_submitted(code: Path, tmp_path: Path) -> None:
    found = describe(submitted(code / "jobs" / "run.sh", code, "a b", "$HOME"), NO_ARRAY)
    assert (found.project, found.notes, found.script.working_dir) == ("remote", (), ".")
    assert run(found.script, tmp_path) == ["CHECKOUT|CHECKOUT||a b $HOME"]


def test_the_folder_of_submission_may_lie_below_the_root(code: Path, tmp_path: Path) -> None:
    found = describe(submitted(code / "jobs" / "run.sh", code / "jobs"), NO_ARRAY)
    assert found.script.working_dir == "jobs"
    assert run(found.script, tmp_path) == ["CHECKOUT/jobs|CHECKOUT/jobs||"]


@pytest.mark.parametrize("name", ["new.sh", "new script (1).sh", "jobs/ünïcode.sh"])
def test_a_script_that_git_does_not_track_travels_in_the_patch(code: Path, tmp_path: Path, name: str) -> None:
    (code / "jobs" / "run.sh").write_text("changed\n")
    (code / name).write_text(SCRIPT)
    found = describe(submitted(code / name, code, "x"), NO_ARRAY)
    assert run(found.script, tmp_path) == ["CHECKOUT|CHECKOUT||x"]
    assert (tmp_path / "checkout" / "jobs" / "run.sh").read_text() == "changed\n"


def test_a_script_from_elsewhere_travels_into_the_repository(code: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "home" / "run.sh"
    elsewhere.parent.mkdir()
    found = describe(submitted(elsewhere, code / "jobs"), NO_ARRAY)
    assert "b/jobs/sbatch_run.sh" in found.script.diff, "the repository has a run.sh of its own there"
    assert run(found.script, tmp_path) == ["CHECKOUT/jobs|CHECKOUT/jobs||"]


def test_a_wrapped_command_travels_into_the_repository(code: Path, tmp_path: Path) -> None:
    found = describe(submitted(None, code, text='#!/bin/sh\necho "$SLURM_SUBMIT_DIR"\n'), NO_ARRAY)
    assert run(found.script, tmp_path) == ["CHECKOUT"]


def test_a_script_of_a_repository_that_starts_elsewhere_starts_there_again(code: Path, tmp_path: Path) -> None:
    data = tmp_path / "some data"
    data.mkdir()
    found = describe(submitted(code / "jobs" / "run.sh", data, "x"), NO_ARRAY)
    assert found.script.repository
    assert run(found.script, tmp_path) == [f"{data}|{data}||x"]


def test_a_script_without_repository_starts_in_its_old_folder(tmp_path: Path) -> None:
    folder = tmp_path / "it's here"
    folder.mkdir()
    found = describe(submitted(folder / "run.sh", folder, "a  b"), NO_ARRAY)
    assert (found.project, found.script.repository) == ("it's here", "")
    assert run(found.script, tmp_path) == [f"{folder}|{folder}||a  b"]


def test_the_elements_of_an_array_run_one_by_one_or_alone(tmp_path: Path) -> None:
    found = describe(submitted(tmp_path / "run.sh", tmp_path), ArrayElements("1-5:2,9", (1, 3, 5, 9)))
    assert [line.split("|")[2] for line in run(found.script, tmp_path)] == ["1", "3", "5", "9"]
    (tmp_path / "alone").mkdir()
    [line] = run(found.script, tmp_path / "alone", found.element.replace(INDEX, "3"))
    assert line.split("|")[2] == "3"


def test_an_array_fails_with_its_last_failure_and_runs_all(tmp_path: Path) -> None:
    text = "#!/bin/bash\necho $SLURM_ARRAY_TASK_ID >>ran; exit $(( SLURM_ARRAY_TASK_ID % 2 ))\n"
    found = describe(submitted(tmp_path / "run.sh", tmp_path, text=text), ArrayElements("1-3", (1, 2, 3)))
    with pytest.raises(subprocess.CalledProcessError):
        run(found.script, tmp_path)
    assert (tmp_path / "ran").read_text().split() == ["1", "2", "3"]


def test_a_repository_that_others_cannot_get_is_none(tmp_path: Path) -> None:
    git(tmp_path, "init", "-q", ".")
    found = describe(submitted(tmp_path / "run.sh", tmp_path), NO_ARRAY)
    assert found.script.repository == ""
    assert found.notes[0].startswith("No repository is recorded: ")


def test_unpushed_commits_travel_where_the_branch_has_an_upstream_and_are_mentioned_where_not(code: Path) -> None:
    (code / "more.txt").write_text("more\n")
    git(code, "add", ".")
    git(code, "commit", "-q", "-m", "second")
    path = code / "jobs" / "run.sh"
    assert "+more" in describe(submitted(path, code), NO_ARRAY).script.diff
    git(code, "checkout", "-q", "-b", "own")
    found: TaskDescription = describe(submitted(path, code), NO_ARRAY)
    assert "push it before a clone runs" in found.notes[0]


@pytest.mark.parametrize("text", ["", "one line\n", "no end", "a\r\nb\x0cc\u2028d\n", "\n\n"])
def test_a_new_file_in_a_patch_holds_exactly_its_text(tmp_path: Path, text: str) -> None:
    git(tmp_path, "init", "-q", ".")
    subprocess.run(["git", "apply", "-"], cwd=tmp_path, input=new_file("x/y.sh", text).encode(), check=True)
    assert (tmp_path / "x" / "y.sh").read_bytes().decode() == text


@pytest.mark.parametrize(
    ("first", "words", "bash"),
    [
        ("#!/bin/bash", ["/bin/bash"], True),
        ("#! /usr/bin/env bash", ["/usr/bin/env", "bash"], True),
        ("#!/usr/bin/env -S bash -eu", ["/usr/bin/env", "-S", "bash", "-eu"], True),
        ("#!/bin/bash -l", ["/bin/bash", "-l"], True),
        ("#!/bin/bash -p", ["/bin/bash", "-p"], False),
        ("#!/bin/bash --posix", ["/bin/bash", "--posix"], False),
        ("#!/bin/bash -v", ["/bin/bash", "-v"], False),
        ("#!/bin/sh", ["/bin/sh"], False),
        ("#!/usr/bin/env python3", ["/usr/bin/env", "python3"], False),
        ("#!/usr/bin/env", ["/usr/bin/env"], False),
        ("echo", ["/bin/sh"], False),
    ],
)
def test_the_interpreter_of_a_script(first: str, words: list[str], bash: bool) -> None:
    assert interpreter(f"{first}\necho\n") == words
    assert reads_bash_env(f"{first}\necho\n") is bash
