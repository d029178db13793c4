"""Repositories that say what they need as a project: read by uv and poetry-core, never guessed at."""

from __future__ import annotations

import hashlib
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pytest
from env_site import EnvSite
from msgspec.structs import replace
from package_index import serve_index

from hpc_agent.config.clearml_settings import PackageSettings
from hpc_agent.domain.env import RequirementFiles
from hpc_agent.domain.task import TaskScript
from hpc_agent.envs.env_request import EnvRequest, request_for
from hpc_agent.envs.env_store import StagedEnv, UsableEnv
from hpc_agent.errors import EnvironmentBuildError

BACKEND = """
import pathlib, zipfile
NAME, VERSION, REQUIRES = {name!r}, {version!r}, {requires!r}
def build_wheel(directory, config_settings=None, metadata_directory=None):
    info = f"{{NAME}}-{{VERSION}}.dist-info"
    with zipfile.ZipFile(f"{{directory}}/{{NAME}}-{{VERSION}}-py3-none-any.whl", "w") as wheel:
        for file in pathlib.Path({source!r}).rglob("*.py"):
            if file.name != "backend.py":
                wheel.write(file, file.relative_to({source!r}))
        lines = ["Metadata-Version: 2.1", f"Name: {{NAME}}", f"Version: {{VERSION}}"]
        lines += [f"Requires-Dist: {{line}}" for line in REQUIRES]
        wheel.writestr(f"{{info}}/METADATA", "\\n".join(lines) + "\\n")
        wheel.writestr(f"{{info}}/WHEEL", "Wheel-Version: 1.0\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n")
        wheel.writestr(f"{{info}}/RECORD", "")
    return f"{{NAME}}-{{VERSION}}-py3-none-any.whl"
"""
BUILD_SYSTEM = '[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n'


def project(name: str = "app", dependencies: str = "[]") -> str:
    return f'[project]\nname = "{name}"\nversion = "1.0"\ndependencies = {dependencies}\n'


@dataclass
class Project:
    """A checkout of a repository, and the task that runs ``entry_point`` from it."""

    site: EnvSite
    root: Path
    entry_point: str = "run.py"

    def write(self, name: str, text: str) -> None:
        (self.root / name).parent.mkdir(parents=True, exist_ok=True)
        (self.root / name).write_text(text, encoding="utf-8")

    def package(self, folder: str, name: str, *, source: str = ".", requires: tuple[str, ...] = ()) -> None:
        """A package with a build backend of its own: nothing is needed from an index."""
        self.write(f"{folder}/backend.py", BACKEND.format(name=name, version="1.0", requires=requires, source=source))
        self.write(f"{folder}/pyproject.toml", BUILD_SYSTEM + project(name))

    def request(self, commit: str = "1") -> EnvRequest:
        texts = {name: (self.root / name).read_text() for name in self._files()}
        folders = {name.rpartition("/")[0] for name in texts if "/" not in name}
        locks = tuple(name for name in ("poetry.lock", "uv.lock") if (self.root / name).exists())
        files = RequirementFiles(texts=texts, projects=tuple(sorted(folders)), locks=locks)
        script = TaskScript(repository="r", entry_point=self.entry_point)
        return request_for(script, files, self.site.packages, source=commit)

    def _files(self) -> list[str]:
        return [name for name in ("pyproject.toml", "setup.py", "setup.cfg") if (self.root / name).exists()]

    def stage(self, commit: str = "1") -> StagedEnv:
        return self.site.store().stage(self.request(commit), self.site.say, source_root=self.root)

    def use(self, commit: str = "1") -> UsableEnv:
        return self.site.store().use(self.stage(commit).key, self.site.say)


def says(env: UsableEnv, code: str) -> str:
    ran = subprocess.run([env.python, "-c", code], capture_output=True, text=True)
    assert not ran.returncode, ran.stderr
    return ran.stdout.strip()


