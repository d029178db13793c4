"""conda, mamba and micromamba: argument lists that all three understand, and what they print.

Pure, but for ``find``.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from hpc_agent.envs.requirements import ResolutionError
from hpc_agent.errors import EnvironmentBuildError
from hpc_agent.redact import without_credentials
from hpc_agent.retry import is_away

_PROGRAMS = ("micromamba", "mamba", "conda")
"""The quickest first: they resolve the same."""
_EXPLICIT = "@EXPLICIT"
_OWN_VARIABLES = re.compile(
    r"(?:CONDA|MAMBA)_(?!PREFIX|DEFAULT_ENV|SHLVL|PROMPT_MODIFIER|PYTHON_EXE|EXE$)\w+|CONDARC|MAMBARC"
)
_AWAY = re.compile(r"CondaHTTPError|HTTP 000|ConnectionFailed|Download error|Could not load repodata", re.IGNORECASE)


class CondaPackage(msgspec.Struct, frozen=True):
    """A package of a solution. ``url`` is empty where the program does not say it (conda, of what it has already)."""

    name: str
    version: str
    build: str
    channel: str
    url: str = ""
    md5: str = ""

    @property
    def lock_line(self) -> str:
        """What installs exactly this package."""
        if self.url:
            return f"{self.url}#{self.md5}" if self.md5 else self.url
        return f"{self.channel}::{self.name}={self.version}={self.build}"


def find(setting: str, environ: Mapping[str, str]) -> str:
    """The site's program: the one of the setting, else the first on PATH, else the one of the shell's own conda.

    Raises:
        EnvironmentBuildError: there is none.
    """
    names = (setting,) if setting else (*_PROGRAMS, environ.get("MAMBA_EXE", ""), environ.get("CONDA_EXE", ""))
    for name in filter(None, names):
        if path := shutil.which(name):
            return path
    if setting:
        raise EnvironmentBuildError(f"agent.package_manager.conda_program is {setting!r}, which does not exist here")
    raise EnvironmentBuildError(
        "the task's packages are conda's, and none of micromamba, mamba and conda is on this machine: load its module "
        "before the daemon starts, or name the program in agent.package_manager.conda_program"
    )


def own_variables(environ: Mapping[str, str]) -> dict[str, str]:
    """Variables that configure the programs; those of an activated environment are left out."""
    return {name: value for name, value in environ.items() if _OWN_VARIABLES.fullmatch(name)}


def solve(program: str, channels: Sequence[str], specs_file: str, prefix: str) -> list[str]:
    """Prints as JSON what would be installed."""
    return [*_create(program, prefix), "--dry-run", "--json", *_channels(channels), "--file", specs_file]


def create(program: str, channels: Sequence[str], lock: Sequence[str], lock_file: str, prefix: str) -> list[str]:
    """Makes the environment that ``lock`` describes, whose lines ``lock_file`` has."""
    if is_explicit(lock):
        return [*_create(program, prefix), "--file", lock_file]
    return [*_create(program, prefix), "--no-deps", *_channels(channels), "--file", lock_file]


def lock_text(lock: Sequence[str]) -> list[str]:
    """Lines of the file for ``create``."""
    return [_EXPLICIT, *lock] if is_explicit(lock) else list(lock)


def is_explicit(lock: Sequence[str]) -> bool:
    """Whether all packages are known by their addresses, so that nothing is left to resolve."""
    return all("://" in line and "::" not in line for line in lock)


def _create(program: str, prefix: str) -> list[str]:
    return [program, "create", "--yes", "--quiet", "--prefix", prefix]


def _channels(channels: Sequence[str]) -> list[str]:
    return ["--override-channels", *(word for channel in channels for word in ("--channel", channel))]


def parse_solution(stdout: str, stderr: str, origin: str) -> tuple[CondaPackage, ...]:
    """What ``solve`` printed, sorted by name. ``origin``: of the request, for messages.

    Raises:
        ResolutionError: it found no solution; retryable if a channel did not answer.
    """
    answer = _first_object(stdout)
    actions = answer.get("actions") if isinstance(answer, dict) else None
    if not isinstance(answer, dict) or answer.get("success") is False or not isinstance(actions, dict):
        raise _failure(answer if isinstance(answer, dict) else {}, stdout, stderr, origin)
    # conda names in LINK what it installs, and has addresses in FETCH, of what it must load first.
    known = {_file_name(item): item for item in actions.get("FETCH") or () if isinstance(item, dict)}
    links = actions.get("LINK") or ()
    packages = [_package(item, known.get(_file_name(item), {})) for item in links if isinstance(item, dict)]
    return tuple(sorted(packages, key=lambda package: package.name))


def _package(item: Mapping[str, Any], fetched: Mapping[str, Any]) -> CondaPackage:
    values = {**fetched, **item}
    channel = str(values.get("base_url") or values.get("channel") or "").rstrip("/")
    subdir = str(values.get("platform") or values.get("subdir") or "")
    if subdir and channel.rpartition("/")[2] != subdir:
        channel = f"{channel}/{subdir}"
    return CondaPackage(
        name=str(values.get("name", "")),
        version=str(values.get("version", "")),
        build=str(values.get("build_string") or values.get("build") or ""),
        channel=without_credentials(channel),
        url=without_credentials(str(values.get("url") or "")),
        md5=str(values.get("md5") or ""),
    )


def _file_name(item: Mapping[str, Any]) -> str:
    name = str(item.get("dist_name") or item.get("fn") or "")
    if not name:
        name = "-".join(str(item.get(key, "")) for key in ("name", "version", "build"))
    return re.sub(r"\.conda$|\.tar\.bz2$", "", name)


def _first_object(text: str) -> Any:
    """The first JSON object in ``text``; None if there is none. Sites' wrappers greet before it."""
    decoder = json.JSONDecoder()
    start = text.find("{")
    while start >= 0:
        try:
            return decoder.raw_decode(text, start)[0]
        except (json.JSONDecodeError, RecursionError):
            start = text.find("{", start + 1)
    return None


def _failure(answer: Mapping[str, Any], stdout: str, stderr: str, origin: str) -> ResolutionError:
    problems = answer.get("solver_problems")
    words = "; ".join(map(str, problems)) if isinstance(problems, list) and problems else ""
    words = words or str(answer.get("message") or answer.get("error") or "") or stderr or stdout or "it printed nothing"
    text = without_credentials(" ".join(words.split()))[:1500]
    error = ResolutionError(f"the conda packages of {origin} cannot be resolved: {text}")
    error.retryable = is_away(words) or _AWAY.search(f"{answer.get('exception_name', '')} {words}") is not None
    return error
