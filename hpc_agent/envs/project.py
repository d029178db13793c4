"""The file by which a repository describes itself as a Python project, and the tool that reads it. Pure.

What it asks for is read by the tool that owns the format: uv for ``[project]`` and its own tables, poetry-core for
``[tool.poetry]``, the project's build backend for ``setup.py`` and dynamic dependencies. Only which of them, and
whether anything in it must be refused, is decided here.
"""

from __future__ import annotations

import configparser
import posixpath
import re
import sys
from collections.abc import Iterator, Mapping
from typing import Any, Literal

import msgspec

from hpc_agent.domain.env import RequirementFiles
from hpc_agent.errors import EnvironmentBuildError
from hpc_agent.redact import without_credentials

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

_ADDRESS = re.compile(r"https?://[^\s'\"]{1,2000}")

Tool = Literal["uv", "poetry", "setuptools"]


class Project(msgspec.Struct, frozen=True):
    """Python project of a repository. ``path``: its file, relative to the root. ``groups``: dependency groups that its
    tool installs by default. ``installs_itself``: whether its tool would install the project's own code too."""

    path: str
    tool: Tool = "uv"
    groups: tuple[str, ...] = ()
    installs_itself: bool = False
    has_table: bool = True
    """Whether it has dependencies of its own, not groups alone."""
    has_indexes: bool = False
    """Whether it names package indexes that are for all its packages."""
    indexes: tuple[str, ...] = ()
    """Addresses of indexes in a tool's own table, if uv reads the dependencies instead of that tool."""

    @property
    def folder(self) -> str:
        """Relative to the root, empty for the root itself."""
        return posixpath.dirname(self.path)


def find(files: RequirementFiles) -> tuple[Project | None, tuple[str, ...]]:
    """The project nearest to the working folder, and notes on what it has that is not used.

    Raises:
        EnvironmentBuildError: a file is not TOML, or has an address that is not allowed.
    """
    unused: list[str] = []
    for folder in files.projects:
        project, notes = _in_folder(folder, files)
        if project:
            return project, notes
        unused += notes
    return None, tuple(unused)


def parsed(path: str, text: str) -> dict[str, Any]:
    """Parse TOML text; ``path`` is for the message.

    Raises:
        EnvironmentBuildError: it is not TOML.
    """
    try:
        content: dict[str, Any] = tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise EnvironmentBuildError(f"{path} of the task's repository cannot be read: {error}") from error
    return content


def _in_folder(folder: str, files: RequirementFiles) -> tuple[Project | None, tuple[str, ...]]:
    texts, path = files.texts, posixpath.join(folder, "pyproject.toml")
    content = parsed(path, texts[path]) if path in texts else {}
    tool = _table(content, "tool")
    buildable = "build-system" in content
    poetry = _table(tool, "poetry")
    if _of_poetry(poetry, content) or _locked_by_poetry(folder, files):
        _refuse_variables(path, poetry, _table(content, "project"), _table(content, "dependency-groups"))
        itself = buildable and poetry.get("package-mode", True) is not False
        return Project(path, "poetry", (), itself, has_indexes=_for_all(poetry.get("source"))), ()
    uv = _table(tool, "uv")
    groups = _default_groups(content, uv)
    if "project" in content or groups:
        _refuse_variables(path, _table(content, "project"), _table(content, "dependency-groups"), uv)
        installs = bool(uv.get("package", buildable)) and "project" in content
        indexes = _foreign_indexes(path, tool)
        return (
            Project(
                path, "uv", groups, installs, "project" in content, bool(indexes) or _for_all(uv.get("index")), indexes
            ),
            tuple(_unused(path, tool)),
        )
    if _table(_table(tool, "flit"), "metadata"):
        # As it was before [project]: its build backend knows what it means.
        return Project(path, "setuptools", (), True), ()
    for name in ("setup.py", "setup.cfg"):
        other = posixpath.join(folder, name)
        if other in texts and (name == "setup.py" or _has_metadata(texts[other])):
            return Project(other, "setuptools", (), True), tuple(_unused(path, tool))
    return None, tuple(_unused(path, tool))


def _for_all(indexes: object) -> bool:
    """Whether one of a project's indexes is not only for the packages that name it."""
    tables = [index for index in indexes if isinstance(index, dict)] if isinstance(indexes, list) else []
    return any(not index.get("explicit") and index.get("priority") != "explicit" for index in tables)


