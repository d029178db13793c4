"""Package lists: read, includes put in place, every line checked before anything is created."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

from hpc_agent.domain.requirement_lines import (
    LineError,
    RequirementOption,
    decoded,
    options_of,
    requirement_and_hashes,
    without_comment,
)
from hpc_agent.errors import InputError

_ADDRESS = re.compile(r"^(?:[a-z+]+://|(?:git|hg|svn|bzr)\+)", re.IGNORECASE)
_PATH = re.compile(r"^[./~]|\.(?:whl|zip|tar\.gz)$")


def read_requirements(path: Path) -> tuple[str, ...]:
    """The lines of a requirements file, with the content of included files in place of their ``-r`` lines.

    A file that stays on this machine is of no use to the machine that runs the task.

    Raises:
        InputError: a file cannot be read, includes itself, or has a line that pip would not understand.
    """
    return tuple(_lines(path, ()))


def _lines(path: Path, above: tuple[Path, ...]) -> Iterable[str]:
    if path in above:
        raise InputError(f"the requirements file {path} includes itself")
    continued = ""
    for number, line in enumerate(map(str.strip, _read(path).splitlines()), 1):
        whole, continued = continued + line, ""
        if whole.endswith("\\"):
            continued = whole[:-1].rstrip() + " "
            yield line
            continue
        if reason := requirement_problem(whole):
            raise InputError(f"{path}, line {number}: {whole!r} is not a requirement: {reason}")
        options = options_of(without_comment(whole))
        if whole != line or not any(map(_includes_file, options)):
            yield line
            continue
        for option in options:
            if not _includes_file(option):
                yield option.line
                continue
            inner = path.parent / option.value
            if not inner.is_file():
                raise InputError(f"{path}, line {number}: the file {inner} that it includes does not exist")
            yield from _lines(inner, (*above, path))


def _includes_file(option: RequirementOption) -> bool:
    """Whether a file of this machine takes the place of the option."""
    return option.name == "--requirement" and "://" not in option.value


def _read(path: Path) -> str:
    try:
        return decoded(path.read_bytes(), errors="strict")
    except UnicodeDecodeError as error:
        raise InputError(f"the requirements file {path} is not UTF-8 text: {error.reason}") from error
    except OSError as error:
        raise InputError(f"the requirements file {path} cannot be read: {error.strerror}") from error


def packages_as_lines(packages: Iterable[str]) -> tuple[str, ...]:
    """The values of ``--packages``, one requirement a line; ``"tqdm>=2.1 scikit-learn"`` in one value are two.

    Raises:
        InputError: a value is not a requirement.
    """
    lines: list[str] = []
    for value in packages:
        reason = requirement_problem(value) if value.strip() else "it is empty"
        if not reason:
            lines.append(value.strip())
            continue
        parts = value.split()
        if len(parts) < 2 or any(map(requirement_problem, parts)):
            raise InputError(f"--packages: {value!r} is not a requirement: {reason}")
        lines += parts
    return tuple(lines)


def requirement_problem(line: str) -> str:
    """Why pip would not understand this line of a requirements file; empty when it would."""
    try:
        text = without_comment(line)
        if options_of(text):
            return ""
        bare, _ = requirement_and_hashes(text)
    except LineError as error:
        return str(error)
    if "${" in bare:
        return "variables such as ${NAME} are not expanded where tasks are prepared"
    if not bare or _ADDRESS.match(bare) or _PATH.search(bare):
        return ""
    try:
        Requirement(bare)
    except (InvalidRequirement, RecursionError) as error:
        if re.search(r"[^=<>!~]=[^=]", bare):
            return 'a version is pinned with "==", not with "="'
        reason = str(error).splitlines()[0].rstrip(".:")
        return reason[0].lower() + reason[1:]
    return ""


def with_clearml(lines: tuple[str, ...]) -> tuple[str, ...]:
    """``lines``, and ``clearml`` if no line asks for it: the init call needs it."""
    return lines if any(_name(line) == "clearml" for line in lines) else (*lines, "clearml")


def _name(line: str) -> str:
    try:
        return canonicalize_name(Requirement(requirement_and_hashes(without_comment(line))[0]).name)
    except (InvalidRequirement, RecursionError, LineError):
        return ""
