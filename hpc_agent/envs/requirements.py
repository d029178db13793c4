"""Requirement lines of users, SDKs and ``pip freeze``, in one normal form. Pure."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterable, Iterator, Mapping

import msgspec

from hpc_agent.domain.env import RequirementFiles
from hpc_agent.domain.requirement_lines import (
    INCLUDES,
    LineError,
    RequirementOption,
    logical_lines,
    options_of,
    requirement_and_hashes,
)
from hpc_agent.errors import EnvironmentBuildError
from hpc_agent.redact import without_credentials, without_user_info

_LOCAL = re.compile(r"^(?:\.{1,2}(?:/|\[|$)|file:(?!/)|[^\s@:/]+/)")
_COLLAPSED = ("clearml", "trains", "nbconvert", "ipython")
"""Injected by SDKs and agents in addition to the user's own line: the last one is used.

See docs/internals/clearml-protocol.md#requirements.
"""


class ResolutionError(EnvironmentBuildError):
    """The requirements fit no packages, or the index that has them cannot be reached."""


class RequirementLines(msgspec.Struct, frozen=True):
    """Requirements of a task in normal form: ``requirements`` and ``constraints``, one per line.

    ``options``: such as ``--extra-index-url URL``. ``local``: folders or files relative to the repository's root,
    which are part of ``requirements`` too, written ``./path``.
    """

    requirements: tuple[str, ...] = ()
    constraints: tuple[str, ...] = ()
    options: tuple[str, ...] = ()
    local: tuple[str, ...] = ()


def collect(
    texts: Iterable[str], files: RequirementFiles, folder: str, *, constraints: Iterable[str] = ()
) -> RequirementLines:
    """The requirements in ``texts`` and in the files that they include; paths are relative to ``folder``.

    Raises:
        EnvironmentBuildError: an included file is not in the repository, or a line is not allowed.
    """
    return _Collector(files).collect("\n".join(texts), folder, constraints)


class _Collector:
    """Follows the included files of ``files``, each once."""

    def __init__(self, files: RequirementFiles) -> None:
        self._files = files
        self._seen: set[tuple[str, bool]] = set()
        self._requirements: list[str] = []
        self._constraints: list[str] = []
        self._options: list[str] = []

    def collect(self, text: str, folder: str, constraints: Iterable[str]) -> RequirementLines:
        self._constraints += [canonical(line, folder) for line in constraints]
        pending = [(line, folder, False) for line in _lines_of(text, "the task's list of packages")]
        while pending:
            line, at, constraining = pending.pop(0)
            pending[:0] = self._take(line, at, constraining)
        unique = _collapse(self._requirements)
        return RequirementLines(
            tuple(unique),
            tuple(sorted(set(self._constraints))),
            tuple(sorted(set(self._options))),
            tuple(sorted(line.partition(" --hash=")[0] for line in unique if line.startswith("./"))),
        )

    def _take(self, line: str, folder: str, constraining: bool) -> list[tuple[str, str, bool]]:
        """Record a line; returns the lines that replace it (an include), each with its folder."""
        if "${" in line:
            # Installers would put variables of the daemon's environment there, and show or send what they hold.
            raise _not_usable(line, "variables such as ${NAME} are not expanded in it: write the value itself")
        try:
            options = options_of(line)
            if not options:
                self._keep(canonical(line, folder), constraining)
            return [found for option in options for found in self._follow(option, line, folder, constraining)]
        except LineError as error:
            raise _not_usable(line, str(error)) from error

    def _keep(self, line: str, constraining: bool) -> None:
        (self._constraints if constraining else self._requirements).append(line)

    def _follow(
        self, option: RequirementOption, line: str, folder: str, constraining: bool
    ) -> list[tuple[str, str, bool]]:
        if option.name == "--editable":
            # The environment is shared and read-only: what is installed must be in it.
            self._keep(canonical(option.value, folder), constraining)
        elif option.name in INCLUDES:
            path = posixpath.normpath(posixpath.join(folder, option.value))
            constraint = constraining or option.name == "--constraint"
            if (path, constraint) not in self._seen:
                self._seen.add((path, constraint))
                text = _included(path, self._files.texts, line)
                return [(item, posixpath.dirname(path), constraint) for item in _lines_of(text, path)]
        elif option.name == "--find-links" and "://" not in option.value and not option.value.startswith("/"):
            raise LineError("a folder of the repository is not searched: name the file itself, as in ./wheels/x.whl")
        else:
            self._options.append(option.line)
        return []


def _lines_of(text: str, where: str) -> list[str]:
    try:
        return list(logical_lines(text))
    except LineError as error:
        raise EnvironmentBuildError(f"a line of {where} cannot be used: {error}") from error


def _not_usable(line: str, why: str) -> EnvironmentBuildError:
    """Error that quotes the line, shortened and without credentials."""
    text = without_credentials(line)
    return EnvironmentBuildError(
        f"the requirement line {text[:200] + ' …' if len(text) > 200 else text!r} cannot be used: {why}"
    )


def included_paths(text: str, folder: str) -> Iterator[str]:
    """The files that the lines of a requirements.txt in ``folder`` include.

    Raises:
        EnvironmentBuildError: a line is not one of a requirements file.
    """
    for line in _lines_of(text, folder or "the requirements file"):
        try:
            options = options_of(line)
        except LineError as error:
            raise _not_usable(line, str(error)) from error
        for option in options:
            if option.name in INCLUDES:
                yield posixpath.normpath(posixpath.join(folder, option.value))


def _included(path: str, texts: Mapping[str, str], line: str) -> str:
    if path not in texts:
        raise EnvironmentBuildError(
            f"the requirement line {line!r} includes a file that is not in the task's repository: {path}"
        )
    return texts[path]


_DEEPEST_MARKER = 100
"""Brackets."""


def canonical(line: str, folder: str) -> str:
    """Normal form of a requirement line; an address or a path is kept as it is.

    Raises:
        LineError: it is too long, or has options that are not used here.
    """
    # 20 ms to import, which a job that knows its environment's key need not spend.
    from packaging.requirements import InvalidRequirement, Requirement
    from packaging.utils import canonicalize_name

    bare, values = requirement_and_hashes(line)
    hashes = "".join(f" --hash={value}" for value in values)
    if bare.count("(") > _DEEPEST_MARKER:
        # The error that packaging raises for it depends on its version.
        raise LineError("its marker is nested too deeply")
    try:
        parsed = Requirement(bare)
    except InvalidRequirement:
        if _LOCAL.match(bare) and "://" not in bare:
            return "./" + posixpath.normpath(posixpath.join(folder, bare.removeprefix("file:"))) + hashes
        return bare + hashes
    if parsed.url and _LOCAL.match(parsed.url):
        # As uv reads it; pip has no syntax for a name with a path of the repository.
        wanted = f"[{','.join(sorted(parsed.extras))}]" if parsed.extras else ""
        path = posixpath.normpath(posixpath.join(folder, parsed.url.removeprefix("file:")))
        return f"./{path}{wanted}" + (f" ; {parsed.marker}" if parsed.marker else "")
    extras = f"[{','.join(sorted(canonicalize_name(extra) for extra in parsed.extras))}]" if parsed.extras else ""
    text = canonicalize_name(parsed.name) + extras
    if parsed.url:
        text += f" @ {parsed.url}"
    else:
        text += ",".join(sorted(str(specifier) for specifier in parsed.specifier))
    return text + (f" ; {parsed.marker}" if parsed.marker else "") + hashes


def name_of(line: str) -> str:
    """The normalised package name of a normalised line, or an empty string if it has none."""
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


def redacted(lines: Iterable[str]) -> tuple[str, ...]:
    """Lines without passwords in their addresses; different requirements stay different."""
    return tuple(without_user_info(line) for line in lines)
