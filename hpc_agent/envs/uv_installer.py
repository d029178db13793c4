"""uv: resolves in a tenth of a second and links packages from its cache, 50 to 170 times faster than pip."""

from __future__ import annotations

import posixpath
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from hpc_agent.envs import pip_config, project_input
from hpc_agent.envs.installers import InstallContext, InstallerRunner, as_error
from hpc_agent.envs.interpreter import Interpreter
from hpc_agent.envs.project import Project, parsed
from hpc_agent.envs.project_input import LockedVersions
from hpc_agent.envs.requirements import ResolutionError
from hpc_agent.process import CompletedProcess

_MAIN_INDEX = "--index-url "
_EXTRA_INDEX = "--extra-index-url "
_FROM = "# from "
_ENVIRON = {"UV_NO_PROGRESS": "1", "UV_PYTHON_DOWNLOADS": "never"}
_BEST_OF_ALL = {
    # What pip does: the best version of all indexes. uv's own default stops at the first that has the name,
    # which for download.pytorch.org is often an old copy of something else.
    "UV_INDEX_STRATEGY": "unsafe-best-match",
}
_FIRST_THAT_FITS = {
    # A project that names indexes means the first of them that has a package: a public one of the same name and a
    # higher version is another package. Those of the site may still have what the first has too old.
    "UV_INDEX_STRATEGY": "unsafe-first-match",
}
# What pip has in requirements files and uv on its command line only.
_FLAGS = {"--pre": "--prerelease=allow", "--require-hashes": ""}
_TRUSTED = "--trusted-host "
_IGNORED = ("--prefer-binary", "--use-feature")


@dataclass(frozen=True)
class ResolvedProject:
    """``lock``: requirement lines in pip's format; folders of the repository as ``./path``. ``indexes``: option lines
    for the indexes that the project names and its packages come from."""

    lock: str
    indexes: tuple[str, ...]
    notes: tuple[str, ...]


class UvInstaller:
    def __init__(self, tools: InstallerRunner) -> None:
        self._tools = tools
        # A site describes its indexes to pip, and uv does not read that.
        self._site = pip_config.load()
        self._index_lines = [*self._site.lines, *tools.index_lines]

    def resolve(
        self, lines: Sequence[str], constraints: Sequence[str], base: Interpreter, place: InstallContext
    ) -> str:
        asked = place.write("requirements.in", [*self._options(place), *lines])
        return self._compile([asked], constraints, base, place, _BEST_OF_ALL)

    def resolve_project(
        self,
        project: Project,
        lines: Sequence[str],
        constraints: Sequence[str],
        base: Interpreter,
        place: InstallContext,
    ) -> ResolvedProject:
        """As ``resolve``, for a project in the checkout at ``place.cwd`` and ``lines`` besides.

        Raises:
            EnvironmentBuildError: it cannot be read or resolved.
        """
        given = project_input.read(project, place.cwd, place.work, base, lambda words: self._uv(words, place))
        asked = [*(f"{_EXTRA_INDEX}{url}" for url in project.indexes), *self._options(place), *lines]
        limits = [*constraints, *given.locked.constraints]
        sources = ["--project", str(given.folder), *given.arguments]
        sources += [place.write("requirements.in", asked)] if asked else []
        environ = _FIRST_THAT_FITS if project.has_indexes else _BEST_OF_ALL
        text = self._compile([*sources, "--emit-index-annotation"], limits, base, place, environ)
        pinned = place.write("pinned.txt", _with_version(text))
        local = self._local_packages([*sources, "--constraints", pinned], base, place, environ)
        found = [*_as_locked(_named_lines(text), given.locked), *local]
        return ResolvedProject("\n".join(found), _indexes_of(text), given.notes)

    def _compile(
        self,
        sources: Sequence[str],
        limits: Sequence[str],
        base: Interpreter,
        place: InstallContext,
        environ: dict[str, str],
    ) -> str:
        lock = place.work / "resolved.txt"
        if limits:
            sources = [*sources, "--constraints", place.write("constraints.txt", limits)]
        answer = self._uv(
            [
                *("pip", "compile", *sources, "--python", base.executable, *self._flags(place)),
                *("--generate-hashes", "--no-header", "--no-annotate", "--output-file", str(lock)),
            ],
            place,
            environ,
        )
        if not answer.ok:
            raise as_error("the task's requirements cannot be resolved", answer, ResolutionError)
        return lock.read_text(encoding="utf-8")

    def _local_packages(
        self, sources: Sequence[str], base: Interpreter, place: InstallContext, environ: dict[str, str]
    ) -> list[str]:
        """The folders and files of the repository among what was resolved, as ``./path``.

        In requirement lines uv leaves their paths as whoever named them wrote them; PEP 751's lock has them relative to
        itself.
        """
        lock = place.cwd / "pylock.hpc-agent.toml"
        argv = ["pip", "compile", *sources, "--python", base.executable, "--format", "pylock.toml", "--quiet"]
        answer = self._uv([*argv, *self._flags(place), "--no-header", "--output-file", str(lock)], place, environ)
        if not answer.ok:
            raise as_error("the task's requirements cannot be resolved", answer, ResolutionError)
        packages = parsed(lock.name, lock.read_text(encoding="utf-8")).get("packages", [])
        lock.unlink()
        places = [package[kind].get("path", "") for package in packages for kind in _LOCAL if kind in package]
        return [_from_root(path, place.cwd) for path in places if path]

    def build(self, project: Project, base: Interpreter, place: InstallContext) -> Path:
        """The wheel of a project's own package.

        Raises:
            EnvironmentBuildError: it cannot be built, in its backend's last words.
        """
        into = place.work / "wheel"
        argv = ["build", "--wheel", "--quiet", "--python", base.executable, "--out-dir", str(into)]
        answer = self._uv([*argv, str(place.cwd / project.folder)], place, _BEST_OF_ALL)
        wheels = sorted(into.glob("*.whl"))
        if not answer.ok or not wheels:
            raise as_error("its wheel cannot be built", answer)
        return wheels[0]

    def install(self, lock: Sequence[str], root: Path, base: Interpreter, place: InstallContext) -> None:
        # uv reads this line and writes entry points that find the interpreter next to themselves.
        with (root / "pyvenv.cfg").open("a", encoding="utf-8") as config:
            config.write("relocatable = true\n")
        locked = place.write("lock.txt", [*self._options(place), *_absolute(lock, place.cwd)])
        self._install(root, ["--no-deps", "--requirements", locked], place)

    def install_late(
        self, lines: Sequence[str], lock: Sequence[str], root: Path, base: Interpreter, place: InstallContext
    ) -> None:
        late = place.write("late.txt", [*self._options(place), *_absolute(lines, place.cwd)])
        # Constraints may not have hashes.
        limits = place.write("installed.txt", [line.partition(" --hash=")[0] for line in lock if "==" in line])
        tools = place.write("tools.txt", [*self._options(place), "setuptools", "wheel"])
        self._install(root, ["--requirements", tools], place)
        self._install(root, ["--no-build-isolation", "--requirements", late, "--constraints", limits], place)

    def _options(self, place: InstallContext) -> list[str]:
        """Where packages are found, by the site and the task; of several main indexes the task's: uv takes only one."""
        lines = [
            line for line in [*self._index_lines, *place.options] if not line.startswith((*_FLAGS, *_NOT_IN_FILES))
        ]
        main = [line for line in lines if line.startswith(_MAIN_INDEX)][:-1]
        return [line for line in lines if line not in main]

    def _flags(self, place: InstallContext) -> list[str]:
        """The task's options that uv takes on its command line only."""
        hosts = [line.removeprefix(_TRUSTED) for line in place.options if line.startswith(_TRUSTED)]
        flags = [_FLAGS[line] for line in place.options if _FLAGS.get(line)]
        return [*flags, *(word for host in hosts for word in ("--allow-insecure-host", host))]

    def _install(self, root: Path, arguments: Sequence[str], place: InstallContext) -> None:
        python = str(root / "bin" / "python")
        argv = ["pip", "install", "--quiet", "--no-editable", "--python", python, *arguments, *self._flags(place)]
        # Not in the checkout: settings of uv in a repository could name another place to install to.
        answer = self._uv(argv, place, _BEST_OF_ALL, cwd=place.work)
        if not answer.ok:
            raise as_error("the task's packages cannot be installed", answer)

    def _uv(
        self,
        arguments: Sequence[str],
        place: InstallContext,
        environ: dict[str, str] | None = None,
        cwd: Path | None = None,
    ) -> CompletedProcess:
        argv = [self._tools.uv_program(), *arguments]
        if arguments[0] == "pip":
            argv += self._tools.packages.extra_pip_install_flags
        return self._tools.run(
            argv,
            cwd=cwd or place.cwd,
            environ={**self._site.environ, **_ENVIRON, **(environ or {})},
            credentials=place.credentials,
            needs_git=place.needs_git,
        )


