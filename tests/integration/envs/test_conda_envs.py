"""Environments of conda's packages: real packages, resolved and installed, moved to a node and used there."""

from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
from conda_channel import VERSION, Channel, calls, channel, program
from env_site import EnvSite, Wheelhouse

from hpc_agent.domain.env import RequirementFiles
from hpc_agent.domain.task import Requirements, TaskScript
from hpc_agent.envs.env_request import EnvRequest, request_for
from hpc_agent.errors import EnvironmentBuildError
from hpc_agent.executor.conda_activation import activated


@pytest.fixture(scope="module")
def conda() -> Channel:
    return channel()


@pytest.fixture
def envs(tmp_path: Path, conda: Channel) -> EnvSite:
    return replace_packages(EnvSite(tmp_path, Wheelhouse(tmp_path / "wheels")), conda, program(tmp_path / "bin"))


def replace_packages(site: EnvSite, conda: Channel, conda_program: Path) -> EnvSite:
    packages = type(site.packages)(type="conda", conda_channels=(conda.address,), conda_program=str(conda_program))
    return replace(site, packages=packages)


def request(site: EnvSite, *conda: str, pip: tuple[str, ...] = (), files: RequirementFiles | None = None) -> EnvRequest:
    index = ("--no-index", f"--find-links {site.wheels.folder}")
    script = TaskScript(requirements=Requirements(pip=(*index, *pip) if conda else None, conda=conda or None))
    return request_for(script, files or RequirementFiles(), site.packages)


def output(python: Path, code: str) -> str:
    argv = [str(python), "-c", code]
    return subprocess.run(argv, capture_output=True, text=True, check=True).stdout.strip()


def test_a_tasks_list_becomes_an_environment_that_a_node_unpacks(envs: EnvSite) -> None:
    store = envs.store()
    staged = store.stage(request(envs, "beta == 1.0"), envs.say)
    assert {"alpha==1.0", "beta==1.0"} <= set(staged.packages)
    used = store.use(staged.key, envs.say)
    assert used.conda and used.access == "unpacked"
    where = "import sys, alpha, beta; print(sys.prefix, sys.version.split()[0], alpha.VERSION, beta.VERSION)"
    assert output(used.python, where) == f"{used.root} {VERSION} 1.0 1.0"
    # Programs, texts and libraries name the folder that it lies in.
    assert subprocess.run([used.root / "bin/beta"], capture_output=True, text=True, check=True).stdout == "1.0\n"
    assert (used.root / "etc/beta.conf").read_text() == f"home = {used.root}/share\n"
    library = (used.root / "lib/beta.so").read_bytes()
    assert library.startswith(b"\x7fELF" + os.fsencode(used.root) + b"/share/beta\0\0") and library.endswith(b"\0end\0")


def test_scripts_of_packages_are_run_as_by_conda_activate(envs: EnvSite) -> None:
    used = envs.store().use(envs.store().stage(request(envs, "alpha"), envs.say).key, envs.say)
    environ = activated({"PATH": os.environ["PATH"], "VIRTUAL_ENV": "/x"}, used.root)
    assert environ["ALPHA_HOME"] == f"{used.root}/share/alpha"
    assert environ["CONDA_PREFIX"] == str(used.root) and "VIRTUAL_ENV" not in environ


def test_variables_of_an_environment_yml_are_set(envs: EnvSite) -> None:
    text = "dependencies: [alpha]\nvariables: {DATA: \"/data/$x and 'y'\", ALPHA_HOME: mine}\n"
    asked = request(envs, files=RequirementFiles(conda={"environment.yml": text}))
    used = envs.store().use(envs.store().stage(asked, envs.say).key, envs.say)
    environ = activated({"PATH": os.environ["PATH"]}, used.root)
    assert (environ["DATA"], environ["ALPHA_HOME"]) == ("/data/$x and 'y'", "mine")
    assert asked.digest(envs.packages) != request(envs, "alpha").digest(envs.packages)


