"""Installers (uv, or pip where a site wants it): their interface, how they are run, and the environment they get.

Code of packages and repositories runs while they are built, and uv expands upper-case variables in addresses that
packages name. So installers get a list of variables by name, at low priority, and no secret that can be left out.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

import msgspec

from hpc_agent import git_credentials
from hpc_agent.config.clearml_settings import PackageSettings
from hpc_agent.envs import pip_config
from hpc_agent.envs.interpreter import ImagePythonApi, Interpreter
from hpc_agent.errors import EnvironmentBuildError, ProcessError
from hpc_agent.git_credentials import CAREFUL_GIT, GitCredential
from hpc_agent.process import programs
from hpc_agent.process.programs import CompletedProcess
from hpc_agent.redact import without_secrets
from hpc_agent.retry import is_away


class InstallContext(msgspec.Struct, frozen=True):
    """Folders, options and credentials of one installation.

    ``work``: a private folder for the installer's files. ``cwd``: base of relative paths in lines. ``options``: lines
    that name package indexes. ``credentials``: those that the lines had. ``needs_git``: whether a line names a
    repository. ``python_version``: what to resolve for, where that is not the interpreter's own. ``provided``: names of
    packages that are there in any case, so that none of them is resolved.
    """

    work: Path
    cwd: Path
    options: tuple[str, ...] = ()
    credentials: tuple[GitCredential, ...] = ()
    needs_git: bool = False
    python_version: str = ""
    provided: tuple[str, ...] = ()

    def write(self, name: str, lines: Sequence[str]) -> str:
        """Write lines to a file in ``work``; returns its path."""
        path = self.work / name
        path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
        return str(path)


class Installer(Protocol):
    """Installer of packages. Lines are requirement lines; a lock is text in pip's format.

    All methods raise EnvironmentBuildError.
    """

    def resolve(
        self, lines: Sequence[str], constraints: Sequence[str], base: Interpreter, context: InstallContext
    ) -> str:
        """The lock for ``lines``: every package with its version, and hashes where there are any."""

    def install(self, lock: Sequence[str], root: Path, base: Interpreter, context: InstallContext) -> None:
        """Install exactly the lock into the environment at ``root``, without byte-code."""

    def install_post_packages(
        self, lines: Sequence[str], lock: Sequence[str], root: Path, base: Interpreter, context: InstallContext
    ) -> None:
        """Install requirements whose build needs the other packages, without changing those."""


_TIMEOUT_SECONDS = 7200.0
"""Seconds: a package built from source on a login node may take an hour."""


class InstallerRunner:
    """Runs programs with their caches in ``folder``, a node-local folder of the user's own.

    ``environ`` is what they inherit; ``credentials`` are for the git that they start. With ``image_python`` they run in
    that image.
    """

    def __init__(
        self,
        packages: PackageSettings,
        folder: Path,
        environ: Mapping[str, str],
        credentials: Sequence[GitCredential] = (),
        image_python: ImagePythonApi | None = None,
    ) -> None:
        self.packages = packages
        self.image_python = image_python
        self._folder = folder
        self._credentials = tuple(credentials)
        self._environ = environ
        self._env = installer_environment(environ, pip=packages.type == "pip")
        self._env.setdefault("UV_CACHE_DIR", str(_uv_cache(folder)))
        self._env["VIRTUALENV_OVERRIDE_APP_DATA"] = str(folder / "virtualenv")
        # At low priority on a busy login node, a Python takes longer to start than virtualenv's own 15 s.
        self._env["PY_DISCOVERY_TIMEOUT"] = "300"
        # Shared blocks where the file system has them, hard links elsewhere: 332 MB in 1 s, as copies in 4 to 16 s.
        # A hard link changes whenever another build adds one: ``archive.pack`` knows.
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
        if self.image_python:
            # Our virtualenv is not in the image and needs a Python; uv is one file without dependencies.
            maker = [self.uv_program(), "venv", "--no-project", *(["--seed"] if pip else [])]
        else:
            seed = ["--no-setuptools"] if pip else ["--no-seed"]
            maker = [sys.executable, "-m", "virtualenv", "--activators", "", *seed]
        completed = self.run([*maker, *options, str(root)], cwd=root.parent)
        if not completed.ok:
            raise installer_error(f"no environment can be made with {interpreter.description}", completed)

    def run(
        self,
        argv: Sequence[str],
        *,
        cwd: Path,
        environ: Mapping[str, str] = {},
        credentials: Sequence[GitCredential] = (),
        needs_git: bool = False,
    ) -> CompletedProcess:
        """Run at low priority, since login nodes are shared; ``environ`` and ``credentials`` are added.

        With ``needs_git`` also the credentials of the settings: what is built sees its installer's environment.

        Raises:
            EnvironmentBuildError: it could not be run.
        """
        git = git_credentials.environment(
            [*(self._credentials if needs_git else ()), *credentials], CAREFUL_GIT, self._environ if needs_git else {}
        )
        try:
            if self.image_python:
                added = {**image_environment(self._env), **git, **environ}
                return self.image_python.run(
                    list(argv), timeout=_TIMEOUT_SECONDS, env=added, cwd=cwd, folders=self._image_mounts(cwd, added)
                )
            return programs.run(
                [*_low_priority_prefix(), *argv], timeout=_TIMEOUT_SECONDS, env={**self._env, **git, **environ}, cwd=cwd
            )
        except ProcessError as error:
            raise EnvironmentBuildError(f"the environment cannot be built: {error}") from error

    def uv_program(self) -> str:
        import uv  # the wheel's module has the path of its program

        return uv.find_uv_bin()

    def _image_mounts(self, cwd: Path, environ: Mapping[str, str]) -> dict[Path, bool]:
        """Folders of this machine that installers in an image need → whether they are writable."""
        read = [Path(self.uv_program()).parent, *(Path(path) for path in pip_config.load().folders)]
        if certificate := environ.get("SSL_CERT_FILE"):
            read.append(Path(certificate).parent)
        written = [self._folder, Path(self._env["UV_CACHE_DIR"]), cwd]
        for path in written:
            path.mkdir(parents=True, exist_ok=True)
        return {**dict.fromkeys(read, False), **dict.fromkeys(written, True)}


def _low_priority_prefix() -> list[str]:
    """Command prefix by which an installer runs at low priority and is killed if this process dies."""
    nice = ["nice"] if shutil.which("nice") else []
    return nice + (["setpriv", "--pdeathsig", "KILL"] if shutil.which("setpriv") else [])


def _uv_cache(folder: Path) -> Path:
    """The user's own uv cache if environments can be linked from it, else one in the folder of builds."""
    usual = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "uv"
    try:
        if usual.stat().st_dev == folder.stat().st_dev:
            return usual
    except OSError:
        pass
    return folder / "uv-cache"


