"""Requirement lines as people, SDKs and ``pip freeze`` write them, brought into one form. Pure."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from hpc_agent.domain.env import RequirementFiles
from hpc_agent.errors import EnvironmentBuildError
from hpc_agent.redact import without_credentials

_COMMENT = re.compile(r"(?:^|\s)#.*$")
_OPTION = re.compile(r"^(?P<name>--?[A-Za-z][A-Za-z-]*)(?:\s*=\s*|\s+|$)(?P<value>.*)$")
_SHORT = {"-r": "--requirement", "-c": "--constraint", "-e": "--editable", "-f": "--find-links", "-i": "--index-url"}
_LONG = {"--requirements": "--requirement", "--constraints": "--constraint", "--pypi-url": "--index-url"}
_LOCAL = re.compile(r"^(?:\.{1,2}(?:/|\[|$)|file:(?!/)|[^\s@:/]+/)")
_COLLAPSED = ("clearml", "trains", "nbconvert", "ipython")
"""Injected by SDKs and agents beside the user's own line: the last one counts (wire.md 4.9)."""


class ResolutionError(EnvironmentBuildError):
    """The requirements fit no packages, or the index that has them cannot be reached."""


@dataclass(frozen=True)
class Lines:
    """``requirements`` and ``constraints``: one each, in a form that differs only where the meaning does.

    ``options``: such as ``--extra-index-url URL``. ``local``: folders or files relative to the repository's root,
    which are part of ``requirements`` too, written ``./path``.
    """

    requirements: tuple[str, ...] = ()
    constraints: tuple[str, ...] = ()
    options: tuple[str, ...] = ()
    local: tuple[str, ...] = ()


def collect(texts: Iterable[str], files: RequirementFiles, folder: str, *, constraints: Iterable[str] = ()) -> Lines:
    """All that ``texts`` ask for, included files followed; paths in them are relative to ``folder``.

    Raises:
        EnvironmentBuildError: an included file is not in the repository.
    """
    requirements: list[str] = []
    limits = [canonical(line, folder) for line in constraints]
    options: list[str] = []
    pending = [(line, folder, False) for line in logical_lines("\n".join(texts))]
    seen: set[tuple[str, bool]] = set()
    while pending:
        line, at, constraining = pending.pop(0)
        name, value = _option(line)
        if name in ("--requirement", "--constraint"):
            path = posixpath.normpath(posixpath.join(at, value))
            constraint = constraining or name == "--constraint"
            if (path, constraint) not in seen:
                seen.add((path, constraint))
                text = _included(path, files.texts, line)
                pending[:0] = [(item, posixpath.dirname(path), constraint) for item in logical_lines(text)]
        elif name == "--editable":
            # The environment is shared and read-only: what is installed must be in it.
            pending.insert(0, (value, at, constraining))
        elif name:
            options.append(f"{name} {value}".strip())
        else:
            (limits if constraining else requirements).append(canonical(line, at))
    unique = _collapse(requirements)
    return Lines(
        tuple(unique),
        tuple(sorted(set(limits))),
        tuple(sorted(set(options))),
        tuple(sorted(line for line in unique if line.startswith("./"))),
    )


def logical_lines(text: str) -> Iterator[str]:
    """Lines with continuations joined, comments and empty ones left out."""
    for line in re.sub(r"\\\r?\n", " ", text).splitlines():
        plain = _COMMENT.sub("", line).strip()
        if plain:
            yield plain


def _option(line: str) -> tuple[str, str]:
    """Name and value of an option line; two empty words for a requirement."""
    if line[:2] in _SHORT and not line.startswith("--"):
        return _SHORT[line[:2]], line[2:].lstrip(" =")
    match = _OPTION.match(line)
    if not match:
        return "", ""
    return _LONG.get(match["name"], match["name"]), match["value"].strip()


def included_paths(text: str, folder: str) -> Iterator[str]:
    """The files that the lines of a requirements.txt in ``folder`` include."""
    for line in logical_lines(text):
        name, value = _option(line)
        if name in ("--requirement", "--constraint"):
            yield posixpath.normpath(posixpath.join(folder, value))


def _included(path: str, texts: Mapping[str, str], line: str) -> str:
    if path not in texts:
        raise EnvironmentBuildError(
            f"the requirement line {line!r} includes a file that is not in the task's repository: {path}"
        )
    return texts[path]


def canonical(line: str, folder: str) -> str:
    """One spelling for one meaning; what is no plain requirement (an address, a path) is kept as it is."""
    # 20 ms to import, which a job that knows its environment's key need not spend.
    from packaging.requirements import InvalidRequirement, Requirement
    from packaging.utils import canonicalize_name

    bare, hashes = _split_hashes(line)
    try:
        parsed = Requirement(bare)
    except InvalidRequirement:
        if _LOCAL.match(bare) and "://" not in bare:
            return "./" + posixpath.normpath(posixpath.join(folder, bare.removeprefix("file:")))
        return line
    extras = f"[{','.join(sorted(canonicalize_name(extra) for extra in parsed.extras))}]" if parsed.extras else ""
    text = canonicalize_name(parsed.name) + extras
    if parsed.url:
        text += f" @ {parsed.url}"
    else:
        text += ",".join(sorted(str(specifier) for specifier in parsed.specifier))
    return text + (f" ; {parsed.marker}" if parsed.marker else "") + hashes


def _split_hashes(line: str) -> tuple[str, str]:
    bare, *hashes = re.split(r"\s+--hash[= ]", line)
    return bare.strip(), "".join(f" --hash={value.strip()}" for value in sorted(hashes))


def name_of(line: str) -> str:
    """The canonical name of the package that a canonical line asks for, or an empty word if it does not say."""
    match = re.match(r"^([a-z0-9][a-z0-9-]*)(?=$|[\s\[<>=!~;@])", line)
    return match[1] if match else ""


def _collapse(lines: Iterable[str]) -> list[str]:
    """Sorted and without repetitions; of the injected packages only the last line that pins anything."""
    chosen: dict[str, str] = {}
    others: set[str] = set()
    for line in lines:
        name = name_of(line)
        if name in _COLLAPSED:
            if name not in chosen or line != name:
                chosen[name] = line
        else:
            others.add(line)
    return sorted({*others, *chosen.values()})


def shown(lines: Iterable[str]) -> tuple[str, ...]:
    """Lines without passwords in their addresses, for records and messages."""
    return tuple(without_credentials(line) for line in lines)
