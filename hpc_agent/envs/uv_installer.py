"""uv: resolves in a tenth of a second and links packages from its cache, 50 to 170 times faster than pip."""

from __future__ import annotations

import posixpath
from collections.abc import Iterable, Sequence
from pathlib import Path

import msgspec

from hpc_agent.envs import pip_config, project_input
from hpc_agent.envs.installers import InstallContext, InstallerRunner, installer_error
from hpc_agent.envs.interpreter import Interpreter
from hpc_agent.envs.project import Project, parsed
from hpc_agent.envs.project_input import LockedVersions
from hpc_agent.envs.requirements import ResolutionError
from hpc_agent.process.programs import CompletedProcess

_MAIN_INDEX = "--index-url "
_EXTRA_INDEX = "--extra-index-url "
_FROM = "# from "
_ENVIRON = {"UV_NO_PROGRESS": "1", "UV_PYTHON_DOWNLOADS": "never"}
_BEST_MATCH = {
    # What pip does: the best version of all indexes. uv's own default stops at the first that has the name,
    # which for download.pytorch.org is often an old copy of something else.
    "UV_INDEX_STRATEGY": "unsafe-best-match",
}
_FIRST_MATCH = {
    # A project that names indexes means the first of them that has a package: a public one of the same name and a
    # higher version is another package. Those of the site may still have what the first has too old.
    "UV_INDEX_STRATEGY": "unsafe-first-match",
}
# What pip has in requirements files and uv on its command line only.
_FLAGS = {"--pre": "--prerelease=allow", "--require-hashes": ""}
_TRUSTED = "--trusted-host "
_IGNORED = ("--prefer-binary", "--use-feature")


class ResolvedProject(msgspec.Struct, frozen=True):
    """Resolution of a project. ``lock``: requirement lines in pip's format, folders of the repository as ``./path``.
    ``indexes``: option lines
    for the indexes that the project names and its packages come from."""

    lock: str
    indexes: tuple[str, ...]
    notes: tuple[str, ...]


