"""Tasks of every shape: files, modules, notebooks, shells, commands, other programs; from repositories and alone."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from capabilities import missing
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
        "sub/deep.py": f"import neighbour\n{WHERE}",
        "sub/neighbour.py": "",
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


def executed(site: Site, task: TaskId, *flags: str, status: TaskStatus = TaskStatus.COMPLETED, **env: Any) -> str:
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
        pytest.param({"entry_point": "fit.pl a", "binary": "perl"}, "ran perl a", marks=pytest.mark.perl),
        pytest.param(
            {"entry_point": "-e 'print qq(ran words)'", "binary": "perl"}, "ran words", marks=pytest.mark.perl
        ),
    ],
)
def test_from_a_repository(machine: Site, repository: str, script: dict[str, str], expected: str) -> None:
    if script.get("binary") == "perl" and not shutil.which("perl"):
        missing("perl", "perl is not installed")
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


def test_a_script_of_its_own_in_a_repository(machine: Site, repository: str) -> None:
    task = task_of(machine, repository, diff=f"import neighbour\n{WHERE}", entry_point="own.py", working_dir="sub")
    assert "ran own.py [] sub" in executed(machine, task)


def test_a_shell_script_of_its_own_sees_the_tasks_python(machine: Site) -> None:
    text = "echo ran $(basename $0); python -c 'import six; print(six.__version__)'"
    requirements = {"pip": "six==1.16.0"}
    task = task_of(machine, diff=text, entry_point="go.sh", binary="/bin/bash", requirements=requirements)
    console = executed(machine, task)
    assert "ran go.sh" in console and "1.16.0" in console


def test_only_a_command(machine: Site) -> None:
    task = task_of(machine, entry_point="-m platform", working_dir="")
    assert "the task has neither a repository nor a script" in executed(machine, task)


def notebook(*sources: str) -> str:
    """A notebook with a cell for each text, and a raw one."""
    cells = [
        {"cell_type": "code", "source": source.splitlines(keepends=True), "metadata": {}, "outputs": []}
        for source in sources
    ]
    raw = {"cell_type": "raw", "source": ["this is not a {program\n"], "metadata": {}}
    return json.dumps({"cells": [raw, *cells], "metadata": {}, "nbformat": 4, "nbformat_minor": 5})


def test_a_notebook_runs_as_in_jupyter(machine: Site) -> None:
    text = notebook(
        "print('ran', 6 * 7)\n",
        "!echo from $((1 + 1)) shells\n%time x = 1\n",
        "%%bash\necho a cell of bash\n",
        "import asyncio\nprint(await asyncio.sleep(0, 'awaited'))\n",
        "'the last ' + 'expression'\n",
    )
    console = executed(machine, task_of(machine, diff=text, entry_point="deep/note.ipynb"))
    for words in ("ran 42", "from 2 shells", "Wall time", "a cell of bash", "awaited", "'the last expression'"):
        assert words in console


def test_a_notebook_may_end_itself_and_leave_cells_out(machine: Site) -> None:
    text = json.loads(
        notebook("raise ValueError('left out')\n", "print('ran'); exit()\nprint('its cell')\n", "1 / 0\n")
    )
    text["cells"][1]["metadata"] = {"tags": ["skip-execution"]}
    text["cells"][2]["metadata"] = None
    task = task_of(machine, diff=json.dumps(text), entry_point="note.ipynb")
    console = executed(machine, task, HOME=str(machine.folder))
    assert "ran" in console and "its cell" in console
    assert not list(machine.folder.glob(".ipython/**/*.sqlite"))


@pytest.mark.parametrize("text", ['{"cells": [', "<<<<<<< HEAD\n{}\n", "[]"])
def test_a_file_that_is_not_a_notebook_is_named(machine: Site, text: str) -> None:
    console = executed(machine, task_of(machine, diff=text, entry_point="note.ipynb"), status=TaskStatus.FAILED)
    assert "note.ipynb is not a notebook" in console
    assert "Traceback" not in console


def test_a_notebook_ends_with_its_first_error(machine: Site) -> None:
    text = notebook("print('before')\n", "raise ValueError('mine')\n", "print('not reached')\n")
    console = executed(machine, task_of(machine, diff=text, entry_point="note.ipynb"), status=TaskStatus.FAILED)
    assert "before" in console and "ValueError: mine" in console
    assert "not reached" not in console.replace("print('not reached')", "")


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


class TestVariables:
    """The variables of ClearML's agent that bend how a task runs (docs/environment-variables.md)."""

    def test_force_exec_script(self, machine: Site, repository: str) -> None:
        task = task_of(machine, repository, entry_point="gone.py")
        assert "ran deep.py [] sub" in executed(machine, task, CLEARML_AGENT_FORCE_EXEC_SCRIPT="sub:deep.py")
        again = task_of(machine, repository, entry_point="deep.py", working_dir="sub")
        assert "ran train.py [] remote" in executed(machine, again, CLEARML_AGENT_FORCE_EXEC_SCRIPT="train.py")

    @pytest.mark.peers
    def test_force_task_init(self, machine: Site) -> None:
        text = "from __future__ import annotations\nimport os; print('ran', os.environ['CLEARML_TASK_ID'])\n"
        task = task_of(machine, diff=text, entry_point="plain.py", requirements={"pip": ""})
        console = executed(machine, task, CLEARML_AGENT_FORCE_TASK_INIT="1")
        assert "Added a call of Task.init to plain.py" in console
        assert f"ran {task}" in console
        # What only the SDK stores.
        assert "cpu_cores" in machine.client.tasks.get_object(task)["runtime"]

    def test_skip_pip_venv_install_sees_the_interpreters_packages(self, machine: Site, tmp_path: Path) -> None:
        own = tmp_path / "own"
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(own)], check=True)
        [site_packages] = own.glob("lib/python*/site-packages")
        (site_packages / "from_the_site.py").write_text("WORD = 'seen'\n")
        text = "import from_the_site, six; print('ran', from_the_site.WORD, six.__version__)"
        task = task_of(machine, diff=text, entry_point="t.py", requirements={"pip": "six==1.16.0"}, binary="python3")
        console = executed(machine, task, CLEARML_AGENT_SKIP_PIP_VENV_INSTALL=str(own / "bin" / "python"))
        assert "ran seen 1.16.0" in console
        assert not (site_packages / "six.py").exists()

    def test_skip_python_env_install_and_force_code_dir(self, machine: Site, tmp_path: Path) -> None:
        (tmp_path / "code").mkdir()
        (tmp_path / "code" / "there.py").write_text(WHERE)
        task = task_of(
            machine, "file:///nowhere.git", entry_point="there.py", requirements={"pip": "no-such-package-of-ours"}
        )
        variables: dict[str, Any] = {
            "CLEARML_AGENT_FORCE_CODE_DIR": str(tmp_path / "code"),
            "CLEARML_AGENT_SKIP_PYTHON_ENV_INSTALL": "1",
        }
        assert "ran there.py [] code" in executed(machine, task, **variables)

    def test_custom_build_script(self, machine: Site, repository: str, tmp_path: Path) -> None:
        script = tmp_path / "build.py"
        script.write_text(
            f"""#!{sys.executable}
import json, os, sys
task = json.loads(os.environ["CLEARML_CUSTOM_BUILD_TASK_CONFIG_JSON"])
root = os.environ["CLEARML_GIT_ROOT"]
print("built", task["name"], os.environ["CLEARML_TASK_SCRIPT_ENTRY"], os.environ["CLEARML_TASK_WORKING_DIR"])
chosen = {{"binary": sys.executable, "entry_point": root + "/sub/deep.py", "working_dir": root + "/pkg"}}
open(os.environ["CLEARML_CUSTOM_BUILD_OUTPUT"], "w").write(json.dumps(chosen))
"""
        )
        script.chmod(0o755)
        task = task_of(machine, repository, entry_point="train.py", working_dir=".")
        console = executed(machine, task, CLEARML_AGENT_CUSTOM_BUILD_SCRIPT="$FOLDER/build.py", FOLDER=str(tmp_path))
        assert "built bare train.py ." in console
        assert "ran deep.py [] pkg" in console

    @pytest.mark.parametrize(
        ("body", "status", "says"),
        [
            ("exit 7", TaskStatus.FAILED, "ended with exit code 7"),
            ("true", TaskStatus.COMPLETED, "chose nothing: going on without it"),
            ('echo "{" >$CLEARML_CUSTOM_BUILD_OUTPUT', TaskStatus.COMPLETED, "cannot be read"),
        ],
    )
    def test_a_custom_build_script_that_does_not_choose(
        self, machine: Site, tmp_path: Path, body: str, status: TaskStatus, says: str
    ) -> None:
        script = tmp_path / "build.sh"
        script.write_text(f"#!/bin/sh\n{body}\n")
        script.chmod(0o755)
        task = task_of(machine, diff=WHERE, entry_point="t.py")
        assert says in executed(machine, task, status=status, CLEARML_AGENT_CUSTOM_BUILD_SCRIPT=str(script))

    def test_cpu_only(self, machine: Site) -> None:
        task = task_of(machine, diff="import os; print('gpus', os.environ['CUDA_VISIBLE_DEVICES'])", entry_point="t.py")
        assert "gpus none" in executed(machine, task, CLEARML_CPU_ONLY="1")
