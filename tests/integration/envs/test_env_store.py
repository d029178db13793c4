"""From requirement lines to a running interpreter, with the real uv, pip, virtualenv, tar and zstd."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import threading
from pathlib import Path
from stat import S_ISLNK
from typing import Literal

import pytest
from capabilities import missing
from env_site import EnvSite, PythonRunner
from manual_clock import ManualClock

from hpc_agent.clock import SYSTEM
from hpc_agent.config.clearml_settings import PackageSettings
from hpc_agent.domain.env import EnvKey, RequirementFiles
from hpc_agent.envs import archive, interpreter
from hpc_agent.envs.env_request import request_for_file
from hpc_agent.envs.env_store import EnvStore
from hpc_agent.envs.materialize import UsableEnv
from hpc_agent.errors import EnvironmentBuildError
from hpc_agent.git_credentials import GitCredential
from hpc_agent.redact import Secret

VERSIONS = "import alpha, beta; print(alpha.VERSION, beta.VERSION)"


def python_says(env: UsableEnv, code: str) -> str:
    answer = subprocess.run([env.python, "-c", code], capture_output=True, text=True)
    assert answer.returncode == 0, answer.stderr
    return answer.stdout.strip()


def test_built_once_then_ready_everywhere(site: EnvSite) -> None:
    request = site.request("beta")
    staged = site.store().stage(request, site.say)
    assert staged.built
    assert staged.packages == ("alpha==1.0", "beta==1.0")
    assert not site.store().stage(request, site.say).built
    first = site.store().use(staged.key, site.say)
    assert first.access == "unpacked"
    assert site.store().use(request, site.say).access == "ready"
    assert python_says(first, VERSIONS) == "1.0 1.0"
    assert first.packages == staged.packages
    # Another node: another scratch folder.
    other = site.store(scratch=site.folder / "node2").use(staged.key, site.say)
    assert (other.access, python_says(other, VERSIONS)) == ("unpacked", "1.0 1.0")
    assert site.builds == 1


def test_equal_requirements_give_the_same_environment(site: EnvSite) -> None:
    one = site.store().stage(site.request("beta", "alpha"), site.say)
    two = site.store().stage(site.request("Alpha >= 0.5", "BETA", "alpha"), site.say)
    assert one.key == two.key
    assert site.builds == 1


def test_programs_work_wherever_the_environment_lies(site: EnvSite) -> None:
    key = site.store().stage(site.request("beta"), site.say).key
    for number in range(2):
        env = site.store(scratch=site.folder / f"node {number}").use(key, site.say)
        ran = subprocess.run([env.root / "bin" / "beta"], capture_output=True, text=True)
        assert ran.stdout == "beta 1.0\n", ran.stderr
        # Also through a link, as users put them on their PATH.
        link = site.folder / f"link{number}"
        link.symlink_to(env.root / "bin" / "beta")
        assert subprocess.run([link], capture_output=True, text=True).stdout == "beta 1.0\n"


def test_byte_code_is_there_and_valid_without_the_packages_own_tests(site: EnvSite) -> None:
    env = site.store().use(site.store().stage(site.request("beta"), site.say).key, site.say)
    compiled = {path.relative_to(env.root).as_posix() for path in env.root.rglob("*.pyc")}
    assert any("/beta/__pycache__/__init__" in path for path in compiled)
    assert not any("/tests/" in path for path in compiled)
    code = "import sys, beta; print(beta.__cached__)"
    answer = subprocess.run([env.python, "-v", "-c", code], capture_output=True, text=True)
    assert re.search(rf"# code object from '{re.escape(str(env.root))}\S*/beta/__pycache__/", answer.stderr)
    assert "wrote" not in answer.stderr


def test_environment_is_read_only(site: EnvSite) -> None:
    env = site.store().use(site.store().stage(site.request("alpha"), site.say).key, site.say)
    own = [path for path in env.root.rglob("*") if not path.is_symlink()]
    assert any(path.name == "__init__.py" for path in own)
    assert [path for path in own if path.stat().st_mode & 0o222] == []


def test_empty_list_is_a_bare_environment(site: EnvSite) -> None:
    store = site.store()
    env = store.use(store.stage(request_for_file(""), site.say).key, site.say)
    assert env.packages == ()
    assert python_says(env, "import sys; print(sys.prefix)") == str(env.root)


def test_missing_environment_names_key_and_remedy(site: EnvSite) -> None:
    key = EnvKey("0" * 32)
    with pytest.raises(EnvironmentBuildError, match=f"environment {key} is not in .*`hpc-agent cache warm --id T1`"):
        site.store().use(key, site.say, task="T1")
    request = site.request("alpha")
    with pytest.raises(EnvironmentBuildError, match=r"no environment for these requirements \(request [0-9a-f]{32}\)"):
        site.store().use(request, site.say)


def test_unpinned_package_gets_todays_release_when_staged_and_yesterdays_offline(site: EnvSite) -> None:
    clock = ManualClock(SYSTEM.now())
    request = site.request("alpha")
    old = site.store(clock=clock).stage(request, site.say).key
    site.wheels.add("alpha", "2.0")
    # The tasks of one sweep share one answer.
    assert site.store(clock=clock).stage(request, site.say).key == old
    clock.advance(hours=1)
    assert site.store(clock=clock).find(request) == old
    new = site.store(clock=clock).stage(request, site.say)
    assert new.packages == ("alpha==2.0",)
    assert site.store(clock=clock).find(request) == new.key
    # What was staged before stays for the jobs that wait with it.
    assert python_says(site.store().use(old, site.say), "import alpha; print(alpha.VERSION)") == "1.0"


def test_index_that_is_down_does_not_stop_what_worked_yesterday(site: EnvSite) -> None:
    clock = ManualClock(SYSTEM.now())
    request = site.request("beta")
    key = site.store(clock=clock).stage(request, site.say).key
    clock.advance(days=1)
    site.wheels.folder.rename(site.folder / "away")
    staged = site.store(clock=clock).stage(request, site.say)
    assert (staged.key, staged.built) == (key, False)
    assert "using the environment that was resolved on" in site.said[-1]


def test_of_several_main_indexes_the_tasks_counts(site: EnvSite, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/site")
    index = site.folder / "index" / "alpha"
    index.mkdir(parents=True)
    [wheel] = site.wheels.folder.glob("alpha-*")
    shutil.copy(wheel, index)
    (index / "index.html").write_text(f'<a href="{wheel.name}">{wheel.name}</a>')
    monkeypatch.setenv("PIP_EXTRA_INDEX_URL", "")
    staged = site.store().stage(request_for_file(f"--index-url file://{index.parent}\nalpha\n"), site.say)
    assert staged.packages == ("alpha==1.0",)


def test_missing_package_shows_the_resolvers_message(site: EnvSite) -> None:
    with pytest.raises(EnvironmentBuildError) as error:
        site.store().stage(site.request("nosuchpackage==1"), site.say)
    assert "cannot be resolved" in str(error.value)
    assert "nosuchpackage" in str(error.value)
    assert site.published == []


def test_failed_build_of_a_package_shows_its_message(site: EnvSite) -> None:
    broken = site.folder / "broken"
    broken.mkdir()
    (broken / "setup.py").write_text("raise RuntimeError('needs a compiler that is not here')\n")
    with pytest.raises(EnvironmentBuildError, match="needs a compiler that is not here"):
        site.store().stage(request_for_file(str(broken)), site.say)
    assert site.published == []
    assert list((site.scratch / f"hpc-agent-{os.getuid()}" / "build").iterdir()) == []


def test_pip_serves_where_it_is_asked_for(site: EnvSite) -> None:
    site.packages = PackageSettings(type="pip")
    store = site.store()
    staged = store.stage(site.request("beta"), site.say)
    assert staged.packages == ("alpha==1.0", "beta==1.0")
    env = store.use(staged.key, site.say)
    assert python_says(env, VERSIONS) == "1.0 1.0"
    # It is no longer where pip wrote its path into the programs.
    ran = subprocess.run([env.root / "bin" / "beta"], capture_output=True, text=True)
    assert ran.stdout == "beta 1.0\n", ran.stderr
    assert not (env.root / "bin" / "pip").exists()
    with pytest.raises(EnvironmentBuildError, match="nosuchpackage"):
        store.stage(site.request("nosuchpackage"), site.say)


@pytest.mark.parametrize("installer", ["uv", "pip"])
def test_folder_of_the_tasks_own_repository_is_installed(site: EnvSite, installer: Literal["uv", "pip"]) -> None:
    site.packages = PackageSettings(type=installer)
    code = site.folder / "code"
    (code / "lib").mkdir(parents=True)
    (code / "lib" / "gamma.py").write_text("x = 1\n")
    # setup.py with a backend of its own: nothing is needed from an index.
    (code / "lib" / "pyproject.toml").write_text(
        '[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n[project]\nname = "gamma"\n'
        'version = "1"\n'
    )
    (code / "lib" / "backend.py").write_text(_BACKEND)
    files = RequirementFiles(("requirements.txt",), {"requirements.txt": "-e ./lib\nalpha\n"})
    request = site.request("-r requirements.txt", files=files, diff="commit 1")
    assert request.needs_source
    with pytest.raises(EnvironmentBuildError, match="not checked out here"):
        site.store().stage(request, site.say)
    staged = site.store().stage(request, site.say, source_root=code)
    shutil.rmtree(code)
    env = site.store().use(staged.key, site.say)
    assert python_says(env, "import gamma, alpha; print(gamma.x)") == "1"
    other = site.request("-r requirements.txt", files=files, diff="commit 2")
    assert site.store().find(request) == staged.key
    with pytest.raises(EnvironmentBuildError):
        site.store().find(other)


_BACKEND = """
import zipfile
def build_wheel(directory, config_settings=None, metadata_directory=None):
    name = "gamma-1-py3-none-any.whl"
    with zipfile.ZipFile(f"{directory}/{name}", "w") as wheel:
        wheel.write("gamma.py")
        wheel.writestr("gamma-1.dist-info/METADATA", "Metadata-Version: 2.1\\nName: gamma\\nVersion: 1\\n")
        wheel.writestr("gamma-1.dist-info/WHEEL", "Wheel-Version: 1.0\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n")
        wheel.writestr("gamma-1.dist-info/RECORD", "")
    return name
