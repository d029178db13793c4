"""Builder of environments with conda's packages: resolved and installed by the site's own conda, mamba or micromamba.

An environment of conda's has an interpreter of its own, and its files name the folder that it was made for
(``conda_prefix``). What a task also wants from pip's indexes is resolved and installed by uv, over conda's packages.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec
from msgspec import structs
from msgspec.structs import replace
from packaging.version import InvalidVersion, Version

from hpc_agent.domain.env import EnvKey
from hpc_agent.envs import conda_prefix, conda_programs, env_lock, interpreter
from hpc_agent.envs.build_steps import compile_bytecode, installed, make_movable
from hpc_agent.envs.builder import Builder, BuiltWith, EnsuredEnv
from hpc_agent.envs.conda_programs import CondaPackage
from hpc_agent.envs.conda_request import CondaRequest, check_secrets
from hpc_agent.envs.env_key import FORMAT, key_of
from hpc_agent.envs.env_request import EnvRequest
from hpc_agent.envs.installers import installer_error
from hpc_agent.envs.interpreter import unmet
from hpc_agent.envs.requirements import ResolutionError, name_of, redacted
from hpc_agent.envs.shared_cache import Manifest
from hpc_agent.envs.uv_installer import UvInstaller
from hpc_agent.errors import EnvironmentBuildError
from hpc_agent.progress import Progress


class CondaLock(msgspec.Struct, frozen=True):
    """Exact content: ``conda`` lines for conda's program, ``pip`` lines for uv; ``python``: the version of both."""

    conda: tuple[str, ...]
    pip: tuple[str, ...]
    python: str
    channels: tuple[str, ...]


