"""Tasks of every shape: files, modules, notebooks, shells, commands, other programs; from repositories and alone."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from e2e_site import Site

from hpc_agent.domain.ids import TaskId
from hpc_agent.domain.status import TaskStatus

WHERE = "import os, sys; print('ran', os.path.basename(__file__), sys.argv[1:], os.path.basename(os.getcwd()))\n"


def git(folder: Path, *arguments: str) -> None:
    identity = ["-c", "user.name=a", "-c", "user.email=a@b"]
    subprocess.run(["git", *identity, "-C", str(folder), *arguments], check=True, capture_output=True)


@pytest.fixture
def repository(machine: Site) -> str:
    """The address of a repository with something of every kind in it."""
    work = machine.folder / "work"
    work.mkdir()
    git(work, "init", "-q", "-b", "main")
    files = {
        "train.py": WHERE,
        "sub/deep.py": f"import beside\n{WHERE}",
        "sub/beside.py": "",
        "pkg/__init__.py": "",
        "pkg/mod.py": WHERE,
        "run.sh": 'echo ran "$0" "$@" in $(basename $PWD); python -c "import sys; print(sys.prefix)"\n',
        "fit.pl": 'print "ran perl @ARGV\\n";\n',
        "my train.py": WHERE,
        "requirements.txt": "",
    }
    for name, text in files.items():
        path = work / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    git(work, "add", ".")
    git(work, "commit", "-q", "-m", "first")
    git(work, "clone", "-q", "--bare", ".", "../remote.git")
    return f"file://{machine.folder}/remote.git"


def executed(site: Site, task: TaskId, *flags: str, status: TaskStatus = TaskStatus.COMPLETED, **env: str) -> str:
    """The console of a task that was run here."""
    done = site.agent("execute", "--id", task, *flags, **env)
    assert site.status(task) is status, done.stdout + done.stderr
    return site.console(task)


def task_of(site: Site, repository: str = "", diff: str = "", **script: Any) -> TaskId:
    branch = {"branch": "main"} if repository else {}
    return site.bare_task(diff, enqueue=False, **{"repository": repository, **branch, **script})


@pytest.mark.parametrize(
    ("script", "expected"),
    [
        ({"entry_point": "train.py"}, "ran train.py [] remote"),
        ({"entry_point": "train.py --lr 1 'a b'"}, "ran train.py ['--lr', '1', 'a b'] remote"),
        ({"entry_point": "my train.py"}, "ran my train.py [] remote"),
        ({"entry_point": "sub/deep.py"}, "ran deep.py [] remote"),
        ({"entry_point": "deep.py", "working_dir": "sub"}, "ran deep.py [] sub"),
        ({"entry_point": "deep.py:sub", "working_dir": ""}, "ran deep.py [] sub"),
        ({"entry_point": "-m pkg.mod --n $NUMBER"}, "ran mod.py ['--n', '42'] remote"),
        ({"entry_point": "run.sh", "binary": "/bin/bash"}, "ran run.sh in remote"),
        ({"entry_point": "run.sh one 'two three'", "binary": "python3"}, "ran run.sh one two three in remote"),
        ({"entry_point": "-c echo ran $NUMBER && ls -d sub", "binary": "bash"}, "ran 42\nsub"),
        ({"entry_point": "-c cat train.py | wc -l", "binary": "/bin/sh"}, "1\n"),
        ({"entry_point": "fit.pl a", "binary": "perl"}, "ran perl a"),
        ({"entry_point": "-e 'print qq(ran words)'", "binary": "perl"}, "ran words"),
    ],
)
def test_from_a_repository(machine: Site, repository: str, script: dict[str, str], expected: str) -> None:
    if script.get("binary") == "perl" and not shutil.which("perl"):
        pytest.skip("perl is not here")
    assert expected in executed(machine, task_of(machine, repository, **script), NUMBER="42")


@pytest.mark.parametrize(
    ("script", "expected"),
    [
        ({"entry_point": "train.py"}, "ran train.py [] code"),
        ({"entry_point": "deep/down/train.py --a"}, "ran train.py ['--a'] code"),
        ({"entry_point": ""}, "ran untitled.py [] code"),
        ({"entry_point": "train.py", "working_dir": "somewhere"}, "the working folder 'somewhere' is not used"),
        ({"entry_point": "-m mine --a", "working_dir": ".:mine.py"}, "ran mine.py ['--a'] code"),
    ],
)
def test_a_script_of_its_own(machine: Site, script: dict[str, str], expected: str) -> None:
    assert expected in executed(machine, task_of(machine, diff=WHERE, **script))


def test_a_script_of_its_own_beside_a_repository(machine: Site, repository: str) -> None:
    task = task_of(machine, repository, diff=f"import beside\n{WHERE}", entry_point="own.py", working_dir="sub")
    assert "ran own.py [] sub" in executed(machine, task)


def test_a_shell_script_of_its_own_sees_the_tasks_python(machine: Site) -> None:
    text = "echo ran $(basename $0); python -c 'import six; print(six.__version__)'"
    requirements = {"pip": "six==1.16.0"}
    task = task_of(machine, diff=text, entry_point="go.sh", binary="/bin/bash", requirements=requirements)
    console = executed(machine, task)
    assert "ran go.sh" in console and "1.16.0" in console


def test_nothing_but_a_command(machine: Site) -> None:
    task = task_of(machine, entry_point="-m platform", working_dir="")
    assert "the task has neither a repository nor a script" in executed(machine, task)


def test_a_notebook(machine: Site) -> None:
    cells = [
        {
            "cell_type": "code",
            "source": ["print('ran', 6 * 7)\n"],
            "metadata": {},
            "outputs": [],
            "execution_count": None,
        }
    ]
    notebook = {"cells": cells, "metadata": {}, "nbformat": 4, "nbformat_minor": 5}
    console = executed(machine, task_of(machine, diff=json.dumps(notebook), entry_point="deep/note.ipynb"))
    assert "ran 42" in console


def test_an_entry_that_is_not_there_is_named(machine: Site, repository: str) -> None:
    task = task_of(machine, repository, entry_point="gone.py --lr 1")
    executed(machine, task, status=TaskStatus.FAILED)
    assert "the entry point 'gone.py --lr 1' does not exist" in machine.reason(task)


def test_a_program_that_is_not_there_is_named(machine: Site) -> None:
    task = task_of(machine, diff="x", entry_point="fit.R", binary="no-such-program")
    executed(machine, task, status=TaskStatus.FAILED)
    assert "could not start no-such-program" in machine.reason(task)


@pytest.mark.parametrize(("enabled", "expected"), [("true", "seen yes"), ("false", "seen no")])
def test_the_environment_section_is_exported_where_a_site_allows_it(machine: Site, enabled: str, expected: str) -> None:
    task = task_of(machine, diff="import os; print('seen', os.environ.get('FROM_TASK', 'no'))", entry_point="t.py")
    machine.client.session.call(
        "tasks.edit_hyper_params",
        {"task": task, "hyperparams": [{"section": "Environment", "name": "FROM_TASK", "value": "yes"}]},
    )
    assert expected in executed(machine, task, CLEARML_AGENT__agent__enable_task_env=enabled)


def test_the_interpreter_that_the_task_names(machine: Site) -> None:
    version = f"{sys.version_info[0]}.{sys.version_info[1]}"
    task = task_of(machine, diff="import sys; print('ran', sys.version_info[:2])", binary=f"/usr/bin/python{version}")
    assert f"ran ({version.replace('.', ', ')})" in executed(machine, task)
