"""The lines that a job's bash reads before the script, run by real bash with a small program in place of the agent."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest
from waiting import wait_until

from hpc_agent.domain.ids import TaskId
from hpc_agent.tracking import hook
from hpc_agent.tracking.tracked_records import TrackedDirectory, TrackedRoot

AGENT = """#!/bin/bash
if [ "$2" = --element ]; then echo "{answer}"; exit {code}; fi
echo "$PWD|$CLEARML_CONFIG_FILE|$*|$(readlink /proc/self/fd/3)|$(readlink /proc/self/fd/4)" >{called_with}.part
mv {called_with}.part {called_with}
"""


@dataclass
class Job:
    """A job's bash. ``called_with`` is what the agent was started with."""

    folder: TrackedDirectory
    called_with: Path
    environ: Mapping[str, str]

    def run(
        self, script: str, *options: str, name: str = "slurm_script", **env: str
    ) -> subprocess.CompletedProcess[str]:
        path = self.folder.path.parent / name
        path.write_text(script)
        output = self.folder.path.parent / "job.out"
        with output.open("a") as sink:
            done = subprocess.run(
                ["/bin/bash", *options, str(path)], env={**self.environ, **env}, stdout=sink, stderr=sink, timeout=30
            )
        return subprocess.CompletedProcess(done.args, done.returncode, output.read_text())

    def started(self) -> list[str]:
        wait_until("the agent to be called", self.called_with.exists)
        return self.called_with.read_text().strip().split("|")


def job(tmp_path: Path, *, answer: str = "", code: int = 0, array: bool = False, **restore: str) -> Job:
    folder = TrackedRoot(tmp_path / "it's a folder").of(TaskId("f00d"))
    folder.path.mkdir(parents=True)
    agent, called_with = tmp_path / "agent", tmp_path / "called_with"
    agent.write_text(AGENT.format(called_with=called_with, answer=answer, code=code))
    agent.chmod(0o755)
    text = hook.text(folder, tmp_path / "the conf", [str(agent)], {"BASH_ENV": "", **restore}, array=array)
    folder.hook.write_text(text)
    environ = {"PATH": os.environ["PATH"], "BASH_ENV": str(folder.hook), "SLURM_JOB_ID": "7"}
    return Job(folder, called_with, environ)


def test_the_sidecar_is_started_with_the_script(tmp_path: Path) -> None:
    it = job(tmp_path)
    done = it.run("echo $$; jobs; echo ${BASH_ENV-unset}\n")
    pid, *rest = done.stdout.split()
    assert rest == ["unset"]
    output = str(it.folder.path.parent / "job.out")
    inside = f"follow --inside {it.folder.path} --pid {pid}"
    assert it.started() == [str(it.folder.path), str(tmp_path / "the conf"), inside, output, output]


@pytest.mark.parametrize("options", [("-e",), ("-u",), ("-x",), ("-eux",), ("-euo", "pipefail")])
def test_the_shell_is_left_as_it_was_whatever_its_options(tmp_path: Path, options: tuple[str, ...]) -> None:
    script = "echo $? $- ${#}; trap -p; jobs; declare -F; compgen -v | grep -v -E '^(_|BASH_ENV)$'; false || exit 3\n"
    it = job(tmp_path)
    with_us = it.run(script, *options)
    it.started()
    (it.folder.path.parent / "job.out").unlink()
    without = it.run(script, *options, BASH_ENV="")
    # With -x the two ends of a pipe are shown in any order.
    assert sorted(with_us.stdout.splitlines()) == sorted(without.stdout.splitlines())
    assert with_us.returncode == without.returncode


@pytest.mark.parametrize("how", ["missing", "folder gone", "read only"])
def test_a_script_runs_whatever_becomes_of_the_agent(tmp_path: Path, how: str) -> None:
    it = job(tmp_path)
    if how == "missing":
        (tmp_path / "agent").unlink()
    elif how == "folder gone":
        kept = it.folder.hook.rename(it.folder.path.parent / "hook")
        it.folder.path.rmdir()
        it = Job(it.folder, it.called_with, {**it.environ, "BASH_ENV": str(kept)})
    else:
        (tmp_path / "agent").chmod(0o600)
    done = it.run("echo fine; exit 4\n", "-eux")
    assert (done.returncode, done.stdout) == (4, "+ echo fine\nfine\n+ exit 4\n")