"""


def test_package_that_needs_the_others_is_built_after_them(site: EnvSite) -> None:
    site.packages = PackageSettings(post_packages=("late",))
    site.wheels.add("setuptools", "70.0")
    site.wheels.add("wheel", "0.40")
    late = site.folder / "late"
    late.mkdir()
    (late / "pyproject.toml").write_text(
        '[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n[project]\nname = "late"\n'
        'version = "1"\n'
    )
    (late / "backend.py").write_text(
        "import alpha  # not declared, as old packages do\n" + _BACKEND.replace("gamma", "late")
    )
    (late / "late.py").write_text("x = 2\n")
    staged = site.store().stage(site.request("alpha", f"late @ file://{late}"), site.say)
    assert {"alpha==1.0", "late==1"} <= set(staged.packages)
    assert python_says(site.store().use(staged.key, site.say), "import late, alpha; print(late.x)") == "2"


def test_passwords_are_in_no_record(site: EnvSite) -> None:
    index = "--extra-index-url https://me:s3cret@127.0.0.1:9/simple"
    staged = site.store().stage(site.request("alpha", index), site.say)
    with pytest.raises(EnvironmentBuildError) as error:
        site.store().stage(site.request("lib @ git+https://me:t0ken@127.0.0.1:9/lib.git"), site.say)
    written = "".join(p.read_text() for p in site.cache.rglob("*.*") if p.suffix in (".json", ".txt", ".failed"))
    for secret in ("s3cret", "t0ken"):
        assert secret not in written + "".join(site.said) + str(error.value) + repr(staged)


def test_requirement_from_a_private_repository_uses_the_configured_password(site: EnvSite, tmp_path: Path) -> None:
    """What the installer's git is given, seen by a git on PATH that only looks."""
    seen = tmp_path / "seen"
    spy = tmp_path / "bin"
    spy.mkdir()
    (spy / "git").write_text(
        f'#!/bin/sh\necho "$@" >> {seen}.args\n'
        f'printf "protocol=https\\nhost=git.example\\n\\n" | {shutil.which("git")} credential fill >> {seen}\nexit 1\n'
    )
    (spy / "git").chmod(0o755)
    before = os.environ["PATH"]
    os.environ["PATH"] = f"{spy}:{before}"
    try:
        credential = GitCredential("https://git.example", "me", Secret("pa55"))
        store = EnvStore(site.cache, site.scratch, site.packages, SYSTEM, [credential])
        with pytest.raises(EnvironmentBuildError):
            store.stage(request_for_file("lib @ git+https://git.example/lib.git"), site.say)
    finally:
        os.environ["PATH"] = before
    assert "username=me\npassword=pa55" in seen.read_text()
    assert "pa55" not in Path(f"{seen}.args").read_text(encoding="utf-8")


