"""From requirements to a lock: exact versions with hashes, resolved against the package indexes."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from urllib.parse import unquote, urlsplit

from hpc_agent.envs.install import Toolbox, as_error
from hpc_agent.envs.interpreter import Interpreter
from hpc_agent.envs.request import EnvRequest
from hpc_agent.envs.requirements import name_of

_FILE = re.compile(r"@ (?P<url>file://\S+)")


def resolve(
    request: EnvRequest,
    interpreter: Interpreter,
    tools: Toolbox,
    work: Path,
    source_root: Path | None,
    progress: Callable[[str], None],
) -> str:
    """The normalised lock: one line for each package, sorted, hashes included. Uses the network.

    ``work`` is a private empty folder; ``source_root`` the repository's root where the request needs it.

    Raises:
        EnvironmentBuildError: no such package or version, or no index; with the resolver's own words.
    """
    if not request.lines.requirements:
        return ""
    asked = work / "requirements.in"
    constraints = work / "constraints.txt"
    lines = [*tools.index_lines, *request.lines.options, *known(request, progress)]
    asked.write_text("\n".join(lines) + "\n")
    constraints.write_text("\n".join(request.lines.constraints) + "\n")
    answer = tools.uv(
        [
            *("pip", "compile", str(asked), "--constraints", str(constraints)),
            *("--python", interpreter.executable, "--generate-hashes", "--no-header", "--no-annotate"),
            *("--output-file", str(work / "lock.txt")),
        ],
        cwd=source_root or work,
    )
    if not answer.ok:
        raise as_error("the task's requirements cannot be resolved", answer)
    return normalise((work / "lock.txt").read_text())


def known(request: EnvRequest, progress: Callable[[str], None]) -> list[str]:
    """The requirements; those that name a file of somebody else's machine are asked for by name instead."""
    lines = []
    for line in request.lines.requirements:
        match = _FILE.search(line)
        if match and not Path(unquote(urlsplit(match["url"]).path)).exists():
            progress(f"{line!r} names a file that is not here: taking {name_of(line)} from the package index")
            line = name_of(line)
        lines.append(line)
    return lines


def normalise(lock: str) -> str:
    """One package a line, hashes sorted, comments gone: the same lock is the same text."""
    lines = []
    for line in re.sub(r"\\\n", " ", lock).splitlines():
        words = line.split()
        if words and not words[0].startswith("#"):
            hashes = sorted(word for word in words if word.startswith("--hash="))
            lines.append(" ".join([*(word for word in words if not word.startswith("--hash=")), *hashes]))
    return "\n".join(sorted(lines))


def packages_of(lock: str) -> tuple[str, ...]:
    """The lines of a lock without hashes, as ``pip freeze`` prints them."""
    return tuple(
        " ".join(word for word in line.split() if not word.startswith("--hash=")) for line in lock.splitlines()
    )
