"""Which file of a repository says what packages a task needs, and who reads it."""

from __future__ import annotations

import pytest

from hpc_agent.config.clearml_settings import PackageSettings
from hpc_agent.domain.env import RequirementFiles
from hpc_agent.domain.task import Requirements, TaskScript
from hpc_agent.envs.env_request import EnvRequest, request_for
from hpc_agent.envs.project import find
from hpc_agent.errors import EnvironmentBuildError

UV = '[project]\nname = "x"\nversion = "0"\n'
POETRY = '[tool.poetry]\nname = "x"\n'
BUILT = '[build-system]\nrequires = ["hatchling"]\n'


def files(texts: dict[str, str], **fields: object) -> RequirementFiles:
    folders = sorted({path.rpartition("/")[0] for path in texts if "requirements" not in path}, reverse=True)
    return RequirementFiles(texts=texts, projects=tuple(folders), **fields)  # type: ignore[arg-type]


def request(found: RequirementFiles, *, kind: str = "uv", source: str = "", **fields: object) -> EnvRequest:
    return request_for(TaskScript(repository="r", **fields), found, PackageSettings(type=kind), source=source)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("texts", "path", "tool"),
    [
        ({"pyproject.toml": UV}, "pyproject.toml", "uv"),
        ({"pyproject.toml": POETRY}, "pyproject.toml", "poetry"),
        ({"pyproject.toml": UV + "[tool.poetry.dependencies]\nsix = '*'\n"}, "pyproject.toml", "poetry"),
        ({"pyproject.toml": UV + "[tool.poetry]\npackages = []\n"}, "pyproject.toml", "uv"),
        ({"pyproject.toml": BUILT + "[tool.flit.metadata]\nrequires = ['six']\n"}, "pyproject.toml", "setuptools"),
        ({"pyproject.toml": "[dependency-groups]\ndev = ['six']\n"}, "pyproject.toml", "uv"),
        (
            {"pyproject.toml": "\ufeff".removeprefix("\ufeff") + "[tool.ruff]\n", "setup.py": ""},
            "setup.py",
            "setuptools",
        ),
        ({"pyproject.toml": BUILT, "setup.cfg": "[options]\n"}, "setup.cfg", "setuptools"),
        ({"setup.cfg": "[flake8]\n", "app/setup.py": ""}, "app/setup.py", "setuptools"),
        ({"pyproject.toml": UV, "app/pyproject.toml": "[tool.ruff]\n"}, "pyproject.toml", "uv"),
        ({"pyproject.toml": UV, "app/pyproject.toml": UV}, "app/pyproject.toml", "uv"),
    ],
)
def test_the_nearest_file_that_names_packages_counts(texts: dict[str, str], path: str, tool: str) -> None:
    project, _ = find(files(texts))
    assert project is not None
    assert (project.path, project.tool) == (path, tool)


@pytest.mark.parametrize(
    "texts", [{}, {"pyproject.toml": "[tool.black]\n"}, {"setup.cfg": "[flake8]\nx = 1\n"}, {"setup.cfg": "no ini"}]
)
def test_settings_of_other_tools_are_not_a_project(texts: dict[str, str]) -> None:
    assert find(files(texts)) == (None, ())


@pytest.mark.parametrize(
    ("locks", "tool"),
    [(["poetry.lock"], "poetry"), (["poetry.lock", "uv.lock"], "uv"), (["app/poetry.lock"], "uv"), ([], "uv")],
)
def test_lock_tells_whose_project_it_is(locks: list[str], tool: str) -> None:
    """A project of poetry 2 may have nothing else of poetry's own."""
    project, _ = find(files({"pyproject.toml": UV}, locks=tuple(locks)))
    assert project is not None and project.tool == tool


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("[tool.pdm.dev-dependencies]\ntest = ['six']\n", "tool.pdm.dev-dependencies"),
        ("[tool.pdm.resolution.overrides]\nsix = '1'\n", "tool.pdm.resolution.overrides"),
        ("[tool.rye]\ndev-dependencies = ['six']\n", "tool.rye.dev-dependencies"),
        ("[tool.hatch.envs.default]\ndependencies = ['six']\n", "tool.hatch.envs"),
        ("[tool.pixi.pypi-dependencies]\nsix = '*'\n", "tool.pixi.pypi-dependencies"),
        ("[tool.uv]\ndev-dependencies = ['six']\n", "tool.uv.dev-dependencies"),
    ],
)
@pytest.mark.parametrize("rest", ["", UV])
def test_ignored_packages_in_tables_of_other_tools_are_reported(text: str, named: str, rest: str) -> None:
    _, [note] = find(files({"pyproject.toml": rest + text}))
    assert note.startswith(f"{named} of pyproject.toml is not read")


@pytest.mark.parametrize(
    "text", ["[tool.hatch.envs.default.scripts]\nx = 'y'\n", "[tool.pdm]\n", "[tool.pixi.tasks]\nx = 'y'\n"]
)
def test_settings_that_ask_for_no_packages_are_not_named(text: str) -> None:
    assert find(files({"pyproject.toml": UV + text}))[1] == ()


@pytest.mark.parametrize(("tool", "key"), [("pdm", "source"), ("rye", "sources")])
def test_indexes_in_tables_of_other_tools_are_asked_first(tool: str, key: str) -> None:
    """Else a public package of the same name is installed."""
    text = f"[[tool.{tool}.{key}]]\nname = 'lab'\nurl = '{{}}'\n"
    project, _ = find(files({"pyproject.toml": UV + text.format("https://lab.example/simple")}))
    assert project is not None and project.has_indexes
    assert project.indexes == ("https://lab.example/simple",)
    for url in ("https://${TOKEN}@lab.example/", "/etc", "https://lab.example/ --find-links /etc", ""):
        with pytest.raises(EnvironmentBuildError):
            find(files({"pyproject.toml": UV + text.format(url)}))


