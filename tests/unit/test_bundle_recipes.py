"""The scripts that `build` writes, run by real shells."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from hpc_agent.bundles.program import copy_program, program_requirements
from hpc_agent.bundles.recipe import (
    FolderRun,
    ImageEntryPoint,
    ImageInstall,
    definition,
    entry_script,
    install_script,
    run_script,
)

SHELLS = ["bash", "dash"]


def folder(tmp_path: Path, run: FolderRun) -> Path:
    """A built folder with an environment whose python says how it was called."""
    root = tmp_path / "built it"
    (root / "environment" / "bin").mkdir(parents=True)
    (root / "source" / "my repo").mkdir(parents=True)
    python = root / "environment" / "bin" / "python"
    python.write_text('#!/bin/sh\necho "$PWD" "$PYTHONPATH" "$VIRTUAL_ENV" "$LEVEL"; printf "<%s>" "$@"; echo\n')
    python.chmod(0o755)
    (root / "run").write_text(run_script(run))
    (root / "run").chmod(0o755)
    return root


@pytest.mark.parametrize("shell", SHELLS)
def test_a_folder_runs_from_wherever_it_lies(tmp_path: Path, shell: str) -> None:
    run = FolderRun(
        title="ClearML task x: a\nname",
        cwd="source/my repo",
        python_path="source/my repo/src",
        command=["python", "-u", "it's.py"],
        exports={"LEVEL": "two words"},
    )
    root = folder(tmp_path, run)
    done = subprocess.run(
        [shell, root / "run", "a b", "c"], env={"PATH": "/usr/bin:/bin"}, cwd="/", capture_output=True, text=True
    )
    here = f"{root}/source/my repo"
    assert done.stdout == f"{here} {here}/src {root}/environment two words\n<-u><it's.py><a b><c>\n"
    assert done.stderr == ""


@pytest.mark.parametrize("shell", SHELLS)
def test_image_entry_sets_servers_only_without_a_configuration(tmp_path: Path, shell: str) -> None:
    entry = ImageEntryPoint(
        "t1", "img:1", "/opt/hpc-agent/source/r", True, ["-O"], {"CLEARML_API_HOST": "http://s:8008"}
    )
    script = tmp_path / "entry"
    text = entry_script(entry).replace("exec /opt", "echo $CLEARML_API_HOST $CLEARML_DOCKER_IMAGE /opt")
    script.write_text(text)

    def say(**env: str) -> str:
        env = {"PATH": "/usr/bin:/bin", "HOME": str(tmp_path), **env}
        return subprocess.run([shell, script, "more"], env=env, capture_output=True, text=True, check=True).stdout

    call = "/opt/hpc-agent/agent/bin/python -m hpc_agent execute --id t1 --standalone-mode --clone -O more\n"
    assert say() == f"http://s:8008 img:1 {call}"
    assert say(CLEARML_API_HOST="http://other") == f"http://other img:1 {call}"
    assert say(CLEARML_CONFIG_FILE="/c") == f"img:1 {call}"
    (tmp_path / "clearml.conf").write_text("api {}")
    assert say() == f"img:1 {call}"


def test_an_image_without_packages_agent_or_python_of_ours_gets_the_code_only() -> None:
    text = install_script(ImageInstall(packages=False))
    assert "cp -R /hpc-agent/context/source /opt/hpc-agent/source" in text
    assert "uv pip" not in text and "ln -sf" not in text


def test_our_python_is_the_tasks_only_where_the_image_has_none() -> None:
    for for_task in (True, False):
        install = ImageInstall(True, "/py/3.11", "/py/3.11/bin/python3.11", for_task, "/py/3.11/bin/python3.11")
        text = install_script(install)
        assert "cp -R /hpc-agent/context/python/. /py/3.11/" in text
        assert ("ln -sf /py/3.11/bin/python3.11 /usr/local/bin/python3" in text) == for_task
        assert "uv venv --quiet --no-project --python /py/3.11/bin/python3.11 /opt/hpc-agent/agent" in text
        assert subprocess.run(["sh", "-n"], input=text, text=True).returncode == 0


@pytest.mark.parametrize(
    ("reference", "head"),
    [
        ("/images/base.sif", "Bootstrap: localimage\nFrom: /images/base.sif\n"),
        ("docker://ubuntu:22.04", "Bootstrap: docker\nFrom: ubuntu:22.04\n"),
        ("ubuntu:22.04", "Bootstrap: docker\nFrom: ubuntu:22.04\n"),
        ("library://u/c/i:1", "Bootstrap: library\nFrom: u/c/i:1\n"),
    ],
)
def test_apptainers_definition(reference: str, head: str) -> None:
    text = definition(reference, "/tmp/context.tar", ["apt-get update"], has_entry=True)
    assert text.startswith(head)
    assert "%files\n    /tmp/context.tar /hpc-agent/context.tar\n" in text
    post = text.partition("%post\n")[2]
    assert post.index("apt-get update") < post.index("sh /hpc-agent/context/install")
    assert text.endswith('%runscript\n    exec /opt/hpc-agent/entry "$@"\n')
    plain = definition(reference, "/c", [], has_entry=False, folders=["/opt/wheels"])
    assert "%runscript" not in plain
    assert '%setup\n    mkdir -p "$APPTAINER_ROOTFS"/opt/wheels\n' in plain


def test_an_image_gets_what_the_agent_needs_and_no_installers(tmp_path: Path) -> None:
    names = {line.partition("==")[0] for line in program_requirements()}
    assert {"requests", "msgspec", "click", "psutil", "certifi"} <= names
    assert not {"uv", "virtualenv", "starlette", "pytest"} & names
    copy_program(tmp_path / "hpc_agent")
    assert (tmp_path / "hpc_agent" / "executor" / "execution.py").exists()
    assert not list(tmp_path.rglob("__pycache__"))
