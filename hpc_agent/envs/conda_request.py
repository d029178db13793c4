"""Packages that a task wants from conda's channels: its own list, or its repository's environment.yml. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import msgspec

from hpc_agent.domain.env import RequirementFiles
from hpc_agent.domain.task import Requirements
from hpc_agent.errors import EnvironmentBuildError

_LONGEST_FILE = 200_000
"""Characters; an exported environment of 500 packages has 30,000."""
_VARIABLE = re.compile(r"[A-Za-z_]\w*", re.ASCII)
_OPERATOR = re.compile(r"\s*(==|>=|<=|!=|~=|=|<|>)\s*")
_SPEC = re.compile(r"[A-Za-z0-9_][^\x00-\x1f\x7f$`]{0,300}")
_CHANNEL = re.compile(r"(?:[a-z+]{2,10}://)?[A-Za-z0-9_/][\w./:@%+~-]{0,500}", re.ASCII)
_WORDS = re.compile(r"(?P<name>[^\s=<>!~\[]+)\s+(?P<version>[^\s=<>!~\[]+)(?:\s+(?P<build>[^\s=<>!~\[]+))?")
"""The form ``numpy 1.26.4 py311_0``, which files of specs do not have."""
_SECRET = re.compile(r"//[^/]*@|/t/[^/]+/")
_NAME = re.compile(r"(?:.*::)?(?P<name>[A-Za-z0-9_.-]+)")


class CondaRequest(msgspec.Struct, frozen=True):
    """``packages``: match specs in conda's own form; ``channels``: in order of their priority, empty for the site's.
    ``origin``: where they were listed, for messages. ``variables``: to be set when the environment is activated."""

    packages: tuple[str, ...] = ()
    channels: tuple[str, ...] = ()
    origin: str = "the task"
    variables: tuple[tuple[str, str], ...] = ()

    @property
    def names(self) -> frozenset[str]:
        return frozenset(map(spec_name, self.packages))


class CondaList(msgspec.Struct, frozen=True):
    """``pip``: the requirement lines that belong to it, with paths relative to ``folder``."""

    request: CondaRequest
    pip: tuple[str, ...]
    folder: str = ""


def conda_list(given: Requirements, files: RequirementFiles, *, prefer_files: bool) -> CondaList | None:
    """What the task, else its repository, wants from conda; None if neither says so.

    A list of the task's own beats files, unless ``prefer_files``.

    Raises:
        EnvironmentBuildError: it cannot be read, or a line is not allowed.
    """
    if given.conda and not (prefer_files and files.conda):
        request = CondaRequest(tuple(normal_specs(given.conda, CondaRequest.origin)))
        # The SDK writes conda's packages into both lists.
        others = tuple(line for line in given.pip or () if _name_of(line) not in request.names)
        return CondaList(request, others, files.working_dir)
    if files.conda and (prefer_files or given.pip is None):
        path, text = next(iter(files.conda.items()))
        return read_environment(path, text)
    return None


def read_environment(path: str, text: str) -> CondaList:
    """The content of an ``environment.yml``.

    Raises:
        EnvironmentBuildError: it is not YAML, or something in it is not allowed.
    """
    import yaml  # type: ignore[import-untyped]  # few tasks need it

    if len(text) > _LONGEST_FILE:
        raise _unreadable(path, f"it has {len(text)} characters, of which {_LONGEST_FILE} are allowed")
    try:
        content = yaml.safe_load(text)
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise _unreadable(path, " ".join(str(error).split())[:300]) from error
    if not isinstance(content, dict) or not isinstance(content.get("dependencies"), list):
        raise _unreadable(path, "it has no list of dependencies")
    channels = content.get("channels") or []
    if not isinstance(channels, list):
        raise _unreadable(path, "its channels are not a list")
    specs, pip = _dependencies(path, content["dependencies"])
    request = CondaRequest(
        tuple(normal_specs(specs, path)),
        # No channels of conda's own settings, which are never used here.
        tuple(_checked_channel(channel) for channel in channels if channel != "nodefaults"),
        path,
        tuple(_variables(path, content.get("variables"))),
    )
    return CondaList(request, tuple(pip), path.rpartition("/")[0])


def _dependencies(path: str, items: Sequence[Any]) -> tuple[list[str], list[str]]:
    specs: list[str] = []
    pip: list[str] = []
    for item in items:
        if isinstance(item, str):
            specs.append(item)
        elif isinstance(item, dict) and set(item) == {"pip"} and _is_texts(item["pip"]):
            pip += item["pip"]
        else:
            raise _unreadable(path, f"{_short(item)} is neither a package nor a list under pip:")
    return specs, pip


def _variables(path: str, given: Any) -> Iterator[tuple[str, str]]:
    for name, value in given.items() if isinstance(given, dict) else ():
        if not (isinstance(name, str) and _VARIABLE.fullmatch(name) and isinstance(value, str | int | float)):
            raise _unreadable(path, f"its variable {_short(name)} is not a name with a text")
        yield name, str(value)
    if given is not None and not isinstance(given, dict):
        raise _unreadable(path, "its variables are not names with texts")


def _is_texts(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(item, str) for item in value)


def _short(value: Any) -> str:
    """For a message. Never the whole of a nested value: a few lines of YAML can make one of gigabytes."""
    if isinstance(value, dict | list):
        return f"an entry with {', '.join(repr(key)[:50] for key in value if isinstance(key, str)) or 'others in it'}"
    return repr(str(value)[:100])


def normal_specs(lines: Iterable[str], origin: str) -> Iterable[str]:
    """Match specs without comments and without spaces around operators, one for each package.

    Raises:
        EnvironmentBuildError: a line cannot be one.
    """
    for line in lines:
        spec = _spec(line.partition("#")[0].strip())
        if not spec:
            continue
        if not _SPEC.fullmatch(spec):
            raise EnvironmentBuildError(
                f"{line.strip()[:200]!r} of {origin} cannot be a conda package: write name, name=1.2 or "
                "channel::name>=1.2"
            )
        yield spec


def _spec(text: str) -> str:
    if words := _WORDS.fullmatch(text):
        # A version without an operator is meant exactly, unless it has a pattern or alternatives in it.
        operator = "=" if words["build"] or set(words["version"]) & set("*|,") else "=="
        return f"{words['name']}{operator}{words['version']}{'=' + words['build'] if words['build'] else ''}"
    return _OPERATOR.sub(r"\1", text)


def spec_name(spec: str) -> str:
    """``conda-forge::NumPy>=1.2`` → ``numpy``."""
    match = _NAME.match(spec)
    return _canonical(match["name"]) if match else spec


def _name_of(line: str) -> str:
    match = _NAME.match(line.strip())
    return _canonical(match["name"]) if match else ""


def _canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def check_secrets(channels: Iterable[str]) -> None:
    """
    Raises:
        EnvironmentBuildError: a channel's address has a password or a token in it, which a command line would show to
            all users, and which the programs leave out of the addresses that they print.
    """
    for channel in channels:
        if (bare := _SECRET.sub(_without_secret, channel)) != channel:
            raise EnvironmentBuildError(
                f"the address of the conda channel {bare} has a password or a token in it, which all users of this "
                "machine could read in its list of processes: name the channel without, and log in to its server as "
                "the daemon's user (mamba auth login, anaconda login or ~/.netrc)"
            )


def _without_secret(match: re.Match[str]) -> str:
    return "//" if match[0].startswith("//") else "/"


def _checked_channel(value: object) -> str:
    if isinstance(value, str) and _CHANNEL.fullmatch(value):
        return value
    raise EnvironmentBuildError(f"{_short(value)} cannot be a conda channel: write a name or an address")


def _unreadable(path: str, why: str) -> EnvironmentBuildError:
    return EnvironmentBuildError(f"{path} of the task's repository cannot be read: {why}")
