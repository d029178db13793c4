"""The programs that make environments: virtualenv and uv, each run in one way."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from hpc_agent import process
from hpc_agent.config.settings import PackageSettings
from hpc_agent.envs.interpreter import Interpreter
from hpc_agent.errors import EnvironmentBuildError, ProcessError
from hpc_agent.process import Completed
from hpc_agent.redact import without_credentials

_LONGEST = 7200.0
"""Seconds: a package built from source on a login node may take an hour."""

_FOREIGN = ("PYTHON", "VIRTUAL_ENV", "VIRTUALENV_", "CONDA_PREFIX", "__PYVENV", "PIP_TARGET", "PIP_PREFIX", "PIP_USER")
"""Beginnings of variables that would turn an installer to another environment than the one it is told."""


class Toolbox:
    """Installers with their caches in ``folder``, a node-local folder of the user's own.

    ``environ`` is what they inherit; ``extra`` is laid over it (credentials for git, say).
    """

    def __init__(
        self,
        packages: PackageSettings,
        folder: Path,
        environ: Mapping[str, str],
        extra: Mapping[str, str] = {},
    ) -> None:
        self._packages = packages
        self._env = {k: v for k, v in environ.items() if not k.startswith(_FOREIGN)} | dict(extra)
        self._env.setdefault("UV_CACHE_DIR", str(_uv_cache(folder)))
        self._env |= {
            "UV_NO_PROGRESS": "1",
            "UV_PYTHON_DOWNLOADS": "never",
            # What pip does: the best version of all indexes. uv's own default stops at the first that has the name,
            # which for download.pytorch.org is often an old copy of something else.
            "UV_INDEX_STRATEGY": "unsafe-best-match",
            "VIRTUALENV_OVERRIDE_APP_DATA": str(folder / "virtualenv"),
        }

    @property
    def index_lines(self) -> list[str]:
        """The settings' indexes as requirement lines: in a file, so that no process list shows a token."""
        return [f"--extra-index-url {url}" for url in self._packages.extra_index_url]

    def uv(self, arguments: Sequence[str], *, cwd: Path) -> Completed:
        """
        Raises:
            EnvironmentBuildError: it could not be run.
        """
        import uv  # the wheel's module: it knows where its program lies

        return self.run([uv.find_uv_bin(), *arguments, *self._packages.extra_pip_install_flags], cwd)

    def virtualenv(self, interpreter: Interpreter, root: Path, *, system_site: bool) -> Completed:
        """Make an empty environment at ``root``.

        Raises:
            EnvironmentBuildError: it could not be run.
        """
        options = ["--quiet", "--no-seed", "--activators", "", "--python", interpreter.executable]
        options += ["--system-site-packages"] if system_site else []
        return self.run([sys.executable, "-m", "virtualenv", *options, str(root)], root.parent)

    def run(self, argv: list[str], cwd: Path | None = None) -> Completed:
        """Run at low priority: login nodes belong to everybody.

        Raises:
            EnvironmentBuildError: it could not be run.
        """
        argv = ["nice", *argv] if shutil.which("nice") else argv
        try:
            return process.run(argv, timeout=_LONGEST, env=self._env, cwd=cwd)
        except ProcessError as error:
            raise EnvironmentBuildError(f"the environment cannot be built: {error}") from error


def _uv_cache(folder: Path) -> Path:
    """The user's own uv cache if environments can be linked from it, else one beside where they are built."""
    usual = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "uv"
    try:
        if usual.stat().st_dev == folder.stat().st_dev:
            return usual
    except OSError:
        pass
    return folder / "uv-cache"


def as_error(what: str, answer: Completed) -> EnvironmentBuildError:
    """An installer's failure in its own last words."""
    words = without_credentials(answer.last_words).strip() or f"exit code {answer.returncode}"
    return EnvironmentBuildError(f"{what}: {words}")