@pytest.fixture
def repository(site: EnvSite, monkeypatch: pytest.MonkeyPatch) -> Iterator[Project]:
    """Its site's index has alpha 1.0 and beta 1.0, which wants alpha; what is not there is nowhere."""
    for name in ("PIP_EXTRA_INDEX_URL", "PIP_CONFIG_FILE", "UV_INDEX_URL", "UV_INDEX", "UV_EXTRA_INDEX_URL"):
        monkeypatch.delenv(name, raising=False)
    with serve_index(site.wheels.folder, site.folder / "index") as url:
        monkeypatch.setenv("UV_DEFAULT_INDEX", url)
        (site.folder / "code").mkdir()
        yield Project(site, site.folder / "code")


@pytest.fixture
def lab(site: EnvSite) -> Iterator[str]:
    """A second index, with alpha 9.0 and a package of its own."""
    other = type(site.wheels)(site.folder / "lab-wheels")
    other.add("alpha", "9.0")
    other.add("lab_only", "1.0")
    with serve_index(other.folder, site.folder / "lab") as url:
        yield url


@pytest.mark.parametrize("installer", ["uv", "pip", "poetry"])
def test_package_of_the_repository_is_not_taken_from_an_index(
    repository: Project, installer: Literal["uv", "pip", "poetry"]
) -> None:
    """Else the publisher of a package of that name has code in the task."""
    repository.site.packages = PackageSettings(type=installer)
    repository.package("libs/alpha", "alpha")
    repository.write("libs/alpha/alpha.py", "VERSION = 'of the repository'\n")
    repository.write(
        "pyproject.toml", project(dependencies='["alpha"]') + '[tool.uv.sources]\nalpha = { path = "libs/alpha" }\n'
    )
    assert says(repository.use(), "import alpha; print(alpha.VERSION)") == "of the repository"


def test_member_of_a_workspace_is_taken_from_it(repository: Project) -> None:
    repository.package("packages/alpha", "alpha")
    repository.write("packages/alpha/alpha.py", "VERSION = 'member'\n")
    repository.write(
        "pyproject.toml",
        project(dependencies='["alpha"]')
        + '[tool.uv.sources]\nalpha = { workspace = true }\n[tool.uv.workspace]\nmembers = ["packages/*"]\n',
    )
    assert says(repository.use(), "import alpha; print(alpha.VERSION)") == "member"


@pytest.mark.parametrize(
    "sources",
    [
        "alpha = { workspace = true }",
        'alpha = { path = "libs/none" }',
        'alpha = { index = "none" }',
        "alpha = { x = 1 }",
    ],
)
def test_source_that_is_not_there_or_not_known_fails(repository: Project, sources: str) -> None:
    repository.write("pyproject.toml", project(dependencies='["alpha"]') + f"[tool.uv.sources]\n{sources}\n")
    with pytest.raises(EnvironmentBuildError):
        repository.stage()


def test_package_that_is_pinned_to_an_index_comes_from_there(repository: Project, lab: str) -> None:
    repository.write(
        "pyproject.toml",
        project(dependencies='["alpha", "lab-only"]')
        + f'[[tool.uv.index]]\nname = "lab"\nurl = "{lab}"\nexplicit = true\n'
        + '[tool.uv.sources]\nlab-only = { index = "lab" }\n',
    )
    # The index is for that package alone: its alpha 9.0 is not asked for.
    assert repository.stage().packages == ("alpha==1.0", "lab-only==1.0")
    assert says(repository.use(), "import lab_only; print(lab_only.VERSION)") == "1.0"


