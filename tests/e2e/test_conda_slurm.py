"""Tasks with conda's packages on real Slurm: built where the daemon is, unpacked where the job is."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from apptainer_images import apptainer
from conda_channel import VERSION, Channel, channel, program
from e2e_site import Site

from hpc_agent.domain.status import TaskStatus

WHERE = (
    "import os, sys, beta; print('runs', sys.version.split()[0], beta.VERSION, os.environ['BETA_HOME'], sys.prefix)\n"
)


@pytest.fixture(scope="module")
def conda() -> Channel:
    return channel()


@pytest.fixture
def settings(site: Site, conda: Channel) -> dict[str, str]:
    return {
        "CLEARML_AGENT__AGENT__PACKAGE_MANAGER__TYPE": "conda",
        "CLEARML_AGENT__AGENT__PACKAGE_MANAGER__CONDA_CHANNELS": f'["{conda.address}"]',
        "CLEARML_AGENT__AGENT__PACKAGE_MANAGER__CONDA_PROGRAM": str(program(site.folder / "conda")),
    }


def test_a_repository_with_an_environment_yml(site: Site, conda: Channel, settings: dict[str, str]) -> None:
    repository = site.folder / "repository"
    repository.mkdir()
    (repository / "train.py").write_text(WHERE)
    (repository / "environment.yml").write_text("name: lab\ndependencies:\n  - beta=1.0\n")
    for argv in (["init", "-q"], ["add", "."], ["-c", "user.name=a", "-c", "user.email=a@b.c", "commit", "-qm", "x"]):
        subprocess.run(["git", *argv], cwd=repository, check=True)
    commit = subprocess.run(
        ["git", "rev-parse", "HEAD"], cwd=repository, capture_output=True, text=True, check=True
    ).stdout.strip()
    task = site.bare_task(
        "", repository=repository.as_uri(), version_num=commit, entry_point="train.py", requirements={}
    )
    site.daemon(**settings)
    assert site.wait_for_end(task) is TaskStatus.COMPLETED
    [line] = [line for line in site.lines(task) if line.startswith("runs ")]
    _, version, beta, home, prefix = line.split()
    assert (version, beta, home) == (VERSION, "1.0", f"{prefix}/share/beta")
    assert Path(prefix).is_relative_to(site.root / "scratch")


def test_a_tasks_own_list_in_an_image(site: Site, settings: dict[str, str]) -> None:
    runtime = apptainer()
    code = f"{WHERE}print('in the image', os.path.exists('/.singularity.d'))"
    task = site.bare_task(code, enqueue=False, requirements={"pip": "", "conda": "# Conda packages\nbeta == 1.0\n"})
    site.client.tasks.edit(task, {"container": {"image": str(runtime.sif("bare"))}})
    site.client.tasks.enqueue(task, site.queue_id)
    site.daemon(**settings, **runtime.settings)
    assert site.wait_for_end(task) is TaskStatus.COMPLETED
    assert f"runs {VERSION} 1.0 " in site.console(task) and "in the image True" in site.console(task)


def test_packages_that_cannot_be_had(site: Site, settings: dict[str, str]) -> None:
    task = site.bare_task("print(1)", requirements={"pip": "", "conda": "nowhere == 1.0\n"})
    site.daemon(**settings)
    assert site.wait_for_end(task) is TaskStatus.FAILED
    assert "the conda packages of the task cannot be resolved" in site.reason(task)
    assert site.submitted(task) == []
