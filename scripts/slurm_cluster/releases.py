"""Other versions of Slurm than the machine's own: Debian's packages, unpacked into a folder and made to run from there.

Nothing is installed and no root is needed. The packages of a Debian release and all they depend on, its C library
included, are unpacked into ``files/``; each program is then told (patchelf) to use the loader and the libraries of that
folder. So programs of any release run beside the machine's own, and jobs see the machine as it is.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from slurm_cluster.errors import ClusterError
from slurm_cluster.progress import step

SUITES = {"20.11": "bullseye", "22.05": "bookworm", "24.11": "trixie", "26.05": "forky"}
"""Slurm's version → the Debian release that has it."""
DEFAULT_DIR = "~/.cache/hpc-agent/slurm-versions"
DIR_VARIABLE = "HPC_AGENT_SLURM_VERSIONS"
MIRROR_VARIABLE = "HPC_AGENT_DEBIAN_MIRROR"
MIRROR = "http://deb.debian.org/debian"
KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
PACKAGES = ("slurmctld", "slurmd", "slurm-client", "slurmdbd", "munge", "patchelf")
_READY = "version"
"""File that holds the full version, written when all is done."""

APT_CONF = """\
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


@dataclass(frozen=True)
class SlurmRelease:
    """Programs of one version of Slurm in a folder of their own."""

    dir: Path

    @property
    def version(self) -> str:
        """The full version, as ``24.11.5``."""
        return (self.dir / _READY).read_text(encoding="utf-8").strip()

    @property
    def bin(self) -> Path:
        """For PATH: Slurm's and munge's programs under their usual names, and nothing else."""
        return self.dir / "bin"

    @property
    def plugins(self) -> Path:
        return next(self.dir.glob("files/usr/lib/*/slurm-wlm"))


def versions_dir() -> Path:
    return Path(os.environ.get(DIR_VARIABLE) or DEFAULT_DIR).expanduser().absolute()


def slurm_release(version: str) -> SlurmRelease:
    """The programs of a version, fetched at the first call.

    Raises:
        ClusterError: there is no such version, or the packages could not be had.
    """
    if version not in SUITES:
        raise ClusterError(f"--slurm {version}: Debian has no such version; choose one of {', '.join(SUITES)}")
    release = SlurmRelease(versions_dir() / version)
    with _locked(release.dir):
        if not (release.dir / _READY).exists():
            with step(f"fetching Slurm {version} from Debian {SUITES[version]}"):
                found = _make(release, SUITES[version])
                if not found.startswith(f"{version}."):
                    raise ClusterError(f"Debian {SUITES[version]} has Slurm {found} now, and no longer {version}")
                (release.dir / _READY).write_text(found + "\n", encoding="utf-8")
    return release


def mariadb_library() -> Path:
    """Debian 12's MariaDB client library, in place of a newer one with which slurmdbd does not work.

    libmariadb3 11.8.9 (Debian 13) refuses each result of the second and later statements of one query ("Number of
    columns in result … maxmimum allowed number of columns (=0)"), and slurmdbd then ends.

    Raises:
        ClusterError: the package could not be had.
    """
    folder = versions_dir() / "libmariadb3"
    with _locked(folder):
        if not (folder / _READY).exists():
            with step("fetching an older libmariadb3 from Debian bookworm, for slurmdbd"):
                _fetch("bookworm", ("libmariadb3",), folder)
                (folder / _READY).write_text("bookworm\n", encoding="utf-8")
    return next(folder.glob("files/usr/lib/*/libmariadb.so.3"))


def _make(release: SlurmRelease, suite: str) -> str:
    """Returns the full version of Slurm that it was."""
    packages = _fetch(suite, PACKAGES, release.dir)
    _use_own_libraries(release.dir / "files")
    release.bin.mkdir()
    for folder in ("usr/bin", "usr/sbin"):
        for name, program in _programs(release.dir / "files" / folder):
            (release.bin / name).symlink_to(program)
    slurm = next(package for package in packages if package.startswith("slurm-client_"))
    return slurm.split("_")[1].split("-")[0]


def _programs(folder: Path) -> Iterator[tuple[str, Path]]:
    """Slurm's and munge's programs with their usual names: Debian calls some ``slurmd-wlm``, chosen by a link."""
    for path in sorted(folder.iterdir()):
        name = path.name.removesuffix("-wlm")
        if name.startswith(("s", "munge")) and _is_slurms(name) and path.is_file():
            yield name, path


def _is_slurms(name: str) -> bool:
    return name in {
        *("munged", "mungekey", "munge", "slurmctld", "slurmd", "slurmdbd", "slurmstepd", "sacct", "sacctmgr"),
        *("salloc", "sattach", "sbatch", "sbcast", "scancel", "scontrol", "sdiag", "sinfo", "sprio", "squeue"),
        *("sreport", "srun", "sshare", "sstat", "strigger", "scrontab"),
    }


# ---------------------------------------------------------------- packages


def _fetch(suite: str, packages: Sequence[str], folder: Path) -> list[str]:
    """Unpack packages and all they depend on into ``folder/files``; returns the names of the package files."""
    _check_tools(suite)
    shutil.rmtree(folder / "files", ignore_errors=True)
    shutil.rmtree(folder / "bin", ignore_errors=True)
    apt = folder / "apt"
    for part in ("lists/partial", "cache/archives/partial", "etc/apt.conf.d", "etc/preferences.d"):
        (apt / part).mkdir(parents=True, exist_ok=True)
    (apt / "status").touch()
    mirror = os.environ.get(MIRROR_VARIABLE) or MIRROR
    (apt / "sources.list").write_text(f"deb [signed-by={KEYRING}] {mirror} {suite} main\n", encoding="utf-8")
    architecture = _run("dpkg", "--print-architecture").strip()
    (apt / "apt.conf").write_text(APT_CONF.format(dir=apt, architecture=architecture), encoding="utf-8")
    environ = {**os.environ, "APT_CONFIG": str(apt / "apt.conf"), "LC_ALL": "C.UTF-8"}
    _run("apt-get", "update", "-qq", "--error-on=any", env=environ)
    _run("apt-get", "install", "-qq", "--yes", "--download-only", *packages, env=environ)
    archives = sorted((apt / "cache" / "archives").glob("*.deb"))
    for archive in archives:
        _run("dpkg-deb", "--extract", str(archive), str(folder / "files"))
    shutil.rmtree(apt)
    return [archive.name for archive in archives]


def _check_tools(suite: str) -> None:
    missing = [tool for tool in ("apt-get", "dpkg", "dpkg-deb") if shutil.which(tool) is None]
    if missing:
        raise ClusterError(f"packages of Debian {suite} cannot be fetched without {', '.join(missing)}")
    if not KEYRING.exists():
        raise ClusterError(f"{KEYRING} is missing; as root: apt-get install debian-archive-keyring")


def _run(*argv: str, env: dict[str, str] | None = None) -> str:
    answer = subprocess.run(argv, env=env, capture_output=True, text=True, errors="replace", check=False)
    if answer.returncode:
        message = (answer.stderr or answer.stdout).strip()[-1000:]
        raise ClusterError(f"{' '.join(argv[:2])} failed with exit code {answer.returncode}: {message}")
    return answer.stdout


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Several clusters may start at once; one fetches."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w", encoding="utf-8") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


# ---------------------------------------------------------------- programs


def _use_own_libraries(files: Path) -> None:
    """Programs look for their loader and libraries in this folder before the machine's."""
    libraries = [path for part in ("lib", "usr/lib") for path in files.glob(f"{part}/*-linux-gnu*") if path.is_dir()]
    libraries += [path / "slurm-wlm" for path in libraries if (path / "slurm-wlm").is_dir()]
    loader = next(path for folder in libraries for path in sorted(folder.glob("ld-linux*.so.*")))
    path = os.pathsep.join(map(str, libraries))
    patchelf = (str(loader), "--library-path", path, str(files / "usr/bin/patchelf"))
    for folder in ("usr/bin", "usr/sbin"):
        for _, program in _programs(files / folder):
            # DT_RPATH, not DT_RUNPATH: it holds for the plugins too, which the program loads.
            _run(*patchelf, "--set-interpreter", str(loader), "--force-rpath", "--set-rpath", path, str(program))
