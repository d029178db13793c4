"""Containers that a job's own script starts: what its function is given, and what its srun adds."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from hpc_agent.containers.apptainer import Apptainer
from hpc_agent.containers.images import Image
from hpc_agent.containers.prepared import PreparedContainer
from hpc_agent.containers.pyxis import Pyxis
from hpc_agent.containers.rank_variables import passing_on
from hpc_agent.containers.runtime_api import ContainerSpec, Mount, ScriptedRuntime
from hpc_agent.executor.template_launch import TemplateLaunch, launched_by_script
from hpc_agent.image_resolver import ResolvedContainer
from hpc_agent.submission.glue_template import LAUNCH_FUNCTION

SPEC = ContainerSpec("/images/x.sif", "job", ["/bin/sh", "start"], [Mount(Path("/a"), "/b", writable=True)])


def launch(runtime: ScriptedRuntime, folder: Path) -> TemplateLaunch:
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
def test_the_function_is_given_all_but_the_command(runtime: ScriptedRuntime, expected: list[str]) -> None:
    argv = launch(runtime, Path("/run/bin")).wrap(SPEC)
    assert argv[:2] == ["bash", "-c"] and argv[3:] == [LAUNCH_FUNCTION, "/run/bin", "docker://x", *expected]


def test_its_exit_code_is_the_functions() -> None:
    argv = launch(Apptainer("apptainer"), Path("/nonexistent")).wrap(SPEC)[:6]
    function = 'echo "$HPC_AGENT_LAUNCH_IMAGE $*"; exit 7'
    # As it is started: through the shell that hands on the variables of a rank.
    done = subprocess.run(
        passing_on([*argv, "a b", "c"]),
        env={**os.environ, f"BASH_FUNC_{LAUNCH_FUNCTION}%%": f"() {{ {function}; }}"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout == "docker://x a b c\n" and done.returncode == 7


@pytest.mark.parametrize(
    ("template", "image"), [("docker://x", "/images/x.sif"), ("docker://of-the-site", "docker://of-the-site")]
)
def test_mounts_are_joined_and_the_sites_image_holds(template: str, image: str, tmp_path: Path) -> None:
    real = tmp_path / "real" / "srun"
    real.parent.mkdir()
    real.write_text('#!/bin/bash\nprintf "%s\\n" "$PATH" "${HPC_AGENT_LAUNCH_IMAGE-none}" "$@"\n')
    real.chmod(0o755)
    prepared = PreparedContainer(Pyxis("srun"), Image("docker://x", "/images/x.sif", "i"), tmp_path / "start")
    resolved = ResolvedContainer(None, prepared, None)  # type: ignore[arg-type]
    words = launched_by_script(resolved, tmp_path).prepared.runtime.wrap(SPEC)[6:]
    argv = [str(tmp_path / "bin" / "srun"), f"--container-image={template}", "--container-mounts", "/s:/t", *words]
    path = f"{real.parent}:{os.environ['PATH']}"
    environ = {**os.environ, "PATH": f"{tmp_path}/bin:{path}", "HPC_AGENT_LAUNCH_IMAGE": "docker://x"}
    done = subprocess.run(argv, env={**environ, "SLURMD_NODENAME": "n2"}, text=True, capture_output=True, check=True)
    lines = done.stdout.splitlines()
    assert lines[:2] == [path, "none"]
    assert lines[2:4] == [f"--container-image={image}", "--container-mounts=/s:/t,/a:/b:rw"]
    assert lines[4:8] == ["--nodes=1", "--ntasks=1", "--overlap", "--nodelist=n2"]
    assert lines[-2:] == ["/bin/sh", "start"]