def test_first_index_that_has_a_name_counts(repository: Project, lab: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """As with uv: a public package with a higher version does not take the place of the lab's own."""
    monkeypatch.delenv("UV_DEFAULT_INDEX")
    public = repository.site.wheels
    public.add("lab_only", "99.0")
    with serve_index(public.folder, repository.site.folder / "public") as url:
        repository.write(
            "pyproject.toml",
            project(dependencies='["lab-only"]')
            + f'[[tool.uv.index]]\nname = "lab"\nurl = "{lab}"\n'
            + f'[[tool.uv.index]]\nname = "pypi"\nurl = "{url}"\ndefault = true\n',
        )
        assert repository.stage().packages == ("lab-only==1.0",)


def test_groups_and_dynamic_dependencies_are_installed(repository: Project) -> None:
    repository.write("backend.py", BACKEND.format(name="app", version="1.0", requires=("alpha",), source="none"))
    repository.write(
        "pyproject.toml",
        BUILD_SYSTEM
        + '[project]\nname = "app"\nversion = "1.0"\ndynamic = ["dependencies"]\n'
        + '[dependency-groups]\ndev = ["beta"]\ndocs = ["none-such"]\n',
    )
    assert {"alpha==1.0", "beta==1.0"} <= set(repository.stage().packages)


def test_setup_py_is_read(repository: Project) -> None:
    repository.write("pyproject.toml", BUILD_SYSTEM)
    repository.write("backend.py", BACKEND.format(name="app", version="1.0", requires=("beta",), source="none"))
    repository.write("setup.py", "from setuptools import setup\nsetup()\n")
    assert set(repository.stage().packages) == {"alpha==1.0", "beta==1.0"}


def test_lock_of_uv_decides_the_versions(repository: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    site = repository.site
    repository.write("pyproject.toml", project(dependencies='["beta"]'))
    locked(repository)
    # By now there is a newer alpha.
    site.wheels.add("alpha", "2.0")
    with serve_index(site.wheels.folder, site.folder / "newer") as newer:
        monkeypatch.setenv("UV_DEFAULT_INDEX", newer)
        assert repository.stage().packages == ("alpha==1.0", "beta==1.0")
        (repository.root / "uv.lock").unlink()
        assert repository.stage("2").packages == ("alpha==2.0", "beta==1.0")


def test_package_with_another_hash_than_the_lock_is_not_installed(repository: Project) -> None:
    """An index that was taken over may serve other bytes under the version that a lock names."""
    repository.write("pyproject.toml", project(dependencies='["alpha"]'))
    locked(repository)
    wheel = next(repository.site.wheels.folder.glob("alpha-*.whl"))
    lock = repository.root / "uv.lock"
    digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
    assert digest in lock.read_text()
    lock.write_text(lock.read_text().replace(digest, "0" * 64))
    with pytest.raises(EnvironmentBuildError, match=r"(?i)hash"):
        repository.stage()


def locked(repository: Project) -> None:
    """The real uv writes ``uv.lock``."""
    import uv

    ran = subprocess.run([uv.find_uv_bin(), "lock", "--project", repository.root], capture_output=True, text=True)
    assert not ran.returncode, ran.stderr


def poetry(dependencies: str, rest: str = "") -> str:
    return (
        '[tool.poetry]\nname = "app"\nversion = "1"\ndescription = ""\nauthors = []\npackage-mode = false\n'
        f'[tool.poetry.dependencies]\npython = ">=3.9,<4.0"\n{dependencies}\n{rest}'
    )


@pytest.mark.parametrize(
    ("dependencies", "packages"),
    [
        ('beta = "^1.0"', ("alpha==1.0", "beta==1.0")),
        ('alpha = [{version = "5.0", python = "<3.5"}, {version = "1.0", python = ">=3.5"}]', ("alpha==1.0",)),
        ('alpha = "^1.0 || ^7.0"\n[tool.poetry.group.none]\noptional = true', None),
        ('alpha = ">=0.5 <2.0"', ("alpha==1.0",)),
        ('alpha = "1.0"\nnone-such = {version = "1", optional = true}', ("alpha==1.0",)),
        ('alpha = "*"\nnone-such = {version = "1", platform = "win32"}', ("alpha==1.0",)),
        ('alpha = "~1.0"\nnone-such = {version = "1", python = "<3.0"}', ("alpha==1.0",)),
        ('[tool.poetry.group.dev.dependencies]\nalpha = "*"', ("alpha==1.0",)),
        ('[tool.poetry.group.docs]\noptional = true\n[tool.poetry.group.docs.dependencies]\nnone-such = "*"', ()),
    ],
)
def test_constraints_of_poetry_are_read_by_poetry(
    repository: Project, dependencies: str, packages: tuple[str, ...] | None
) -> None:
    repository.write("pyproject.toml", poetry(dependencies))
    if packages is None:  # the newer of the two ranges, which is not published
        with pytest.raises(EnvironmentBuildError, match="alpha"):
            repository.stage()
    else:
        assert repository.stage().packages == packages


def test_prereleases_that_poetry_allows_are_taken_for_that_package_only(repository: Project) -> None:
    other = type(repository.site.wheels)(repository.site.folder / "early-wheels")
    for name in ("early", "ready"):
        for version in ("1.0", "2.0rc1"):
            other.add(name, version)
    with serve_index(other.folder, repository.site.folder / "early") as url:
        early = 'early = {version = "<3", allow-prereleases = true, source = "main"}'
        dependencies = f'{early}\nready = {{version = "*", source = "main"}}'
        repository.write("pyproject.toml", poetry(dependencies) + main_source(url))
        assert repository.stage().packages == ("early==2.0rc1", "ready==1.0")


def test_poetry_lock_decides_for_a_project_with_a_project_table(
    repository: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    for version in ("1.1", "1.2"):
        repository.site.wheels.add("gamma", version)
    with serve_index(repository.site.wheels.folder, repository.site.folder / "more") as url:
        monkeypatch.setenv("UV_DEFAULT_INDEX", url)
        repository.write("pyproject.toml", project(dependencies='["gamma>=1"]'))
        repository.write(
            "poetry.lock",
            '[[package]]\nname = "gamma"\nversion = "1.1"\noptional = false\npython-versions = "*"\nfiles = []\n'
            '[metadata]\nlock-version = "2.1"\n',
        )
        assert repository.stage().packages == ("gamma==1.1",)


def test_index_of_pdm_is_asked_before_the_public_one(repository: Project, lab: str) -> None:
    repository.write(
        "pyproject.toml",
        project(dependencies='["alpha", "beta"]') + f'[[tool.pdm.source]]\nname = "lab"\nurl = "{lab}"\n',
    )
    assert repository.stage().packages == ("alpha==9.0", "beta==1.0")


def test_lock_of_poetry_decides_under_its_markers(repository: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    site = repository.site
    monkeypatch.delenv("UV_DEFAULT_INDEX")
    site.wheels.add("alpha", "2.0")
    site.wheels.add("alpha", "3.0")
    with serve_index(site.wheels.folder, site.folder / "newer") as url:
        repository.write("pyproject.toml", poetry('alpha = ">=1.0"') + main_source(url))
        digest = hashlib.sha256((site.wheels.folder / "alpha-2.0-py3-none-any.whl").read_bytes()).hexdigest()
        repository.write(
            "poetry.lock",
            f"""
[[package]]
name = "alpha"
version = "1.0"
optional = false
python-versions = "*"
groups = ["main"]
markers = "python_version < \\"3.5\\""
files = [{{file = "alpha-1.0-py3-none-any.whl", hash = "sha256:{"1" * 64}"}}]
[[package]]
name = "alpha"
version = "2.0"
optional = false
python-versions = "*"
groups = ["main"]
markers = "python_version >= \\"3.5\\""
files = [{{file = "alpha-2.0-py3-none-any.whl", hash = "sha256:{digest}"}}]
[metadata]
lock-version = "2.1"
""",
        )
        assert repository.stage().packages == ("alpha==2.0",)


def main_source(url: str) -> str:
    return f'[[tool.poetry.source]]\nname = "main"\nurl = "{url}"\npriority = "primary"\n'


def test_source_of_poetry_is_asked_for_its_packages_only(repository: Project, lab: str) -> None:
    repository.write(
        "pyproject.toml",
        poetry('alpha = "*"\nlab-only = {version = "*", source = "lab"}')
        + f'[[tool.poetry.source]]\nname = "lab"\nurl = "{lab}"\npriority = "explicit"\n',
    )
    assert repository.stage().packages == ("alpha==1.0", "lab-only==1.0")


def test_folder_of_a_poetry_project_is_not_taken_from_an_index(repository: Project) -> None:
    repository.package("libs/alpha", "alpha")
    repository.write("libs/alpha/alpha.py", "VERSION = 'of the repository'\n")
    repository.write("pyproject.toml", poetry('alpha = {path = "libs/alpha", develop = true}'))
    assert says(repository.use(), "import alpha; print(alpha.VERSION)") == "of the repository"


def test_project_itself_is_installed_where_its_code_is_not_next_to_the_script(repository: Project) -> None:
    repository.write("backend.py", BACKEND.format(name="app", version="1.0", requires=("alpha",), source="src"))
    repository.write("pyproject.toml", BUILD_SYSTEM + project(dependencies='["alpha"]'))
    repository.write("src/app/__init__.py", "WHO = 'src'\n")
    repository.write("scripts/run.py", "import app\n")
    repository.entry_point = "scripts/run.py"
    env = repository.use()
    assert says(env, "import app, alpha; print(app.WHO)") == "src"
    # Another commit with the same package has the same environment, one with another package another.
    assert repository.stage("2").key == env.key
    repository.write("src/app/__init__.py", "WHO = 'new'\n")
    assert repository.stage("3").key != env.key


def test_project_whose_code_is_next_to_the_script_is_not_installed(repository: Project) -> None:
    """Else each commit would have an environment of its own."""
    repository.write("backend.py", BACKEND.format(name="app", version="1.0", requires=(), source="flat"))
    repository.write("pyproject.toml", BUILD_SYSTEM + project(dependencies='["alpha"]'))
    repository.write("flat/app/__init__.py", "")
    repository.entry_point = "flat/run.py"
    staged = repository.stage()
    assert staged.packages == ("alpha==1.0",)
    repository.write("flat/app/__init__.py", "x = 1\n")
    assert repository.stage("2").key == staged.key


def test_project_whose_package_cannot_be_built_is_reported(repository: Project) -> None:
    repository.write("backend.py", "def build_wheel(*a, **k):\n    raise RuntimeError('flat layout')\n")
    repository.write("pyproject.toml", BUILD_SYSTEM + project(dependencies='["alpha"]'))
    staged = repository.stage()
    assert staged.packages == ("alpha==1.0",)
    [note] = staged.notes
    assert "pyproject.toml itself is not installed" in note
    # The next caller gets the same note.
    assert repository.stage().notes == (note,)


def test_settings_of_uv_in_a_repository_lead_nowhere_else(repository: Project, tmp_path: Path) -> None:
    target = tmp_path / "elsewhere"
    repository.write(
        "pyproject.toml",
        project(dependencies='["alpha"]') + f'[tool.uv.pip]\ntarget = "{target}"\noutput-file = "{target}.txt"\n',
    )
    assert says(repository.use(), "import alpha; print(alpha.VERSION)") == "1.0"
    assert not target.exists() and not Path(f"{target}.txt").exists()


def test_file_with_a_byte_order_mark_is_read(repository: Project) -> None:
    repository.write("pyproject.toml", project(dependencies='["alpha"]'))
    request = replace(repository.request())
    data = (repository.root / "pyproject.toml").read_bytes()
    (repository.root / "pyproject.toml").write_bytes(b"\xef\xbb\xbf" + data)
    staged = repository.site.store().stage(request, repository.site.say, source_root=repository.root)
    assert staged.packages == ("alpha==1.0",)
