"""Requirements of a repository that has a pyproject.toml and no requirements.txt."""

from __future__ import annotations

import pytest

from hpc_agent.config.settings import PackageSettings
from hpc_agent.domain.env import RequirementFiles
from hpc_agent.domain.task import Requirements, Script
from hpc_agent.envs.pyproject import dependencies, specifier
from hpc_agent.envs.request import request_for
from hpc_agent.errors import EnvironmentBuildError

UV = """
[project]
name = "model"
dependencies = ["numpy>=1.20", "Torch[cuda]", "ours", "beside"]
[tool.uv.sources]
torch = { index = "pytorch" }
ours = { git = "https://host/ours", rev = "abc" }
beside = { path = "../beside" }
"""
UV_LOCK = """
version = 1
[[package]]
name = "numpy"
version = "1.26.4"
source = { registry = "https://pypi.org/simple" }
[[package]]
name = "torch"
version = "2.1.0"
source = { registry = "https://pypi.org/simple" }
[[package]]
name = "torch"
version = "2.1.0+cu121"
source = { registry = "https://download.pytorch.org/whl" }
[[package]]
name = "ours"
version = "0.1"
source = { git = "https://host/ours?rev=abc#abc" }
"""
POETRY = """
[tool.poetry]
name = "model"
[tool.poetry.dependencies]
python = "^3.10"
numpy = "^1.20"
torch = { version = "~2.1", extras = ["cuda"], markers = "sys_platform == 'linux'" }
ours = { git = "https://host/ours", tag = "v1", subdirectory = "py" }
lib = { path = "lib" }
any = "*"
"""
POETRY_LOCK = '[[package]]\nname = "numpy"\nversion = "1.26.4"\n[[package]]\nname = "pywin32"\nversion = "306"\n'


def test_dependencies_of_a_project_with_the_versions_of_its_lock() -> None:
    lines, limits = dependencies("", {"pyproject.toml": UV, "uv.lock": UV_LOCK})
    assert lines == ["numpy>=1.20", "Torch[cuda]", "ours @ git+https://host/ours@abc", "beside"]
    # torch has two versions for two systems, ours comes from its repository: the resolver decides.
    assert limits == ["numpy==1.26.4"]


def test_poetrys_own_words() -> None:
    lines, limits = dependencies("app", {"app/pyproject.toml": POETRY, "app/poetry.lock": POETRY_LOCK})
    assert lines == [
        "numpy>=1.20,<2",
        "torch[cuda]>=2.1,<2.2 ; sys_platform == 'linux'",
        "ours @ git+https://host/ours@v1#subdirectory=py",
        "./lib",
        "any",
    ]
    assert limits == ["numpy==1.26.4", "pywin32==306"]


@pytest.mark.parametrize(
    ("wish", "pip"),
    [
        ("^1.2.3", ">=1.2.3,<2"),
        ("^0.2.3", ">=0.2.3,<0.3"),
        ("^0.0.3", ">=0.0.3,<0.0.4"),
        ("^0.0", ">=0.0,<0.1"),
        ("^1", ">=1,<2"),
        ("~1.2.3", ">=1.2.3,<1.3"),
        ("~1.2", ">=1.2,<1.3"),
        ("~1", ">=1,<2"),
        ("1.2.3", "==1.2.3"),
        ("1.2.*", "==1.2.*"),
        (">=1.2, <3", ">=1.2,<3"),
        ("~=1.4", "~=1.4"),
        ("*", ""),
    ],
)
def test_version_wishes_of_poetry(wish: str, pip: str) -> None:
    assert specifier(wish) == pip


def test_project_and_what_clearml_task_adds_both_count() -> None:
    texts = {"requirements.txt": "clearml\n", "app/pyproject.toml": '[project]\ndependencies = ["six", "./lib"]\n'}
    files = RequirementFiles(("requirements.txt",), texts, "app", "app/pyproject.toml")
    lines = request_for(Script(repository="r"), files, PackageSettings()).lines
    assert lines.requirements == ("./app/lib", "clearml", "six")


@pytest.mark.parametrize(
    ("kind", "listed", "wanted", "expected"),
    [
        ("uv", True, None, ("click",)),
        ("uv", False, None, ("click", "numpy<2,>=1.20")),
        ("uv", True, ("six",), ("six",)),
        ("poetry", True, None, ("numpy<2,>=1.20",)),
        ("poetry", True, ("six",), ("numpy<2,>=1.20",)),
        # What clearml-task adds for itself counts all the same.
        ("poetry", False, ("six",), ("click", "numpy<2,>=1.20")),
    ],
)
def test_project_or_list(kind, listed, wanted, expected) -> None:
    project = '[tool.poetry.dependencies]\npython = "^3.10"\nnumpy = "^1.20"\n'
    texts = {"requirements.txt": "click\n", "pyproject.toml": project}
    files = RequirementFiles(("requirements.txt",), texts, "", "pyproject.toml", listed)
    script = Script(repository="r", requirements=Requirements(pip=wanted))
    assert request_for(script, files, PackageSettings(type=kind)).lines.requirements == expected


def test_broken_file_is_named() -> None:
    with pytest.raises(EnvironmentBuildError, match=r"pyproject.toml of the task's repository cannot be read"):
        dependencies("", {"pyproject.toml": "[project"})