def test_what_the_person_exported_is_set_back_and_their_own_file_read(tmp_path: Path) -> None:
    own = tmp_path / "own module.bash"
    own.write_text("module() { echo loaded; }\nfalse\n")
    it = job(tmp_path, BASH_ENV=str(own), SLURM_EXPORT_ENV="NONE")
    done = it.run('module; echo "$BASH_ENV $SLURM_EXPORT_ENV"; bash -c module\n', SLURM_EXPORT_ENV="CLEARML_TASK_ID")
    assert done.stdout == f"loaded\n{own} NONE\nloaded\n"


def test_a_missing_file_of_their_own_is_not_an_error(tmp_path: Path) -> None:
    assert job(tmp_path, BASH_ENV="/nowhere").run("echo $? $BASH_ENV\n", "-e").stdout == "0 /nowhere\n"


def test_of_a_job_only_the_first_shell_starts_it_and_each_restart_again(tmp_path: Path) -> None:
    it = job(tmp_path)
    it.run("BASH_ENV=" + str(it.folder.hook) + " bash -c :\n")
    it.started()
    it.run(":\n", SLURM_RESTART_COUNT="1")
    assert sorted(path.name for path in it.folder.path.glob("ran-*")) == ["ran-7-0", "ran-7-1"]


def test_other_shells_that_read_it_are_left_alone(tmp_path: Path) -> None:
    own = tmp_path / "own.bash"
    own.write_text("echo own\n")
    it = job(tmp_path, BASH_ENV=str(own))
    done = it.run("echo $BASH_ENV\n", name="sbatch")
    assert done.stdout == f"own\n{it.folder.hook}\n"
    assert list(it.folder.path.glob("ran-*")) == []


def test_how_long_an_output_was_before_is_noted(tmp_path: Path) -> None:
    it = job(tmp_path)
    (it.folder.path.parent / "job.out").write_text("of an earlier job\n")
    it.run("echo more\n")
    assert it.folder.sizes.read_text().split() == ["18", "18"]


@pytest.mark.parametrize(
    ("memory", "starts"),
    [
        ({}, True),
        ({"SLURM_MEM_PER_NODE": "1000"}, True),
        ({"SLURM_MEM_PER_NODE": "500"}, False),
        ({"SLURM_MEM_PER_CPU": "200", "SLURM_CPUS_ON_NODE": "4"}, True),
        ({"SLURM_MEM_PER_CPU": "200", "SLURM_CPUS_ON_NODE": "2"}, False),
    ],
)
def test_a_job_with_little_memory_is_left_to_itself(tmp_path: Path, memory: dict[str, str], starts: bool) -> None:
    it = job(tmp_path)
    assert it.run("echo fine\n", **memory).stdout == "fine\n"
    assert bool(list(it.folder.path.glob("ran-*"))) is starts


def test_an_element_of_an_array_gets_its_own_task(tmp_path: Path) -> None:
    it = job(tmp_path, array=True, answer="abc123")
    done = it.run("env | grep CLEARML_TASK_ID; bash -c 'echo $CLEARML_LOG_TASK_TO_BACKEND'\n", "-eu")
    assert done.stdout == "CLEARML_TASK_ID=abc123\n0\n"
    assert f"--inside {it.folder.path.parent}/abc123 --pid" in it.started()[2]


@pytest.mark.parametrize(("answer", "code"), [("", 0), ("", 1), ("Traceback: no; rm -rf", 0), ("$(touch broken)", 0)])
def test_an_element_without_a_task_runs_without(tmp_path: Path, answer: str, code: int) -> None:
    it = job(tmp_path, array=True, answer=answer, code=code)
    done = it.run("echo <${CLEARML_TASK_ID-none}>; exit 2\n".replace("<", "'<'").replace(">", "'>'"), "-eu")
    assert (done.returncode, done.stdout) == (2, "<none>\n")
    assert not it.called_with.exists()


def test_the_text_can_be_read_by_a_person(tmp_path: Path) -> None:
    text = job(tmp_path).folder.hook.read_text()
    assert text.startswith("# Written by hpc-agent sbatch")
    assert not re.search(r"\{\w*\}", text), "a placeholder is left"