def test_interpreter_is_the_requested_one_or_the_difference_is_reported(site: EnvSite) -> None:
    staged = site.store().stage(site.request("alpha", binary="python3.99"), site.say)
    assert any("Python 3.99 is not on this machine" in line for line in site.said)
    assert staged.key


def test_interpreter_that_a_node_lacks_is_named(site: EnvSite) -> None:
    folder = site.folder / "interpreter"
    staged_with = folder / "bin" / "python3"
    staged_with.parent.mkdir(parents=True)
    base = subprocess.run(
        ["python3", "-c", "import sys; print(sys.base_prefix)"], capture_output=True, text=True
    ).stdout.strip()
    # An interpreter in a place of its own, as a module system has them.
    shutil.copy(Path(base) / "bin" / "python3", staged_with)
    (folder / "lib").symlink_to(Path(base) / "lib")
    site.packages = PackageSettings(python_binary=str(staged_with))
    key = site.store().stage(site.request("alpha"), site.say).key
    shutil.rmtree(folder, ignore_errors=True)
    with pytest.raises(EnvironmentBuildError, match=rf"needs the interpreter {staged_with} .* does not have"):
        site.store().use(key, site.say)


def test_packages_of_the_system_are_seen_and_not_installed_again(site: EnvSite) -> None:
    site.packages = PackageSettings(system_site_packages=True)
    base = interpreter.find("", site.packages, site.say)
    packages = interpreter.site_of(PackageSettings(), base).packages
    name, version = next((name, packages[name]) for name in ("pip", "setuptools") if name in packages)
    # The wheelhouse does not have it: it can only come from the system.
    staged = site.store().stage(site.request("alpha", f"{name}=={version}"), site.say)
    assert staged.packages == ("alpha==1.0",)
    assert python_says(site.store().use(staged.key, site.say), f"import {name}; print({name}.__version__)") == version


