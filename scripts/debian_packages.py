"""Programs of any Debian release on this machine: packages unpacked into a folder and made to run from there.

Nothing is installed and no root is needed. Packages and all they depend on, the C library included, are unpacked into
``files/``; each program is then made (patchelf) to use the loader and the libraries of that folder. So programs of
several releases run on one machine with its own, and what they start sees the machine as it is.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

CACHE_VARIABLE = "HPC_AGENT_DEBIAN_CACHE"
MIRROR_VARIABLE = "HPC_AGENT_DEBIAN_MIRROR"
MIRROR = "http://deb.debian.org/debian"
KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")

_APT_CONF = """\
Dir::State "{dir}";
Dir::State::status "{dir}/status";
Dir::Cache "{dir}/cache";
Dir::Etc "{dir}/etc";
Dir::Etc::sourcelist "{dir}/sources.list";
APT::Architecture "{architecture}";
APT::Install-Recommends "false";
APT::Sandbox::User "";
# Debian's coming release lets its lists expire now and then; the signature is still checked.
Acquire::Check-Valid-Until "false";
Acquire::Languages "none";
"""


class PackagesError(Exception):
    """Packages could not be had; one sentence for the person at the terminal."""


def cache_dir() -> Path:
    """Where unpacked packages are kept: for root where other users can read them too, as Slurm's commands must be able
    to read their plugins."""
    usual = "/var/cache/hpc-agent" if os.geteuid() == 0 else "~/.cache/hpc-agent"
    return Path(os.environ.get(CACHE_VARIABLE) or usual).expanduser().absolute()


def unpack(suite: str, packages: Sequence[str], folder: Path) -> None:
    """Unpack packages of a release, with all they depend on, into ``folder/files``.

    Raises:
        PackagesError: a tool is missing, or the archive did not answer.
    """
    _check_tools(suite)
    shutil.rmtree(folder / "files", ignore_errors=True)
    apt = folder / "apt"
    for part in ("lists/partial", "cache/archives/partial", "etc/apt.conf.d", "etc/preferences.d"):
        (apt / part).mkdir(parents=True, exist_ok=True)
    (apt / "status").touch()
    mirror = os.environ.get(MIRROR_VARIABLE) or MIRROR
    (apt / "sources.list").write_text(f"deb [signed-by={KEYRING}] {mirror} {suite} main\n", encoding="utf-8")
    architecture = _run("dpkg", "--print-architecture").strip()
    (apt / "apt.conf").write_text(_APT_CONF.format(dir=apt, architecture=architecture), encoding="utf-8")
    environ = {**os.environ, "APT_CONFIG": str(apt / "apt.conf"), "LC_ALL": "C.UTF-8"}
    _run("apt-get", "update", "-qq", "--error-on=any", env=environ)
    _run("apt-get", "install", "-qq", "--yes", "--download-only", *packages, env=environ)
    for archive in sorted((apt / "cache" / "archives").glob("*.deb")):
        _run("dpkg-deb", "--extract", str(archive), str(folder / "files"))
    shutil.rmtree(apt)


def use_own_libraries(files: Path, programs: Iterable[Path]) -> None:
    """Make programs look for their loader and libraries in ``files`` before the machine's. Needs package patchelf."""
    libraries = [path for part in ("lib", "usr/lib") for path in files.glob(f"{part}/*-linux-gnu*") if path.is_dir()]
    libraries += [path / "slurm-wlm" for path in libraries if (path / "slurm-wlm").is_dir()]
    loader = next(path for folder in libraries for path in sorted(folder.glob("ld-linux*.so.*")))
    path = os.pathsep.join(map(str, libraries))
    patchelf = (str(loader), "--library-path", path, str(files / "usr/bin/patchelf"))
    for program in programs:
        # DT_RPATH, not DT_RUNPATH: it holds for the plugins too, which the program loads. One call for each change, in
        # this order: otherwise a program that is linked to a fixed address (python3.14) crashes.
        _run(*patchelf, "--force-rpath", "--set-rpath", path, str(program))
        _run(*patchelf, "--set-interpreter", str(loader), str(program))


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Several may want the same folder at once; one makes it."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w", encoding="utf-8") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _check_tools(suite: str) -> None:
    missing = [tool for tool in ("apt-get", "dpkg", "dpkg-deb") if shutil.which(tool) is None]
    if missing:
        raise PackagesError(f"packages of Debian {suite} cannot be fetched without {', '.join(missing)}")
    if not KEYRING.exists():
        raise PackagesError(f"{KEYRING} is missing; as root: apt-get install debian-archive-keyring")


def _run(*argv: str, env: dict[str, str] | None = None) -> str:
    answer = subprocess.run(argv, env=env, capture_output=True, text=True, errors="replace", check=False)
    if answer.returncode:
        message = (answer.stderr or answer.stdout).strip()[-1000:]
        raise PackagesError(f"{' '.join(argv[:2])} failed with exit code {answer.returncode}: {message}")
    return answer.stdout
