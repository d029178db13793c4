"""How installers are run: in an environment that turns them to nothing but what they are told, at low priority."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from hpc_agent import git_credentials, process
from hpc_agent.config.settings import PackageSettings
from hpc_agent.envs import pip_config
from hpc_agent.envs.image_python import ImagePythonApi
from hpc_agent.envs.installer_environment import for_images, for_installers
from hpc_agent.envs.interpreter import Interpreter
from hpc_agent.errors import EnvironmentBuildError, ProcessError
from hpc_agent.git_credentials import CAREFUL_GIT, GitCredential
from hpc_agent.process import CompletedProcess
from hpc_agent.redact import without_secrets
from hpc_agent.retry import is_away

_LONGEST = 7200.0
"""Seconds: a package built from source on a login node may take an hour."""


class InstallerRunner:
    """Runs programs with their caches in ``folder``, a node-local folder of the user's own.

    ``environ`` is what they inherit; ``credentials`` are for the git that they start. With ``foreign`` they run in
    that image.
    """

    def __init__(
        self,
        packages: PackageSettings,
        folder: Path,
        environ: Mapping[str, str],
        credentials: Sequence[GitCredential] = (),
        foreign: ImagePythonApi | None = None,
    ) -> None:
        self.packages = packages
        self.foreign = foreign
        self._folder = folder
        self._credentials = tuple(credentials)
        self._environ = environ
        self._env = for_installers(environ, pip=packages.type == "pip")
        self._env.setdefault("UV_CACHE_DIR", str(_uv_cache(folder)))
        self._env["VIRTUALENV_OVERRIDE_APP_DATA"] = str(folder / "virtualenv")
        # Shared blocks where the file system has them, hard links elsewhere: 332 MB in 1 s, of which copies take 4 to
        # 16 s. A hard link changes whenever another build adds one: ``archive.pack`` knows.
        self._env["UV_LINK_MODE"] = "clone"

    @property
    def index_lines(self) -> list[str]:
        """The settings' indexes as requirement lines: in a file, so that no process list shows a token."""
        return [f"--extra-index-url {url}" for url in self.packages.extra_index_url]

    def virtualenv(self, interpreter: Interpreter, root: Path, *, system_site: bool = False, pip: bool = False) -> None:
        """Make an environment at ``root``: empty, or with pip.

        Raises:
            EnvironmentBuildError: it cannot be made.
        """
        options = ["--quiet", "--python", interpreter.executable]
        options += ["--system-site-packages"] if system_site else []
        if self.foreign:
            # Our virtualenv is not in the image, and needs a Python; uv is one file that needs nothing.
            maker = [self.uv_program(), "venv", "--no-project", *(["--seed"] if pip else [])]
        else:
            seed = ["--no-setuptools"] if pip else ["--no-seed"]
            maker = [sys.executable, "-m", "virtualenv", "--activators", "", *seed]
        answer = self.run([*maker, *options, str(root)], cwd=root.parent)
        if not answer.ok:
            raise as_error(f"no environment can be made with {interpreter.shown}", answer)

    def run(
        self,
        argv: Sequence[str],
        *,
        cwd: Path,
        environ: Mapping[str, str] = {},
        credentials: Sequence[GitCredential] = (),
        needs_git: bool = False,
    ) -> CompletedProcess:
        """Run at low priority, for login nodes belong to everybody; ``environ`` and ``credentials`` are added.

        Those of the settings too where it ``needs_git``: what is built sees the environment of its installer.

        Raises:
            EnvironmentBuildError: it could not be run.
        """
        git = git_credentials.environment(
            [*(self._credentials if needs_git else ()), *credentials], CAREFUL_GIT, self._environ if needs_git else {}
        )
        try:
            if self.foreign:
                added = {**for_images(self._env), **git, **environ}
                return self.foreign.run(
                    list(argv), timeout=_LONGEST, env=added, cwd=cwd, folders=self._folders(cwd, added)
                )
            return process.run([*_manners(), *argv], timeout=_LONGEST, env={**self._env, **git, **environ}, cwd=cwd)
        except ProcessError as error:
            raise EnvironmentBuildError(f"the environment cannot be built: {error}") from error

    def uv_program(self) -> str:
        import uv  # the wheel's module: it knows where its program lies

        return uv.find_uv_bin()

    def _folders(self, cwd: Path, environ: Mapping[str, str]) -> dict[Path, bool]:
        """What installers in an image need of this machine, and whether they write to it."""
        read = [Path(self.uv_program()).parent, *(Path(path) for path in pip_config.load().folders)]
        if certificate := environ.get("SSL_CERT_FILE"):
            read.append(Path(certificate).parent)
        written = [self._folder, Path(self._env["UV_CACHE_DIR"]), cwd]
        for path in written:
            path.mkdir(parents=True, exist_ok=True)
        return {**dict.fromkeys(read, False), **dict.fromkeys(written, True)}


def _manners() -> list[str]:
    """What stands before an installer: it yields to others, and ends with us should we be killed."""
    nice = ["nice"] if shutil.which("nice") else []
    return nice + (["setpriv", "--pdeathsig", "KILL"] if shutil.which("setpriv") else [])


def _uv_cache(folder: Path) -> Path:
    """The user's own uv cache if environments can be linked from it, else one beside where they are built."""
    usual = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "uv"
    try:
        if usual.stat().st_dev == folder.stat().st_dev:
            return usual
    except OSError:
        pass
    return folder / "uv-cache"


def as_error(
    what: str, answer: CompletedProcess, kind: type[EnvironmentBuildError] = EnvironmentBuildError
) -> EnvironmentBuildError:
    """An installer's failure in its own last words."""
    words = without_secrets(_without_warnings(answer.last_words)).strip() or f"exit code {answer.returncode}"
    error = kind(f"{what}: {words}")
    error.retryable = is_away(answer.stderr)
    return error


def _without_warnings(words: str) -> str:
    """What a program said last, without remarks on what is no trouble; all of it if there is nothing else."""
    telling = [line for line in words.splitlines() if not line.lstrip().lower().startswith("warning:")]
    return "\n".join(telling) if any(line.strip() for line in telling) else words