class UvInstaller:
    """Installer that resolves and installs with uv; see ``installers.Installer``."""

    def __init__(self, runner: InstallerRunner) -> None:
        self._runner = runner
        # A site describes its indexes to pip, and uv does not read that.
        self._site = pip_config.load()
        self._index_lines = [*self._site.lines, *runner.index_lines]

    def resolve(
        self, lines: Sequence[str], constraints: Sequence[str], base: Interpreter, context: InstallContext
    ) -> str:
        requested_file = context.write("requirements.in", [*self._options(context), *lines])
        return self._compile([requested_file], constraints, base, context, _BEST_MATCH)

    def resolve_project(
        self,
        project: Project,
        lines: Sequence[str],
        constraints: Sequence[str],
        base: Interpreter,
        context: InstallContext,
    ) -> ResolvedProject:
        """As ``resolve``, for a project in the checkout at ``context.cwd`` plus ``lines``.

        Raises:
            EnvironmentBuildError: it cannot be read or resolved.
        """
        source = project_input.read_project(
            project, context.cwd, context.work, base, lambda arguments: self._uv(arguments, context)
        )
        requested = [*(f"{_EXTRA_INDEX}{url}" for url in project.indexes), *self._options(context), *lines]
        constraint_lines = [*constraints, *source.locked.constraints]
        sources = ["--project", str(source.folder), *source.arguments]
        sources += [context.write("requirements.in", requested)] if requested else []
        environ = _FIRST_MATCH if project.has_indexes else _BEST_MATCH
        text = self._compile([*sources, "--emit-index-annotation"], constraint_lines, base, context, environ)
        pinned_file = context.write("pinned.txt", _with_version(text))
        local = self._local_packages([*sources, "--constraints", pinned_file], base, context, environ)
        found = [*_as_locked(_named_lines(text), source.locked), *local]
        return ResolvedProject("\n".join(found), _indexes_of(text), source.notes)

    def _compile(
        self,
        sources: Sequence[str],
        constraint_lines: Sequence[str],
        base: Interpreter,
        context: InstallContext,
        environ: dict[str, str],
    ) -> str:
        lock = context.work / "resolved.txt"
        if constraint_lines:
            sources = [*sources, "--constraints", context.write("constraints.txt", constraint_lines)]
        if context.provided:
            # An override that never applies takes a package out of the resolution.
            never = [f"{name}; python_version < '0'" for name in context.provided]
            sources = [*sources, "--overrides", context.write("overrides.txt", never)]
        completed = self._uv(
            [
                *("pip", "compile", *sources, "--python", base.executable, *self._flags(context)),
                *(("--python-version", context.python_version) if context.python_version else ()),
                *("--generate-hashes", "--no-header", "--no-annotate", "--output-file", str(lock)),
            ],
            context,
            environ,
        )
        if not completed.ok:
            raise installer_error("the task's requirements cannot be resolved", completed, ResolutionError)
        return lock.read_text(encoding="utf-8")

    def _local_packages(
        self, sources: Sequence[str], base: Interpreter, context: InstallContext, environ: dict[str, str]
    ) -> list[str]:
        """The folders and files of the repository among what was resolved, as ``./path``.

        In requirement lines uv leaves their paths as they were written; PEP 751's lock has them relative to itself.
        """
        lock = context.cwd / "pylock.hpc-agent.toml"
        argv = ["pip", "compile", *sources, "--python", base.executable, "--format", "pylock.toml", "--quiet"]
        completed = self._uv(
            [*argv, *self._flags(context), "--no-header", "--output-file", str(lock)], context, environ
        )
        if not completed.ok:
            raise installer_error("the task's requirements cannot be resolved", completed, ResolutionError)
        packages = parsed(lock.name, lock.read_text(encoding="utf-8")).get("packages", [])
        lock.unlink()
        places = [package[kind].get("path", "") for package in packages for kind in _LOCAL if kind in package]
        return [_from_root(path, context.cwd) for path in places if path]

    def build(self, project: Project, base: Interpreter, context: InstallContext) -> Path:
        """The wheel of a project's own package.

        Raises:
            EnvironmentBuildError: it cannot be built; with the end of its backend's output.
        """
        into = context.work / "wheel"
        argv = ["build", "--wheel", "--quiet", "--python", base.executable, "--out-dir", str(into)]
        completed = self._uv([*argv, str(context.cwd / project.folder)], context, _BEST_MATCH)
        wheels = sorted(into.glob("*.whl"))
        if not completed.ok or not wheels:
            raise installer_error("its wheel cannot be built", completed)
        return wheels[0]

    def install(self, lock: Sequence[str], root: Path, base: Interpreter, context: InstallContext) -> None:
        # uv reads this line and writes entry points that find the interpreter next to themselves.
        with (root / "pyvenv.cfg").open("a", encoding="utf-8") as config:
            config.write("relocatable = true\n")
        self.install_into(lock, root, context)

    def install_into(self, lock: Sequence[str], root: Path, context: InstallContext) -> None:
        """Install exactly the lock next to the interpreter ``root/bin/python``, which need not be an environment's.

        Raises:
            EnvironmentBuildError: it cannot be installed.
        """
        lock_file = context.write("lock.txt", [*self._options(context), *_absolute(lock, context.cwd)])
        self._install(root, ["--no-deps", "--requirements", lock_file], context)

    def install_post_packages(
        self, lines: Sequence[str], lock: Sequence[str], root: Path, base: Interpreter, context: InstallContext
    ) -> None:
        options = self._options(context)
        post_packages_file = context.write("post-packages.txt", [*options, *_absolute(lines, context.cwd)])
        # Constraints may not have hashes.
        constraints_file = context.write(
            "installed.txt", [line.partition(" --hash=")[0] for line in lock if "==" in line]
        )
        tools_file = context.write("tools.txt", [*options, "setuptools", "wheel"])
        self._install(root, ["--requirements", tools_file], context)
        files = ["--requirements", post_packages_file, "--constraints", constraints_file]
        self._install(root, ["--no-build-isolation", *files], context)

    def _options(self, context: InstallContext) -> list[str]:
        """Index options of the site and the task; of several main indexes the task's, since uv accepts only one."""
        lines = [
            line for line in [*self._index_lines, *context.options] if not line.startswith((*_FLAGS, *_NOT_IN_FILES))
        ]
        main = [line for line in lines if line.startswith(_MAIN_INDEX)][:-1]
        return [line for line in lines if line not in main]

    def _flags(self, context: InstallContext) -> list[str]:
        """The task's options that uv takes on its command line only."""
        hosts = [line.removeprefix(_TRUSTED) for line in context.options if line.startswith(_TRUSTED)]
        flags = [_FLAGS[line] for line in context.options if _FLAGS.get(line)]
        return [*flags, *(word for host in hosts for word in ("--allow-insecure-host", host))]

    def _install(self, root: Path, arguments: Sequence[str], context: InstallContext) -> None:
        python = str(root / "bin" / "python")
        argv = ["pip", "install", "--quiet", "--no-editable", "--python", python, *arguments, *self._flags(context)]
        # Not in the checkout: settings of uv in a repository could name another place to install to.
        completed = self._uv(argv, context, _BEST_MATCH, cwd=context.work)
        if not completed.ok:
            raise installer_error("the task's packages cannot be installed", completed)

    def _uv(
        self,
        arguments: Sequence[str],
        context: InstallContext,
        environ: dict[str, str] | None = None,
        cwd: Path | None = None,
    ) -> CompletedProcess:
        argv = [self._runner.uv_program(), *arguments]
        if arguments[0] == "pip":
            argv += self._runner.packages.extra_pip_install_flags
        return self._runner.run(
            argv,
            cwd=cwd or context.cwd,
            environ={**self._site.environ, **_ENVIRON, **(environ or {})},
            credentials=context.credentials,
            needs_git=context.needs_git,
        )


_LOCAL = ("directory", "archive")
_NOT_IN_FILES = (_TRUSTED, *_IGNORED)


def _named_lines(lock: str) -> list[str]:
    """The lines of packages with a name; those of paths are left out."""
    logical = lock.replace("\\\n", " ").splitlines()
    return [
        line.strip() for line in logical if "==" in line.partition("#")[0] or (" @ " in line and "file:" not in line)
    ]


def _with_version(lock: str) -> list[str]:
    return [line.partition(" --hash=")[0].strip() for line in _named_lines(lock) if "==" in line and " @ " not in line]


def _as_locked(lines: Iterable[str], locked: LockedVersions) -> list[str]:
    """``lines`` with the hashes of the project's lock where it has them."""
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
    """Lines with ``./path`` as absolute paths, for an installer in another folder."""
    return [f"{root}/{line.removeprefix('./')}" if line.startswith("./") else line for line in lines]
