"""What hpc-task puts into a script, a patch and a package list."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from hpc_agent.domain.task import Requirements
from hpc_agent.drafts.code import Code, script_section
from hpc_agent.drafts.draft_requirements import packages_as_lines, read_requirements, requirement_problem, with_clearml
from hpc_agent.errors import InputError
from hpc_agent.sources import changes
from hpc_agent.sources.changes import INIT, add_lines, first_free_line, text_with_init

DOC = '#!/usr/bin/env python\n"""doc\n\nfrom __future__ import x\n"""\n'
FUTURE = DOC + "from __future__ import (annotations,\n    division)\n"
CLEARML = add_lines("", "requirements.txt", 0, ["clearml\n"])
INITIALISED = add_lines("", "src/train.py", 0, INIT)
REPOSITORY = Code("train.py", "src", "https://host/a.git", "main", "c0ffee", "diff --git a/x b/x\n", text="import os\n")


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("", 0),
        ("import os\n", 0),
        (FUTURE + "import os\n", 7),
        ("from __future__ import annotations\nfrom __future__ import division; x = 1\n", 2),
        ("# from __future__ import annotations\n", 0),
        ("def broken(:\n", 0),
        ("from __future__ import annotations\nx = '\\d'\n", 1),
    ],
)
def test_init_goes_below_the_future_imports(text: str, line: int) -> None:
    assert first_free_line(text) == line


def test_a_script_with_init_is_a_task_only_when_it_is_the_main_module(tmp_path: Path) -> None:
    """Run with a stand-in for the SDK, as the main program and imported."""
    (tmp_path / "clearml.py").write_text("class Task:\n    @staticmethod\n    def init():\n        print('init')\n")
    (tmp_path / "train.py").write_text(text_with_init(FUTURE + "print('body')"))

    def run(*argv: str) -> str:
        return subprocess.run([sys.executable, *argv], cwd=tmp_path, text=True, capture_output=True, check=True).stdout

    assert run("train.py").split() == ["init", "body"]
    assert run("-c", "import train").split() == ["body"]


@pytest.mark.parametrize("text", ["print(1)\n", FUTURE + "print(1)\n", "print(1)"])
def test_the_hunk_makes_the_same_file_as_the_text(tmp_path: Path, text: str) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "train.py").write_text(text)
    changes.apply(
        changes.read_patch(add_lines("", "a/../a/train.py", first_free_line(text), INIT)), tmp_path, label="the test"
    )
    assert (tmp_path / "a" / "train.py").read_text() == text_with_init(text)
    assert len(INIT) == 4


@pytest.mark.parametrize(
    "text", ["", "print(1)\n", "print(1)", FUTURE, FUTURE + "print(1)\r\nprint(2)", FUTURE.rstrip()]
)
def test_a_script_that_the_patch_itself_creates(tmp_path: Path, text: str) -> None:
    """As agents apply it: they make the files that a patch changes, so a file must not be created and changed."""
    origin, job = tmp_path / "origin", tmp_path / "job"
    for folder in (origin, job):
        folder.mkdir()
        subprocess.run(["git", "init", "--quiet"], cwd=folder, check=True)
    (origin / "new.py").write_text(text, newline="")
    (origin / "other.txt").write_text("other")
    subprocess.run(["git", "add", "."], cwd=origin, check=True)
    patch = subprocess.run(["git", "diff", "--cached"], cwd=origin, text=True, capture_output=True, check=True).stdout
    patch = add_lines(patch, "new.py", first_free_line(text), INIT)
    changes.apply(changes.read_patch(patch), job, label="the test")
    assert (job / "new.py").read_text() == text_with_init(text.replace("\r\n", "\n"))
    assert (job / "other.txt").read_text() == "other"


def test_the_reference_tools_patch_for_a_new_script_applies_too(tmp_path: Path) -> None:
    """clearml-task creates the file in one part of the patch and adds the call in another."""
    creation = (
        "diff --git a/new.py b/new.py\nnew file mode 100644\n--- /dev/null\n+++ b/new.py\n@@ -0,0 +1 @@\n+print(1)\n"
    )
    changes.apply(changes.read_patch(creation + add_lines("", "new.py", 0, INIT)), tmp_path, label="the test")
    assert (tmp_path / "new.py").read_text() == text_with_init("print(1)\n")


def test_a_repository_script_gets_its_changes_then_clearml_then_init() -> None:
    diff = script_section(REPOSITORY, Requirements(), init=True).diff
    assert diff == REPOSITORY.diff + CLEARML + INITIALISED


@pytest.mark.parametrize(
    ("code", "requirements", "init", "diff"),
    [
        (REPOSITORY, Requirements(), False, REPOSITORY.diff),
        (REPOSITORY, Requirements(pip=("x",)), True, REPOSITORY.diff + INITIALISED),
        (REPOSITORY, Requirements(pip=()), True, REPOSITORY.diff + INITIALISED),
        (Code("-m a.b", repository="https://host/a.git"), Requirements(), True, CLEARML),
        (Code("run.sh", repository="https://host/a.git"), Requirements(), True, CLEARML),
        (Code("a.ipynb", repository="https://host/a.git"), Requirements(pip=("x",)), True, ""),
        (Code("a.py", text="x = 1", literal=True), Requirements(pip=("x",)), True, "".join(INIT) + "x = 1\n"),
        (Code("a.py", text="x = 1", literal=True), Requirements(pip=("x",)), False, "x = 1"),
        (Code("a.sh", text="ls", literal=True), Requirements(), True, "ls"),
        (Code("-m a.b"), Requirements(pip=("x",)), True, ""),
    ],
)
def test_what_travels(code: Code, requirements: Requirements, init: bool, diff: str) -> None:
    assert script_section(code, requirements, init=init).diff == diff


@pytest.mark.parametrize(
    ("code", "asked", "binary"),
    [
        (Code("a.py", python="python3.11"), "", "python3.11"),
        (Code("a.py"), "", ""),
        (Code("a.SH"), "", "/bin/bash"),
        (Code("-m a.sh"), "", ""),
        (Code("a.sh"), "/bin/zsh", "/bin/zsh"),
    ],
)
def test_which_program_runs_it(code: Code, asked: str, binary: str) -> None:
    assert script_section(code, Requirements(), init=True, binary=asked).binary == binary


@pytest.mark.parametrize(
    "line",
    [
        "",
        "# all",
        "numpy",
        "numpy==1.26 # why",
        "Torch[cuda]>=2,<3 ; python_version > '3.9'",
        "pkg @ https://host/pkg.whl",
        "git+https://host/a.git@v1#egg=a",
        "https://host/a-1.0-py3-none-any.whl",
        "./local",
        "dist/a-1.0.tar.gz",
        "-e .",
        "--extra-index-url https://host/simple",
        "-r https://host/more.txt",
        "numpy==1.0 --hash=sha256:abc --hash sha256:def",
        '-e ".[dev]"',
        "--extra-index-url https://host/simple --trusted-host host",
    ],
)
def test_lines_that_pip_understands(line: str) -> None:
    assert requirement_problem(line) == ""


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("numpy=1.0", 'pinned with "=="'),
        ("numpy torch", "xpected"),
        ("numpy>>1", "xpected"),
        ("==1.0", "xpected"),
        ("--frobnicate", "no such option"),
        ("--index-url", "needs a value"),
        ("x @ https://host/${TOKEN}/x.whl", "variables"),
        ('-r "a', "closing quotation"),
    ],
)
def test_lines_that_pip_would_refuse(line: str, words: str) -> None:
    assert words in requirement_problem(line)


def test_a_requirements_file_with_its_includes_in_place(tmp_path: Path) -> None:
    (tmp_path / "more").mkdir()
    (tmp_path / "all.txt").write_text("# c\n  numpy==1.0 \\\n  --hash=sha256:a\n\n-r more/base.txt\ntorch\n")
    (tmp_path / "more" / "base.txt").write_text("-c https://host/c.txt\nscipy")
    assert read_requirements(tmp_path / "all.txt") == (
        "# c",
        "numpy==1.0 \\",
        "--hash=sha256:a",
        "",
        "-c https://host/c.txt",
        "scipy",
        "torch",
    )


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("numpy\n\ntorch=2\n", "all.txt, line 3: 'torch=2' is not a requirement"),
        ("numpy\n--requirement none.txt\n", "line 2: the file"),
        ("-r all.txt\n", "includes itself"),
    ],
)
def test_a_wrong_line_is_named_with_its_number(tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / "all.txt").write_text(text)
    with pytest.raises(InputError, match=words.replace("(", r"\(")):
        read_requirements(tmp_path / "all.txt")


def test_a_binary_requirements_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "all.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match="not UTF-8"):
        read_requirements(tmp_path / "all.txt")


def test_a_file_with_blanks_in_its_name_is_included_and_other_options_of_its_line_stay(tmp_path: Path) -> None:
    (tmp_path / "all.txt").write_text('-r "my list.txt" --pre\n')
    (tmp_path / "my list.txt").write_bytes("scipy\n".encode("utf-16"))
    assert read_requirements(tmp_path / "all.txt") == ("scipy", "--pre")


def test_packages_can_be_given_in_one_value() -> None:
    assert packages_as_lines(["keras", "tqdm>=2.1 scikit-learn", "a > 1"]) == (
        "keras",
        "tqdm>=2.1",
        "scikit-learn",
        "a > 1",
    )


@pytest.mark.parametrize("value", ["", "a=1", "a b=1"])
def test_a_wrong_package_is_named(value: str) -> None:
    with pytest.raises(InputError, match="--packages"):
        packages_as_lines([value])


@pytest.mark.parametrize("line", ["clearml", "ClearML[s3]>=1 # x", "clearml @ https://host/c.whl"])
def test_clearml_is_added_once(line: str) -> None:
    assert with_clearml((line,)) == (line,)
    assert with_clearml(("# clearml", "clearml-agent")) == ("# clearml", "clearml-agent", "clearml")