def installer_error(
    what: str, completed: CompletedProcess, kind: type[EnvironmentBuildError] = EnvironmentBuildError
) -> EnvironmentBuildError:
    """Error for a failed installer, with the end of its output."""
    message = without_secrets(_without_warnings(completed.last_words)).strip() or f"exit code {completed.returncode}"
    error = kind(f"{what}: {message}")
    error.retryable = is_away(completed.stderr)
    return error


def _without_warnings(message: str) -> str:
    """The end of a program's output without its warnings; all of it if there is nothing else."""
    informative = [line for line in message.splitlines() if not line.lstrip().lower().startswith("warning:")]
    return "\n".join(informative) if any(line.strip() for line in informative) else message


_FORWARDED_NAMES = frozenset(
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
_FORWARDED_PREFIXES = (
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
_BLOCKED_PREFIXES = (
    "PIP_TARGET",
    "PIP_PREFIX",
    "PIP_USER",
    "PIP_ROOT",
    "UV_PROJECT",
    "UV_TARGET",
    "UV_PREFIX",
    "UV_PUBLISH_",
)
"""Prefixes of variables that would redirect an installer to another environment, or are for publishing packages."""

_IMAGE_PREFIXES = ("UV_", "PIP_", "SSL_CERT_FILE", *_PROXIES)
"""Prefixes of variables that installers in an image get; everything else there is the image's own."""


def installer_environment(environ: Mapping[str, str], *, pip: bool = False) -> dict[str, str]:
    """The part of ``environ`` that installers get; that for pip only where ``pip`` is one of them."""
    prefixes = (*_FORWARDED_PREFIXES, "PIP_") if pip else _FORWARDED_PREFIXES
    kept = {
        name: value
        for name, value in environ.items()
        if (name in _FORWARDED_NAMES or name.startswith(prefixes)) and not name.startswith(_BLOCKED_PREFIXES)
    }
    # Proxies may contain a password. All programs know the lower-case names, and uv expands only upper-case ones.
    proxies = {name.lower(): value for name, value in sorted(environ.items()) if name.lower() in _PROXIES}
    return {**kept, **proxies}


def image_environment(environ: Mapping[str, str]) -> dict[str, str]:
    """The part of what installers get that they take along into an image."""
    return {name: value for name, value in environ.items() if name.startswith(_IMAGE_PREFIXES)}
