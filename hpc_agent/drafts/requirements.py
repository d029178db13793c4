"""Package lists: read, includes put in place, every line checked before anything is created."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

from hpc_agent.errors import InputError

_COMMENT = re.compile(r"(^|\s+)#.*$")
_INCLUDE = re.compile(r"^(?P<flag>-r|--requirement|-c|--constraint)(?:\s*=\s*|\s+|(?<=-[rc]))(?P<path>\S.*)$")
_PIP_OPTION = re.compile(
    r"^(-e|--editable|-i|--index-url|--extra-index-url|--no-index|-f|--find-links|--no-binary|--only-binary"
    r"|--prefer-binary|--require-hashes|--pre|--trusted-host|--use-feature)\b"
)
_LINE_OPTION = re.compile(r"\s+--(hash|config-settings?|global-option|install-option)[=\s]\S+")
_ADDRESS = re.compile(r"^(?:[a-z+]+://|(?:git|hg|svn|bzr)\+)", re.IGNORECASE)
_PATH = re.compile(r"^[./~]|\.(?:whl|zip|tar\.gz)$")


def read_requirements(path: Path) -> tuple[str, ...]:
    """The lines of a requirements file as they stand, files that it includes in the place of their ``-r`` line.

    A file that stays on this machine is of no use to the machine that runs the task.

    Raises:
        InputError: a file cannot be read, includes itself, or has a line that pip would not understand.
    """
    return tuple(_lines(path, ()))


def _lines(path: Path, above: tuple[Path, ...]) -> Iterable[str]:
    if path in above:
        raise InputError(f"the requirements file {path} includes itself")
    lines = _read(path).splitlines()
    continued = ""
    for number, line in enumerate(map(str.strip, lines), 1):
        include = None if continued else _INCLUDE.match(_COMMENT.sub("", line))
        if include and "r" in include["flag"] and "://" not in include["path"]:
            inner = path.parent / include["path"].strip("\"' ")
            if not inner.is_file():
                raise InputError(f"{path}, line {number}: the file {inner} that it includes does not exist")
            yield from _lines(inner, (*above, path))
            continue
        whole, continued = continued + line, ""
        if whole.endswith("\\"):
            continued = whole[:-1].rstrip() + " "
        elif reason := what_is_wrong(whole):
            raise InputError(f"{path}, line {number}: {whole!r} is no requirement: {reason}")
        yield line


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"the requirements file {path} is not UTF-8 text: {error.reason}") from error
    except OSError as error:
        raise InputError(f"the requirements file {path} cannot be read: {error.strerror}") from error


def packages_as_lines(packages: Iterable[str]) -> tuple[str, ...]:
    """The values of ``--packages``, one requirement a line; ``"tqdm>=2.1 scikit-learn"`` in one value are two.

    Raises:
        InputError: a value is no requirement.
    """
    lines: list[str] = []
    for value in packages:
        reason = what_is_wrong(value) if value.strip() else "it is empty"
        if not reason:
            lines.append(value.strip())
            continue
        words = value.split()
        if len(words) < 2 or any(map(what_is_wrong, words)):
            raise InputError(f"--packages: {value!r} is no requirement: {reason}")
        lines += words
    return tuple(lines)


def what_is_wrong(line: str) -> str:
    """Why pip would not understand this line of a requirements file; empty when it would."""
    text = _LINE_OPTION.sub("", _COMMENT.sub("", line)).strip()
    if not text or _INCLUDE.match(text) or _PIP_OPTION.match(text) or _ADDRESS.match(text) or _PATH.search(text):
        return ""
    if text.startswith("-"):
        return "pip knows no such option in a requirements file"
    try:
        Requirement(text)
    except InvalidRequirement as error:
        if re.search(r"[^=<>!~]=[^=]", text):
            return 'a version is pinned with "==", not with "="'
        reason = str(error).splitlines()[0].rstrip(".:")
        return reason[0].lower() + reason[1:]
    return ""


def with_clearml(lines: tuple[str, ...]) -> tuple[str, ...]:
    """``lines``, and ``clearml`` if no line asks for it: the init call needs it."""
    return lines if any(_name(line) == "clearml" for line in lines) else (*lines, "clearml")


def _name(line: str) -> str:
    text = _LINE_OPTION.sub("", _COMMENT.sub("", line)).strip()
    try:
        return canonicalize_name(Requirement(text).name)
    except InvalidRequirement:
        return ""
