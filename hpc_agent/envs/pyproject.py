"""What a repository without requirements.txt asks for in its pyproject.toml; its lock file decides the versions. Pure.

Only the dependencies: the project's own code is there as a checkout. A lock's versions become constraints, so that
what it lists for other systems is not asked for here.
"""

from __future__ import annotations

import posixpath
import re
import sys
from collections.abc import Iterator, Mapping
from typing import Any

from hpc_agent.errors import EnvironmentBuildError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

NAME = "pyproject.toml"
LOCKS = ("uv.lock", "poetry.lock")


def dependencies(folder: str, texts: Mapping[str, str]) -> tuple[list[str], list[str]]:
    """Requirement lines and constraint lines of the project in ``folder``; ``texts`` as in RequirementFiles.

    Raises:
        EnvironmentBuildError: a file is no TOML.
    """
    project = _parsed(posixpath.join(folder, NAME), texts)
    poetry = project.get("tool", {}).get("poetry", {}).get("dependencies", {})
    sources = project.get("tool", {}).get("uv", {}).get("sources", {})
    if "dependencies" in project.get("project", {}) or not poetry:
        lines = [_from_source(str(line), sources) for line in project.get("project", {}).get("dependencies", ())]
    else:
        lines = [_poetry_line(name, wish) for name, wish in poetry.items() if name.lower() != "python"]
    for name in LOCKS:
        if (path := posixpath.join(folder, name)) in texts:
            return lines, list(_pins(_parsed(path, texts)))
    return lines, []


def _parsed(path: str, texts: Mapping[str, str]) -> dict[str, Any]:
    try:
        content: dict[str, Any] = tomllib.loads(texts[path])
    except tomllib.TOMLDecodeError as error:
        raise EnvironmentBuildError(f"{path} of the task's repository cannot be read: {error}") from error
    return content


def _pins(lock: Mapping[str, Any]) -> Iterator[str]:
    """``name==version`` for each package that has one version on all systems and comes from an index."""
    versions: dict[str, set[str]] = {}
    for package in lock.get("package", ()):
        source = package.get("source", {})
        if package.get("version") and (not source or "registry" in source or source.get("type") == "legacy"):
            versions.setdefault(package["name"], set()).add(package["version"])
    for name, found in versions.items():
        if len(found) == 1:
            yield f"{name}=={found.pop()}"


def _from_source(line: str, sources: Mapping[str, Any]) -> str:
    """A dependency, taken from where ``tool.uv.sources`` says if that is a repository or a folder."""
    match = re.match(r"^[A-Za-z0-9._-]+(\[[^]]*\])?", line)
    name = re.sub(r"\[.*", "", match[0]) if match else ""
    where = next((value for key, value in sources.items() if key.lower() == name.lower()), None)
    address = _address(where) if isinstance(where, dict) else None
    return f"{match[0]} @ {address}" if match and address else line


def _poetry_line(name: str, wish: Any) -> str:
    """``numpy = "^1.2"`` or ``numpy = {version = "^1.2", extras = ["x"]}`` as a requirement line."""
    if isinstance(wish, list):
        wish = wish[0]  # one for each Python: the lock, or else the first, decides
    fields = wish if isinstance(wish, dict) else {"version": wish}
    if fields.get("path"):
        return f"./{fields['path']}"
    extras = f"[{','.join(fields['extras'])}]" if fields.get("extras") else ""
    if address := _address(fields):
        return f"{name}{extras} @ {address}"
    marker = f" ; {fields['markers']}" if fields.get("markers") else ""
    return f"{name}{extras}{specifier(str(fields.get('version', '*')))}{marker}"


def _address(fields: Mapping[str, Any]) -> str | None:
    if fields.get("git"):
        at = fields.get("rev") or fields.get("tag") or fields.get("branch")
        below = f"#subdirectory={fields['subdirectory']}" if fields.get("subdirectory") else ""
        return f"git+{fields['git']}{f'@{at}' if at else ''}{below}"
    return str(fields["url"]) if fields.get("url") else None


def specifier(wish: str) -> str:
    """Poetry's ``^1.2.3``, ``~1.2`` and ``1.2.3`` in pip's words; what pip knows stays."""
    return ",".join(filter(None, (_one_specifier(part.strip()) for part in wish.split(","))))


def _one_specifier(wish: str) -> str:
    if wish in ("", "*"):
        return ""
    if wish[0] in "<>=!" or wish.startswith("~="):
        return wish
    if wish[0] not in "^~":
        return f"=={wish}"
    version = wish[1:].strip()
    numbers = [int(part) for part in re.findall(r"\d+", version.partition("-")[0])]
    # ^ lets all grow behind the first number that is not 0; ~ what follows the second.
    kept = next((n for n, number in enumerate(numbers) if number), len(numbers) - 1) if wish[0] == "^" else 1
    kept = min(kept, len(numbers) - 1)
    above = [*numbers[:kept], numbers[kept] + 1]
    return f">={version},<{'.'.join(map(str, above))}"