@pytest.mark.parametrize(
    ("text", "groups"),
    [
        ("[dependency-groups]\ndev = []\ndocs = []\n", ("dev",)),
        ("[dependency-groups]\ndev = []\ndocs = []\n[tool.uv]\ndefault-groups = ['docs']\n", ("docs",)),
        ("[dependency-groups]\nb = []\na = []\n[tool.uv]\ndefault-groups = 'all'\n", ("a", "b")),
        ("[dependency-groups]\ndocs = []\n", ()),
        ("dependency-groups = 3\n", ()),
    ],
)
def test_groups_are_those_that_uv_sync_installs(text: str, groups: tuple[str, ...]) -> None:
    table, _, rest = text.partition("[") if text[0] != "[" else ("", "", text[1:])
    project, _ = find(files({"pyproject.toml": table + UV + ("[" + rest if rest else "")}))
    assert project is not None
    assert project.groups == groups


@pytest.mark.parametrize(
    ("text", "installs"),
    [
        (UV, False),
        (UV + BUILT, True),
        (UV + BUILT + "[tool.uv]\npackage = false\n", False),
        (UV + "[tool.uv]\npackage = true\n", True),
        (POETRY, False),
        (POETRY + BUILT, True),
        (POETRY + "package-mode = false\n" + BUILT, False),
    ],
)
def test_project_itself_is_installed_where_its_tool_would(text: str, installs: bool) -> None:
    project, _ = find(files({"pyproject.toml": text}))
    assert project is not None
    assert project.installs_itself is installs


@pytest.mark.parametrize(
    "text",
    [
        UV + 'dependencies = ["x @ https://h/${TOKEN}/x.whl"]\n',
        UV + '[project.optional-dependencies]\nall = ["x @ https://h/${TOKEN}/x.whl"]\n',
        UV + '[dependency-groups]\ndev = ["x @ https://h/${TOKEN}/x.whl"]\n',
        UV + '[tool.uv.sources]\nx = { url = "https://h/${TOKEN}" }\n',
        UV + '[[tool.uv.index]]\nname = "x"\nurl = "https://h/${TOKEN}"\n',
        POETRY + '[tool.poetry.dependencies]\nx = { git = "https://h/${TOKEN}" }\n',
        POETRY + '[[tool.poetry.source]]\nname = "x"\nurl = "https://h/${TOKEN}"\n',
    ],
)
def test_variables_in_addresses_are_refused(text: str) -> None:
    with pytest.raises(EnvironmentBuildError, match="variables such as"):
        find(files({"pyproject.toml": text}))


@pytest.mark.parametrize(
    ("kind", "listed", "wanted", "project", "lines"),
    [
        ("uv", True, None, False, ("click",)),
        ("uv", False, None, True, ("click",)),
        ("uv", True, ("six",), False, ("six",)),
        ("poetry", True, None, True, ()),
        ("poetry", True, ("six",), True, ()),
        # What clearml-task adds for itself counts anyway.
        ("poetry", False, ("six",), True, ("click",)),
    ],
)
def test_project_or_list(
    kind: str, listed: bool, wanted: tuple[str, ...] | None, project: bool, lines: tuple[str, ...]
) -> None:
    texts = {"requirements.txt": "click\n", "pyproject.toml": POETRY}
    found = request(
        files(texts, roots=("requirements.txt",), listed=listed), kind=kind, requirements=Requirements(pip=wanted)
    )
    assert (found.project is not None, found.lines.requirements) == (project, lines)


@pytest.mark.parametrize(
    ("text", "has"),
    [
        (UV, False),
        (UV + '[[tool.uv.index]]\nname = "a"\nurl = "https://a"\nexplicit = true\n', False),
        (UV + '[[tool.uv.index]]\nname = "a"\nurl = "https://a"\n', True),
        (POETRY + '[[tool.poetry.source]]\nname = "a"\nurl = "https://a"\npriority = "explicit"\n', False),
        (POETRY + '[[tool.poetry.source]]\nname = "a"\nurl = "https://a"\n', True),
        (UV + "[tool.uv]\nindex = 3\n", False),
    ],
)
def test_indexes_for_all_packages_differ_from_explicit_ones(text: str, has: bool) -> None:
    project, _ = find(files({"pyproject.toml": text}))
    assert project is not None
    assert project.has_indexes is has


def test_ignored_package_lists_are_reported() -> None:
    others = ("environment.yml", "requirements-gpu.txt")
    notes = request(files({}, unread=others)).notes
    assert [note.split()[0] for note in notes] == list(others)
    notes = request(files({"pyproject.toml": UV}, unread=others)).notes
    assert [note.split()[0] for note in notes] == ["environment.yml"]
    texts = {"requirements.txt": "", "pyproject.toml": UV}
    notes = request(files(texts, roots=("requirements.txt",), listed=True)).notes
    assert notes == ("pyproject.toml of the repository is not read: the packages are those of requirements.txt",)
    assert "conda" in request(files({}), requirements=Requirements(conda=("six",))).notes[0]
    assert request(files({}, unread=others), requirements=Requirements(pip=())).notes == ()


def test_request_depends_on_the_commit_of_its_project() -> None:
    found = files({"pyproject.toml": UV})
    settings = PackageSettings()
    assert request(found, source="1").digest(settings) != request(found, source="2").digest(settings)
    assert request(found).needs_source


def test_broken_file_is_named() -> None:
    with pytest.raises(EnvironmentBuildError, match=r"pyproject.toml of the task's repository cannot be read"):
        find(files({"pyproject.toml": "[project"}))