@pytest.fixture
def mountable() -> None:
    if not shutil.which("mksquashfs") or not shutil.which("squashfuse") or not os.access("/dev/fuse", os.W_OK):
        missing("squashfs", "this machine cannot make and mount squashfs images")


MOUNTED = """
store._mount = True
env = store.use(EnvKey(sys.argv[1]), say)
import subprocess
print(env.access, subprocess.run([env.python, "-c", "import alpha, beta; print(alpha.VERSION, beta.VERSION)"],
                              capture_output=True, text=True).stdout.strip(), flush=True)
sys.stdin.read()
"""


@pytest.mark.squashfs
def test_environment_is_mounted_where_the_site_wants_it(
    site: EnvSite, run_python: PythonRunner, mountable: None
) -> None:
    store = EnvStore(site.cache, site.scratch, site.packages, SYSTEM, mount=True)
    key = store.stage(site.request("beta"), site.say).key
    assert (site.cache / "envs" / key / "env.squashfs").exists()
    mounts = site.scratch / f"hpc-agent-{os.getuid()}" / "mounts"
    # Two jobs at once, one of them killed: the other goes on, and the next one tidies up.
    jobs = [run_python(MOUNTED, key, stdin=subprocess.PIPE) for _ in range(2)]
    for job in jobs:
        assert job.stdout is not None
        assert job.stdout.readline() == "mounted 1.0 1.0\n"
    assert len(list(mounts.iterdir())) == 2
    jobs[0].kill()
    jobs[0].communicate()
    jobs[1].communicate("")
    assert run_python(MOUNTED, key, stdin=subprocess.PIPE).communicate("")[0] == "mounted 1.0 1.0\n"
    assert list(mounts.iterdir()) == []
    # What was staged before the site wanted it gets its image with the next staging.
    old = site.store().stage(site.request("alpha"), site.say).key
    [record] = [p for p in (site.cache / "requests").iterdir() if old in p.read_text()]
    record.unlink()
    assert store.stage(site.request("alpha"), site.say).key == old
    assert (site.cache / "envs" / old / "env.squashfs").exists()