class CondaBuilder(Builder):
    """As ``Builder``, for requests with ``conda``."""

    def ensure(
        self,
        request: EnvRequest,
        source_root: Path | None,
        progress: Progress,
        *,
        published: Callable[[EnvKey], Manifest | None],
    ) -> EnsuredEnv:
        program = conda_programs.find(self._packages.conda_program, os.environ)
        locked = self._conda_lock(program, request, source_root, progress)
        parts: dict[str, object] = {
            "format": FORMAT,
            "lock": [*redacted(locked.conda), *redacted(locked.pip)],
            "flags": redacted(self._packages.extra_pip_install_flags),
            "source": request.source if request.lines.local else "",
            "installer": "conda",
        }
        if request.conda and request.conda.variables:
            parts["variables"] = dict(request.conda.variables)
        key = key_of(parts)

        def build() -> None:
            count = len(locked.conda) + len(locked.pip)
            progress(f"Building environment {key}: {count} packages, with {Path(program).name}")
            self._build_conda(key, parts, locked, program, request, source_root, progress)

        return self._build_once(key, build, progress, published, request.notes)

    def lock(self, request: EnvRequest, source_root: Path | None, progress: Progress) -> tuple[str, ...]:
        raise EnvironmentBuildError(
            "the task's packages are conda's, which no image is made with: put them into the image that the task names"
        )

    def _conda_lock(self, program: str, request: EnvRequest, source_root: Path | None, progress: Progress) -> CondaLock:
        wanted = request.conda or CondaRequest()
        channels = wanted.channels or self._packages.conda_channels
        check_secrets(channels)
        specs = list(wanted.packages)
        if "python" not in wanted.names:
            specs.append(f"python={request.python}" if request.python else "python")
        progress(f"Resolving {len(specs)} conda packages of {wanted.origin} with {Path(program).name}")
        with self._build_folder() as work:
            context = self._install_context(work, request, env_lock.prepare_input(request.lines, (), progress), None)
            argv = conda_programs.solve(program, channels, context.write("specs.txt", specs), str(work / "env"))
            answer = self._runner.run(argv, cwd=work, environ=_conda_environ())
            packages = conda_programs.parse_solution(answer.stdout, answer.stderr, wanted.origin)
            python = next((package.version for package in packages if package.name == "python"), "")
            if not python:
                raise ResolutionError(
                    f"the conda packages of {wanted.origin} cannot be resolved: python is not in them"
                )
            pip = self._pip_lock(request, packages, python, source_root, work, progress)
        return CondaLock(tuple(package.lock_line for package in packages), pip, python, tuple(channels))

    def _pip_lock(
        self,
        request: EnvRequest,
        packages: Sequence[CondaPackage],
        python: str,
        source_root: Path | None,
        work: Path,
        progress: Progress,
    ) -> tuple[str, ...]:
        """What uv adds to conda's packages, which stay as they are where they will do."""
        lock_input = env_lock.prepare_input(request.lines, (), progress)
        present = {package.name.replace("_", "-"): package.version for package in packages}
        lock_input = replace(lock_input, lines=unmet(lock_input.lines, present))
        if not lock_input.lines:
            return ()
        progress(f"Resolving {len(lock_input.lines)} requirements for Python {python}")
        base = interpreter.find("", structs.replace(self._packages, python_binary=""), progress)
        context = replace(
            self._install_context(work, request, lock_input, source_root), python_version=_numbers(python)
        )
        asked = {name_of(line) for line in lock_input.lines}
        kept = {name: version for name, version in present.items() if name not in asked}
        pinned = [f"{name}=={version}" for name, version in kept.items() if _is_pips(version)]
        uv, constraints = UvInstaller(self._runner), request.lines.constraints
        try:
            found = uv.resolve(lock_input.lines, (*constraints, *pinned), base, context)
        except ResolutionError as error:
            if error.retryable:
                raise
            # A version that only conda has, or one that pip's packages do not want: what conda has brought stays.
            found = uv.resolve(lock_input.lines, constraints, base, replace(context, provided=tuple(kept)))
        return unmet(env_lock.normalise(found, request.lines), present)

    def _build_conda(
        self,
        key: EnvKey,
        parts: dict[str, object],
        locked: CondaLock,
        program: str,
        request: EnvRequest,
        source_root: Path | None,
        progress: Progress,
    ) -> None:
        started = self._clock.monotonic()
        with self._build_folder() as work:
            root = conda_prefix.build_folder(work)
            lock_input = env_lock.prepare_input(request.lines, (), progress)
            context = self._install_context(work, request, lock_input, source_root)
            lock_file = context.write("conda-lock.txt", conda_programs.lock_text(locked.conda))
            argv = conda_programs.create(program, locked.channels, locked.conda, lock_file, str(root))
            answer = self._runner.run(argv, cwd=work, environ=_conda_environ())
            if not answer.ok or not (root / "bin" / "python").exists():
                raise installer_error("the task's conda packages cannot be installed", answer)
            if locked.pip:
                progress(f"Installing {len(locked.pip)} packages of pip's indexes")
                UvInstaller(self._runner).install_into(locked.pip, root, context)
            if request.conda and request.conda.variables:
                _write_variables(root, request.conda.variables)
            compile_bytecode(root, self._runner)
            make_movable(root)
            conda_prefix.write_record(root)
            built_with = BuiltWith(packages=installed(root), version=locked.python, conda=True)
            self._publish(key, parts, root, [*locked.conda, *locked.pip], built_with, started, progress)


def _write_variables(root: Path, variables: Sequence[tuple[str, str]]) -> None:
    """The ``variables`` of an environment.yml, for activation to set after those of packages."""
    script = root / "etc" / "conda" / "activate.d" / "zz-environment-variables.sh"
    script.parent.mkdir(parents=True, exist_ok=True)
    lines = (f"export {name}={shlex.quote(value)}\n" for name, value in variables)
    script.write_text("".join(lines), encoding="utf-8")


def _conda_environ() -> dict[str, str]:
    """The site's own settings of conda, among them CONDA_OVERRIDE_CUDA: login nodes have no GPU, for whose driver conda
    chooses builds."""
    return {"CONDA_ALWAYS_YES": "1", **conda_programs.own_variables(os.environ)}


def _numbers(version: str) -> str:
    return ".".join(version.split(".")[:3])


def _is_pips(version: str) -> bool:
    try:
        Version(version)
    except InvalidVersion:
        return False
    return True
