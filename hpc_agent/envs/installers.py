"""Installers (uv, or pip where a site wants it): their interface, how they are run, and the environment they get.

Code of packages and repositories runs while they are built, and uv expands upper-case variables in addresses that
packages name. So installers get a list of variables by name, at low priority, and no secret that can be left out.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from hpc_agent import git_credentials, process
from hpc_agent.config.settings import PackageSettings
from hpc_agent.envs import pip_config
from hpc_agent.envs.interpreter import ImagePythonApi, Interpreter
from hpc_agent.errors import EnvironmentBuildError, ProcessError
from hpc_agent.git_credentials import CAREFUL_GIT, GitCredential
from hpc_agent.process import CompletedProcess
from hpc_agent.redact import without_secrets
from hpc_agent.retry import is_away


@dataclass(frozen=True)
class InstallContext:
    """``work``: a private folder for files of the installer's; ``cwd``: what relative paths in lines start from;
    ``options``: lines that say where packages are found; ``credentials`` were taken out of the lines; ``needs_git``:
    whether some line names a repository."""

    work: Path
    cwd: Path
    options: tuple[str, ...] = ()
    credentials: tuple[GitCredential, ...] = ()
    needs_git: bool = False

    def write(self, name: str, lines: Sequence[str]) -> str:
        """A file of lines; returns its path."""
        path = self.work / name
        path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
        return str(path)


class Installer(Protocol):
    """Lines are requirement lines; a lock is text in pip's format. All raise EnvironmentBuildError."""

    def resolve(
        self, lines: Sequence[str], constraints: Sequence[str], base: Interpreter, place: InstallContext
    ) -> str:
        """The lock for ``lines``: every package with its version, and hashes where there are any."""

    def install(self, lock: Sequence[str], root: Path, base: Interpreter, place: InstallContext) -> None:
        """Install exactly the lock into the environment at ``root``, without byte-code."""

    def install_late(
        self, lines: Sequence[str], lock: Sequence[str], root: Path, base: Interpreter, place: InstallContext
    ) -> None:
        """Install what can only be built where everything else is there already, without changing the rest."""


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


_NAMES = frozenset(
    {
        *("PATH", "HOME", "USER", "LOGNAME", "SHELL", "LANG", "LANGUAGE", "TZ", "TERM", "TMPDIR", "TEMP", "TMP"),
        # where a network is reached and who is trusted
        *(
            "SSL_CERT_FILE",
            "SSL_CERT_DIR",
            "REQUESTS_CA_BUNDLE",
            "CURL_CA_BUNDLE",
            "NETRC",
            "SSH_AUTH_SOCK",
            "KRB5CCNAME",
        ),
        # how things are compiled
        *("CC", "CXX", "FC", "F77", "F90", "CPP", "AR", "LD", "NVCC", "MPICC", "MPICXX", "CUDACXX", "CUDAHOSTCXX"),
        *(
            "CFLAGS",
            "CXXFLAGS",
            "FFLAGS",
            "CPPFLAGS",
            "LDFLAGS",
            "ARCHFLAGS",
            "MAKEFLAGS",
            "MAX_JOBS",
            "NPY_NUM_BUILD_JOBS",
        ),
        *("CPATH", "C_INCLUDE_PATH", "CPLUS_INCLUDE_PATH", "LIBRARY_PATH", "LD_LIBRARY_PATH", "LD_RUN_PATH"),
        *("PKG_CONFIG_PATH", "ACLOCAL_PATH", "MANPATH", "MODULEPATH", "LOADEDMODULES", "CARGO_HOME", "RUSTUP_HOME"),
        *("CUDA_HOME", "CUDA_PATH", "CUDA_ROOT", "CUDNN_PATH", "NCCL_HOME", "ROCM_HOME", "ROCM_PATH", "HIP_PATH"),
        *("MKLROOT", "OPENBLAS", "BLAS", "LAPACK", "FFTW_DIR", "HDF5_DIR", "NETCDF4_DIR", "GDAL_CONFIG", "PROJ_DIR"),
    }
)
_BEGINNINGS = (
    *("LC_", "XDG_", "UV_", "CMAKE_", "TORCH_CUDA_", "EBROOT", "EBVERSION"),
    *(
        "GIT_SSH",
        "GIT_SSL",
        "GIT_PROXY",
        "GIT_EXEC_PATH",
        "GIT_CONFIG_GLOBAL",
        "GIT_CONFIG_SYSTEM",
        "GIT_CONFIG_NOSYSTEM",
    ),
)
_PROXIES = ("http_proxy", "https_proxy", "no_proxy", "all_proxy")
_ELSEWHERE = ("PIP_TARGET", "PIP_PREFIX", "PIP_USER", "PIP_ROOT", "UV_PROJECT", "UV_TARGET", "UV_PREFIX", "UV_PUBLISH_")
"""Beginnings of variables that would turn an installer to another environment, or are for sending packages away."""

_IN_IMAGES = ("UV_", "PIP_", "SSL_CERT_FILE", *_PROXIES)
"""Beginnings of what installers in an image obey; everything else there is the image's own."""


def for_installers(environ: Mapping[str, str], *, pip: bool = False) -> dict[str, str]:
    """The part of ``environ`` that installers get; that for pip only where ``pip`` is one of them."""
    beginnings = (*_BEGINNINGS, "PIP_") if pip else _BEGINNINGS
    kept = {
        name: value
        for name, value in environ.items()
        if (name in _NAMES or name.startswith(beginnings)) and not name.startswith(_ELSEWHERE)
    }
    # Proxies may hold a password. All programs know the lower-case names, which no address stands for.
    proxies = {name.lower(): value for name, value in sorted(environ.items()) if name.lower() in _PROXIES}
    return {**kept, **proxies}


def for_images(environ: Mapping[str, str]) -> dict[str, str]:
    """The part of what installers get that they take along into an image."""
    return {name: value for name, value in environ.items() if name.startswith(_IN_IMAGES)}