@pytest.mark.squashfs
def test_cut_image_is_not_mounted_but_the_archive_unpacked(
    site: EnvSite, run_python: PythonRunner, mountable: None
) -> None:
    store = EnvStore(site.cache, site.scratch, site.packages, SYSTEM, mount=True)
    key = store.stage(site.request("beta"), site.say).key
    image = site.cache / "envs" / key / "env.squashfs"
    os.truncate(image, image.stat().st_size // 2)
    said, _ = run_python(MOUNTED, key, stdin=subprocess.PIPE).communicate("")
    assert "cannot be mounted on this node: unpacking it" in said
    assert said.endswith("unpacked 1.0 1.0\n")


def test_real_index_serves(site: EnvSite) -> None:
    """The one test that asks the package index: a few small wheels."""
    store = site.store()
    staged = store.stage(request_for_file("idna==3.7\nsix\n"), site.say)
    assert "idna==3.7" in staged.packages
    assert python_says(store.use(staged.key, site.say), "import idna, six; print(idna.__version__)") == "3.7"


def test_archive_is_the_same_without_the_tar_program(
    site: EnvSite, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = site.store().stage(site.request("beta"), site.say).key
    packed = site.cache / "envs" / key / "env.tar.zst"
    folders = []
    for name in ("with", "without"):
        folder = tmp_path / name
        folder.mkdir()
        archive.unpack(packed, folder)
        found = ((p.relative_to(folder), p.lstat()) for p in folder.rglob("*"))
        # The times of links say nothing.
        folders.append(sorted((str(p), s.st_mode, s.st_size, not S_ISLNK(s.st_mode) and s.st_mtime) for p, s in found))
        monkeypatch.setenv("PATH", str(tmp_path))
    assert folders[0] == folders[1]


def test_fifty_at_once_make_one_build(site: EnvSite) -> None:
    request = site.request("beta")
    used: list[str] = []
    errors: list[Exception] = []

    def want() -> None:
        try:
            store = site.store()
            store.stage(request, site.say)
            used.append(store.use(request, site.say).access)
        except EnvironmentBuildError as error:
            errors.append(error)

    threads = [threading.Thread(target=want) for _ in range(50)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert site.builds == 1
    assert sorted(used) == ["ready"] * 49 + ["unpacked"]
    assert sum(line.startswith("Resolving") for line in site.said) == 1


def test_fifty_at_once_share_one_failure(site: EnvSite) -> None:
    slow = site.folder / "slow"
    slow.mkdir()
    (slow / "setup.py").write_text("import time\ntime.sleep(1)\nraise RuntimeError('no compiler')\n")
    request = request_for_file(str(slow))
    errors: list[str] = []

    def want() -> None:
        try:
            site.store().stage(request, site.say)
        except EnvironmentBuildError as error:
            errors.append(str(error))

    threads = [threading.Thread(target=want) for _ in range(50)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(errors) == 50
    assert all("no compiler" in error for error in errors)
    assert sum(line.startswith("Resolving") for line in site.said) == 1