def test_the_same_packages_are_built_once_and_resolved_once(envs: EnvSite) -> None:
    store = envs.store()
    first = store.stage(request(envs, "alpha=1.0"), envs.say)
    assert store.stage(request(envs, "alpha=1.0"), envs.say).key == first.key
    assert store.stage(request(envs, "alpha==1.0"), envs.say).key == first.key
    assert envs.builds == 1
    [*_, last] = calls(Path(envs.packages.conda_program))
    assert "--dry-run" in last and len(calls(Path(envs.packages.conda_program))) == 3


def test_an_environment_yml_with_packages_of_pip(envs: EnvSite, conda: Channel) -> None:
    envs.wheels.add("gamma", requires=("alpha",))
    text = (
        f"name: lab\nchannels:\n  - {conda.address}\ndependencies:\n  - alpha<2\n"
        f"  - pip:\n    - --no-index\n    - --find-links {envs.wheels.folder}\n    - gamma\n"
    )
    staged = envs.store().stage(request(envs, files=RequirementFiles(conda={"environment.yml": text})), envs.say)
    used = envs.store().use(staged.key, envs.say)
    # gamma wants alpha, which conda has brought: it is not installed again from pip's index.
    assert output(used.python, "import alpha, gamma; print(alpha.VERSION, gamma.VERSION)") == "1.0 1.0"
    gamma = subprocess.run([used.root / "bin/gamma"], capture_output=True, text=True, check=True)
    assert gamma.stdout == "gamma 1.0\n"


def test_conda_that_does_not_say_the_address_of_what_it_has(envs: EnvSite, conda: Channel) -> None:
    envs = replace_packages(envs, conda, program(envs.folder / "bin2", "conda"))
    used = envs.store().use(envs.store().stage(request(envs, "alpha=1.0"), envs.say).key, envs.say)
    assert output(used.python, "import alpha; print(alpha.VERSION)") == "1.0"
    [_, create] = calls(Path(envs.packages.conda_program))
    assert "--no-deps" in create


def test_what_a_cleaner_of_tmp_took_is_brought_back_with_the_right_folder(envs: EnvSite) -> None:
    store = envs.store()
    staged = store.stage(request(envs, "alpha"), envs.say)
    root = store.use(staged.key, envs.say).root
    root.joinpath("etc").chmod(0o755)
    (root / "etc/alpha.conf").unlink()
    used = store.use(staged.key, envs.say)
    assert (used.root / "etc/alpha.conf").read_text() == f"home = {used.root}/share\n"
    assert sum("repairing" in line for line in envs.said) == 1
    store.use(staged.key, envs.say)
    assert sum("repairing" in line for line in envs.said) == 1


def test_a_node_whose_folder_has_a_long_name(envs: EnvSite, tmp_path: Path) -> None:
    staged = envs.store().stage(request(envs, "alpha"), envs.say)
    far = tmp_path / ("x" * 150) / ("y" * 60)
    with pytest.raises(EnvironmentBuildError, match=r"set hpc\.scratch_dir to a folder with a shorter name"):
        envs.store(scratch=far).use(staged.key, envs.say)


@pytest.mark.parametrize("form", ["micromamba", "conda"])
def test_packages_that_are_in_no_channel(envs: EnvSite, conda: Channel, form: str) -> None:
    envs = replace_packages(envs, conda, program(envs.folder / form, form))
    with pytest.raises(EnvironmentBuildError, match=r"the conda packages of the task cannot be resolved: .*nowhere"):
        envs.store().stage(request(envs, "nowhere=1"), envs.say)


def test_a_site_without_conda(envs: EnvSite, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    bare = tmp_path / "bare"
    bare.mkdir()
    for name in ("tar", "sh"):
        (bare / name).symlink_to(str(shutil.which(name)))
    for name in ("CONDA_EXE", "MAMBA_EXE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PATH", str(bare))
    envs.packages = type(envs.packages)(type="conda")
    with pytest.raises(EnvironmentBuildError, match="none of micromamba, mamba and conda is on this machine"):
        envs.store().stage(request(envs, "alpha"), envs.say)
    envs.packages = type(envs.packages)(type="conda", conda_program="mambo")
    with pytest.raises(EnvironmentBuildError, match="conda_program is 'mambo', which does not exist here"):
        envs.store().stage(request(envs, "alpha"), envs.say)
