"""What hpc-task makes of real git repositories and folders, before any server is asked."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from local_clone import Clone

from hpc_agent.drafts.draft_plan import DraftPlan, plan
from hpc_agent.drafts.draft_request import DraftRequest
from hpc_agent.drafts.locate import PYTHON
from hpc_agent.drafts.repository import without_password
from hpc_agent.errors import InputError, SourceError
from hpc_agent.sources import changes


@pytest.fixture
def clone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Clone:
    for name in list(os.environ):
        if name.startswith("GIT_"):
            monkeypatch.delenv(name)
    return Clone.make(tmp_path)


def planned(here: Path, **flags: object) -> DraftPlan:
    return plan(DraftRequest(name="n", project="p", **flags), here, "a comment")  # type: ignore[arg-type]


def test_a_script_in_a_clone(clone: Clone) -> None:
    found = planned(clone.root, script="train.py")
    script = found.draft.script
    assert (script.repository, script.branch, script.commit) == (str(clone.remote), "main", clone.head)
    assert (script.entry_point, script.working_dir, script.binary) == ("train.py", ".", PYTHON)
    assert script.requirements.pip is None
    assert found.warnings == ()


@pytest.mark.parametrize(
    ("here", "flags", "entry_point", "working_dir"),
    [
        ("src", {"script": "deep.py"}, "deep.py", "src"),
        ("src", {"script": "../train.py"}, "../train.py", "src"),
        (".", {"script": "src/deep.py"}, "src/deep.py", "."),
        (".", {"script": "src/deep.py", "cwd": "src"}, "deep.py", "src"),
        ("..", {"script": "code/src/deep.py"}, "src/deep.py", "."),
        ("..", {"folder": "code", "script": "src/deep.py"}, "src/deep.py", "."),
        ("..", {"folder": "code/src", "script": "deep.py"}, "src/deep.py", "."),
        ("..", {"repo": "code", "script": "deep.py", "cwd": "src"}, "deep.py", "src"),
        ("src", {"folder": "..", "script": "train.py"}, "train.py", "."),
        ("..", {"folder": "code", "module": "pkg.main --x 1"}, "-m pkg.main --x 1", "."),
    ],
)
def test_where_the_script_is_and_runs(
    clone: Clone, here: str, flags: dict[str, str], entry_point: str, working_dir: str
) -> None:
    script = planned(clone.root / here, **flags).draft.script
    assert (script.entry_point, script.working_dir) == (entry_point, working_dir)


def test_all_uncommitted_changes_travel_and_apply(clone: Clone, tmp_path: Path) -> None:
    clone.git("config", "diff.noprefix", "true")
    clone.git("config", "color.ui", "always")
    clone.write("train.py", "print(1)\nprint('ünstaged')\n")
    clone.write("new.py", "print('staged')\n")
    (clone.root / "data.bin").write_bytes(bytes(range(256)))
    clone.git("add", "new.py", "data.bin")
    clone.write("untracked.txt", "stays")
    script = planned(clone.root, script="new.py").draft.script
    clone.git("clone", "--quiet", str(clone.remote), str(tmp_path / "job"), cwd=tmp_path)
    changes.apply(changes.read_patch(script.diff), tmp_path / "job", label="the test")
    assert (tmp_path / "job" / "train.py").read_text() == "print(1)\nprint('ünstaged')\n"
    assert (tmp_path / "job" / "new.py").read_text().endswith("print('staged')\n")
    assert (tmp_path / "job" / "data.bin").read_bytes() == bytes(range(256))
    assert (tmp_path / "job" / "requirements.txt").read_text() == "clearml\nnumpy\n"
    assert not (tmp_path / "job" / "untracked.txt").exists()


def test_commits_that_were_not_pushed_travel_as_changes(clone: Clone) -> None:
    pushed = clone.head
    clone.write("train.py", "print(2)\n")
    clone.git("commit", "--quiet", "-am", "two")
    found = planned(clone.root, script="train.py", packages=("x",))
    assert found.draft.script.commit == pushed
    assert "+print(2)" in found.draft.script.diff
    assert found.warnings == ()


def test_a_branch_that_was_never_pushed_is_warned_of(clone: Clone) -> None:
    clone.git("checkout", "--quiet", "-b", "feature")
    clone.git("commit", "--quiet", "--allow-empty", "-m", "two")
    found = planned(clone.root, script="train.py")
    assert (found.draft.script.branch, found.draft.script.commit) == ("feature", clone.head)
    assert "push it before the task runs" in found.warnings[0]


def test_a_detached_head_on_a_pushed_commit_is_fine(clone: Clone) -> None:
    clone.git("remote", "set-head", "origin", "main")
    clone.git("checkout", "--quiet", "--detach")
    found = planned(clone.root, script="train.py")
    assert (found.draft.script.branch, found.draft.script.commit) == ("main", clone.head)
    assert found.warnings == ()


def test_a_remote_of_another_name(clone: Clone) -> None:
    clone.git("remote", "rename", "origin", "upstream")
    script = planned(clone.root, script="train.py").draft.script
    assert (script.repository, script.branch) == (str(clone.remote), "main")
    clone.git("checkout", "--quiet", "--detach")
    assert planned(clone.root, script="train.py").draft.script.repository == str(clone.remote)


def test_a_commit_or_branch_that_was_asked_for_runs_as_it_is(clone: Clone) -> None:
    first = clone.head
    clone.write("train.py", "from __future__ import annotations\nprint(2)\n")
    clone.git("commit", "--quiet", "-am", "two")
    clone.git("push", "--quiet")
    clone.write("train.py", "print(3)\n")
    at_commit = planned(clone.root, script="train.py", commit=first[:10], packages=("x",))
    assert at_commit.draft.script.commit == first
    assert "print(3)" not in at_commit.draft.script.diff and "@@ -0,0 +1,4 @@" in at_commit.draft.script.diff
    assert "does not travel" in at_commit.warnings[0]
    at_branch = planned(clone.root, script="train.py", branch="main", packages=("x",)).draft.script
    assert (at_branch.branch, at_branch.commit) == ("main", "")
    assert "@@ -1,0 +2,4 @@" in at_branch.diff


def test_a_script_from_elsewhere_runs_in_the_repository(clone: Clone, tmp_path: Path) -> None:
    clone.write("train.py", "print(2)\n")
    outside = tmp_path / "outside.py"
    outside.write_text("print('outside')\n")
    found = planned(tmp_path, folder="code", script=str(outside), cwd="src")
    script = found.draft.script
    assert (script.repository, script.entry_point, script.working_dir) == (str(clone.remote), "outside.py", "src")
    assert "print('outside')" in script.diff and "diff --git" not in script.diff
    assert "do not travel" in found.warnings[0]


def test_without_repository_the_script_travels_alone(clone: Clone) -> None:
    script = planned(clone.root, script="src/deep.py", skip_repo_detection=True, packages=("x",)).draft.script
    assert (script.repository, script.entry_point, script.working_dir) == ("", "deep.py", ".")
    assert script.diff.startswith("from __future__ import annotations\ntry: ")


def test_the_user_of_an_ssh_address_stays_but_no_password_does() -> None:
    assert without_password("https://u:p@host:8443/a.git") == "https://host:8443/a.git"
    assert without_password("https://token@host/a.git") == "https://host/a.git"
    assert without_password("ssh://git:p@host:22/a.git") == "ssh://git@host:22/a.git"
    assert without_password("git@host:a.git") == "git@host:a.git"


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ({"script": "none.py"}, "does not exist"),
        ({"script": "src"}, "does not exist"),
        ({"folder": "none", "script": "train.py"}, "--folder none is not a folder"),
        ({"repo": "none", "script": "train.py"}, "nor the address of a repository"),
        ({"script": "train.py", "cwd": "none"}, "--cwd none is not a folder"),
        ({"script": "train.py", "cwd": "../.."}, "--cwd ../.. is not a folder"),
        ({"script": "untracked.py"}, "git add"),
        ({"script": "latin.py"}, "not UTF-8"),
        ({"script": "train.py", "commit": "beef"}, "does not have 'beef'"),
        ({"script": "train.py", "branch": "none"}, "no branch or tag 'none'"),
        ({"script": "train.py", "requirements": "none.txt"}, "none.txt does not exist"),
        ({"script": "train.py", "docker_args": "-e 'A"}, "no closing quotation"),
        ({"script": "train.py", "docker_bash_setup_script": "./none.sh"}, "none.sh"),
        ({"script": "train.py", "output_uri": "results"}, "--output-uri results"),
    ],
)
def test_what_cannot_be_is_refused(clone: Clone, flags: dict[str, str], words: str) -> None:
    clone.write("untracked.py", "")
    clone.write(".gitattributes", "latin.py -diff\n")
    (clone.root / "latin.py").write_bytes(b"# \xe9\n")
    clone.git("add", "latin.py")
    with pytest.raises((InputError, SourceError), match=words):
        planned(clone.root, **flags)


def test_repositories_that_others_cannot_fetch_are_refused(clone: Clone, tmp_path: Path) -> None:
    fresh = tmp_path / "fresh"
    clone.git("init", "--quiet", str(fresh), cwd=tmp_path)
    (fresh / "a.py").write_text("")
    with pytest.raises(SourceError, match="has no commit yet"):
        planned(fresh, script="a.py", packages=("x",))
    clone.git("add", ".", cwd=fresh)
    clone.git("commit", "--quiet", "-m", "one", cwd=fresh)
    with pytest.raises(SourceError, match="has no remote"):
        planned(fresh, script="a.py", packages=("x",))
    with pytest.raises(SourceError, match="file://"):
        planned(tmp_path, repo=str(clone.remote), script="a.py")
    with pytest.raises(SourceError, match="not all UTF-8"):
        (clone.root / "train.py").write_bytes(b"# \xe9\n")
        planned(clone.root, script="src/deep.py")


def test_changes_too_large_for_a_task_are_refused(clone: Clone) -> None:
    clone.write("requirements.txt", "x" * 6_000_000)
    with pytest.raises(SourceError, match=r"6\.0 MB"):
        planned(clone.root, script="train.py")


def test_code_that_names_no_packages_is_refused(clone: Clone, tmp_path: Path) -> None:
    (tmp_path / "alone.py").write_text("")
    with pytest.raises(InputError, match="without a repository"):
        planned(tmp_path, script="alone.py")
    with pytest.raises(InputError, match="without a repository"):
        planned(tmp_path, module="somewhere")
    clone.git("rm", "--quiet", "requirements.txt")
    with pytest.raises(InputError, match="neither requirements"):
        planned(clone.root, script="train.py")
    assert planned(tmp_path, script="alone.py", force_no_requirements=True).draft.script.requirements.pip == ()


def test_a_module_of_a_folder_without_git_cannot_travel(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="could not be brought to another machine"):
        planned(tmp_path, folder=str(tmp_path), module="pkg", packages=("x",))
    with pytest.raises(InputError, match="--branch and --commit need a git repository"):
        (tmp_path / "a.py").write_text("")
        planned(tmp_path, script="a.py", branch="main", packages=("x",))


def test_container_and_the_rest(tmp_path: Path) -> None:
    (tmp_path / "a.sh").write_text("ls\n")
    (tmp_path / "setup.sh").write_text("#!/bin/sh\napt update\necho \\\n  1\n")
    draft = planned(
        tmp_path,
        script="a.sh",
        docker="image -e A=1",
        docker_bash_setup_script="setup.sh",
        skip_python_env_install=True,
        output_uri="/data/x",
        args=("a=1", "b=2=3"),
        tags=("t",),
    ).draft
    assert (draft.container.image, draft.container.arguments) == (
        "image",
        "-e A=1 -e CLEARML_AGENT_SKIP_PYTHON_ENV_INSTALL=1",
    )
    assert draft.container.setup_shell_script == "apt update\necho \\\n  1\n"
    assert (draft.output_uri, draft.arguments, draft.tags) == ("file:///data/x", {"a": "1", "b": "2=3"}, ("t",))
    assert (draft.type, draft.script.binary, draft.script.diff) == ("training", "/bin/bash", "ls\n")


@pytest.mark.parametrize(
    ("name", "text", "flags", "words"),
    [
        ("a.sh", "ls\n", {}, "a shell runs it"),
        ("a.R", "x\n", {"binary": "Rscript"}, "Rscript runs it"),
        ("a.ipynb", '{"cells": []}', {}, "no cell names clearml"),
        ("a.py", "import argparse\n", {"skip_task_init": True}, "--skip-task-init leaves out"),
        ("a.py", "import os, json.decoder\nfrom sys import argv\n", {}, "imports nothing that could read them"),
        ("a.py", "import argparse\n", {}, ""),
        ("a.py", "from options import parsed\n", {}, ""),
        ("a.py", "from . import options\n", {}, ""),
        ("a.py", "from clearml import Task\n", {"skip_task_init": True}, ""),
        ("a.py", "no python\n", {}, ""),
    ],
)
def test_arguments_that_cannot_reach_the_code_cause_a_warning(
    tmp_path: Path, name: str, text: str, flags: dict[str, object], words: str
) -> None:
    (tmp_path / name).write_text(text)
    warnings = planned(tmp_path, script=name, packages=("x",), args=("lr=1",), **flags).warnings
    assert [words in warning for warning in warnings] == ([True] if words else [])
    assert planned(tmp_path, script=name, packages=("x",), **flags).warnings == ()


def test_a_pipeline_lives_in_a_hidden_project(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text("x = 1\n")
    draft = planned(tmp_path, script="a.py", packages=("x",), pipeline=True, task_type="qc").draft
    assert (draft.project, draft.type, draft.properties) == ("p/.pipelines/n", "controller", {"version": "1.0.0"})
    assert draft.system_tags == ("pipeline", "development")
    assert draft.script.diff == "x = 1\n"