_LOCAL = ("directory", "archive")
_NOT_IN_FILES = (_TRUSTED, *_IGNORED)


def _named_lines(lock: str) -> list[str]:
    """The packages with a name and where they come from; paths stand in lines of their own."""
    logical = lock.replace("\\\n", " ").splitlines()
    return [
        line.strip() for line in logical if "==" in line.partition("#")[0] or (" @ " in line and "file:" not in line)
    ]


def _with_version(lock: str) -> list[str]:
    return [line.partition(" --hash=")[0].strip() for line in _named_lines(lock) if "==" in line and " @ " not in line]


def _as_locked(lines: Iterable[str], locked: LockedVersions) -> list[str]:
    """``lines`` with the hashes of the project's lock where it has them: what it saw is what is installed."""
    found = []
    for line in lines:
        hashes = locked.hashes.get(line.partition(" ")[0].lower())
        bare = line.partition(" --hash=")[0].strip()
        found.append(" ".join([bare, *(f"--hash={value}" for value in hashes)]) if hashes else line)
    return found


def _indexes_of(lock: str) -> tuple[str, ...]:
    """uv writes below each package which index it comes from, passwords left out."""
    lines = (line.strip() for line in lock.splitlines())
    urls = (line.removeprefix(_FROM) for line in lines if line.startswith((f"{_FROM}http", f"{_FROM}file:")))
    return tuple(f"{_EXTRA_INDEX}{url}" for url in dict.fromkeys(urls))


def _from_root(path: str, root: Path) -> str:
    """A folder of the repository as ``./path``, one of this machine by its whole path."""
    normal = posixpath.normpath(path)
    return str((root / normal).resolve()) if normal.startswith(("..", "/")) else f"./{normal}"


def _absolute(lines: Iterable[str], root: Path) -> list[str]:
    """``./path`` from wherever the installer runs."""
    return [f"{root}/{line.removeprefix('./')}" if line.startswith("./") else line for line in lines]
