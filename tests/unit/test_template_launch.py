"""Containers that a job's own script starts: what its function is given, and how it gets signals."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

import pytest

from hpc_agent.containers.apptainer import Apptainer
from hpc_agent.containers.images import Image
from hpc_agent.containers.prepared import PreparedContainer
from hpc_agent.containers.pyxis import Pyxis
from hpc_agent.containers.runtime_api import ContainerSpec, Mount, Runtime
from hpc_agent.executor.template_launch import TemplateLaunch, launched_by_script
from hpc_agent.image_resolver import ResolvedContainer
from hpc_agent.submission.glue_template import LAUNCH_FUNCTION

SPEC = ContainerSpec("/images/x.sif", "job", ["/bin/sh", "start"], [Mount(Path("/a"), "/b", writable=True)])


def launch(runtime: Runtime, folder: Path) -> TemplateLaunch:
    return TemplateLaunch(runtime, "docker://x", folder)


@pytest.mark.parametrize(
    ("runtime", "expected"),
    [
        (Apptainer("apptainer"), ["--bind", "/a:/b:rw", "/images/x.sif", "/bin/sh", "start"]),
        (
            Pyxis("/usr/bin/srun"),
            [
                *("--nodes=1", "--ntasks=1", "--overlap", "--unbuffered", "--job-name=job"),
                *("--container-image=/images/x.sif", "--no-container-mount-home", "--no-container-entrypoint"),
                *("--container-mounts=/a:/b:rw", "/bin/sh", "start"),
            ],
        ),
    ],
)
def test_the_function_is_given_all_but_the_command(runtime: Runtime, expected: list[str]) -> None:
    argv = launch(runtime, Path("/run/bin")).wrap(SPEC)
    assert argv[:2] == ["bash", "-c"] and argv[3:] == [LAUNCH_FUNCTION, "/run/bin", "docker://x", *expected]


def start(function: str, *words: str) -> subprocess.Popen[str]:
    """The command line, with a function in its environment as a job's script exports it."""
    argv = launch(Apptainer("apptainer"), Path("/nonexistent")).wrap(SPEC)[:6]
    environ = {**os.environ, f"BASH_FUNC_{LAUNCH_FUNCTION}%%": f"() {{ {function}; }}"}
    return subprocess.Popen([*argv, *words], env=environ, stdout=subprocess.PIPE, text=True)


def test_its_exit_code_is_the_functions() -> None:
    with start('echo "$HPC_AGENT_LAUNCH_IMAGE $*"; exit 7', "a b", "c") as child:
        assert child.communicate(timeout=60)[0] == "docker://x a b c\n" and child.returncode == 7


def test_signals_reach_what_the_function_runs() -> None:
    with start("bash -c 'trap \"echo got; exit 5\" TERM; echo begun; while :; do sleep 0.05; done'") as child:
        assert child.stdout is not None and child.stdout.readline() == "begun\n"
        child.send_signal(signal.SIGTERM)
        assert child.communicate(timeout=60)[0] == "got\n" and child.returncode == 5


@pytest.mark.parametrize(
    ("template", "image"), [("docker://x", "/images/x.sif"), ("docker://of-the-site", "docker://of-the-site")]
)
def test_mounts_are_joined_and_the_sites_image_holds(template: str, image: str, tmp_path: Path) -> None:
    real = tmp_path / "real-srun"
    real.write_text('#!/bin/bash\nprintf "%s\\n" "$@"\n')
    real.chmod(0o755)
    prepared = PreparedContainer(Pyxis(str(real)), Image("docker://x", "/images/x.sif", "i"), tmp_path / "start")
    resolved = ResolvedContainer(None, prepared, None)  # type: ignore[arg-type]
    words = launched_by_script(resolved, tmp_path).prepared.runtime.wrap(SPEC)[6:]
    argv = [str(tmp_path / "bin" / "srun"), f"--container-image={template}", "--container-mounts", "/s:/t", *words]
    done = subprocess.run(
        argv, env={**os.environ, "HPC_AGENT_LAUNCH_IMAGE": "docker://x"}, text=True, capture_output=True, check=True
    )
    lines = done.stdout.splitlines()
    assert lines[:2] == [f"--container-image={image}", "--container-mounts=/s:/t,/a:/b:rw"]
    assert lines[-2:] == ["/bin/sh", "start"]