def _table(content: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    value = content.get(name)
    return value if isinstance(value, dict) else {}


def _of_poetry(poetry: Mapping[str, Any], content: Mapping[str, Any]) -> bool:
    """Whether it names packages in poetry's own tables; some projects have only settings there."""
    if "project" not in content:
        return bool(poetry)
    return any(name in poetry for name in ("dependencies", "group", "dev-dependencies", "source"))


def _locked_by_poetry(folder: str, files: RequirementFiles) -> bool:
    """Since poetry 2 a project may have nothing of poetry's own but its lock."""
    poetrys, uvs = (posixpath.join(folder, name) for name in ("poetry.lock", "uv.lock"))
    return poetrys in files.locks and uvs not in files.locks


_UNUSED = (
    ("uv", "dev-dependencies"),
    ("pdm", "dev-dependencies"),
    ("pdm", "resolution", "overrides"),
    ("rye", "dev-dependencies"),
    ("hatch", "envs"),
    ("pixi", "dependencies"),
    ("pixi", "pypi-dependencies"),
    ("pixi", "feature"),
)
"""Tables of tools by which packages can be asked for, and that nothing here reads."""


def _unused(path: str, tool: Mapping[str, Any]) -> Iterator[str]:
    for names in _UNUSED:
        value: Any = tool
        for name in names:
            value = value.get(name) if isinstance(value, dict) else None
        if value and (names[0] != "hatch" or _asks_for_packages(value)):
            yield (
                f"tool.{'.'.join(names)} of {path} is not read: name packages in [project] dependencies, or in "
                "[dependency-groups] dev"
            )


def _asks_for_packages(environments: object) -> bool:
    tables = environments.values() if isinstance(environments, dict) else ()
    wanted = ("dependencies", "extra-dependencies", "dependency-groups")
    return any(isinstance(table, dict) and any(table.get(name) for name in wanted) for table in tables)


def _foreign_indexes(path: str, tool: Mapping[str, Any]) -> tuple[str, ...]:
    """The indexes that pdm or rye would ask.

    Raises:
        EnvironmentBuildError: an address is none.
    """
    found = []
    for name, key in (("pdm", "source"), ("rye", "sources")):
        table = _table(tool, name)
        _refuse_variables(path, table)
        sources = table.get(key)
        for source in sources if isinstance(sources, list) else ():
            url = str(source.get("url", "")) if isinstance(source, dict) else ""
            if not _ADDRESS.fullmatch(url):
                raise EnvironmentBuildError(
                    f"{path} of the task's repository cannot be used: tool.{name}.{key} has no address of an index: "
                    f"{without_credentials(url[:200])!r}"
                )
            found.append(url)
    return tuple(found)


def _default_groups(content: Mapping[str, Any], uv: Mapping[str, Any]) -> tuple[str, ...]:
    """The groups that ``uv sync`` installs."""
    present = _table(content, "dependency-groups")
    wanted = uv.get("default-groups", ["dev"])
    if wanted == "all":
        return tuple(sorted(present))
    return tuple(sorted(name for name in wanted if name in present)) if isinstance(wanted, list) else ()


def _has_metadata(text: str) -> bool:
    parser = configparser.RawConfigParser(strict=False)
    try:
        parser.read_string(text)
    except configparser.Error:
        return False
    return parser.has_section("options") or parser.has_section("metadata")


_OF_PACKAGES = ("dependencies", "optional-dependencies", "group", "dev-dependencies", "sources", "source", "index")
"""Tables that say which packages are wanted, and where they come from."""


def _refuse_variables(path: str, *tables: Mapping[str, Any]) -> None:
    """Refuse ``${NAME}`` in the tables that request packages.

    Raises:
        EnvironmentBuildError: uv would put a variable of the daemon's environment into an address.
    """
    for table in tables:
        for name, value in table.items():
            if name in _OF_PACKAGES or not isinstance(value, str):
                for text in _texts(value):
                    if "${" in text:
                        raise EnvironmentBuildError(
                            f"{path} of the task's repository cannot be used: {name!r} has {text[:200]!r}, and "
                            "variables such as ${NAME} are not expanded: write the value itself, and name a folder of "
                            'the repository as tool.uv.sources does, { path = "…" }'
                        )


def _texts(value: object) -> Iterator[str]:
    pending = [value]
    while pending:
        item = pending.pop()
        if isinstance(item, str):
            yield item
        elif isinstance(item, dict):
            pending += [*item.keys(), *item.values()]
        elif isinstance(item, list):
            pending += item
