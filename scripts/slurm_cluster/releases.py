"""Other versions of Slurm than the machine's own, from Debian's archive, each in a folder of its own."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from debian_packages import CACHE_VARIABLE, PackagesError, cache_dir, locked, unpack, use_own_libraries

from slurm_cluster.errors import ClusterError
from slurm_cluster.progress import step

SUITES = {"20.11": "bullseye", "22.05": "bookworm", "24.11": "trixie", "26.05": "forky"}
"""Slurm's version → the Debian release that has it."""
VERSION_VARIABLE = "HPC_AGENT_SLURM_VERSION"
"""The version that clusters run where none is asked for; the machine's own where it is not set."""
PACKAGES = ("slurmctld", "slurmd", "slurm-client", "slurmdbd", "munge", "patchelf")
PROGRAMS = (
    *("munged", "mungekey", "slurmctld", "slurmd", "slurmdbd", "slurmstepd", "sacct", "sacctmgr", "salloc", "sattach"),
    *("sbatch", "sbcast", "scancel", "scontrol", "scrontab", "sdiag", "sinfo", "sprio", "squeue", "sreport", "srun"),
    *("sshare", "sstat", "strigger"),
)
_READY = "version"
"""File that holds the full version, written when all is done."""


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


def slurm_release(version: str) -> SlurmRelease:
    """The programs of a version, fetched at the first call.

    Raises:
        ClusterError: there is no such version, or the packages could not be had.
    """
    if version not in SUITES:
        raise ClusterError(f"Debian has no Slurm {version}; choose one of {', '.join(SUITES)}")
    release = SlurmRelease(_versions() / version)
    with locked(release.dir):
        if not (release.dir / _READY).exists():
            with step(f"fetching Slurm {version} from Debian {SUITES[version]}"):
                _make(release, version)
    return release


def mariadb_library() -> Path:
    """Debian 12's MariaDB client library, in place of a newer one with which slurmdbd does not work.

    libmariadb3 11.8.9 (Debian 13) refuses results of later statements of one query ("Number of columns in result …
    maxmimum allowed number of columns (=0)"), and slurmdbd ends.

    Raises:
        ClusterError: the package could not be had.
    """
    folder = _versions() / "libmariadb3"
    with locked(folder):
        if not (folder / _READY).exists():
            with step("fetching an older libmariadb3 from Debian bookworm, for slurmdbd"):
                _unpack("bookworm", ("libmariadb3",), folder)
                (folder / _READY).write_text("bookworm\n", encoding="utf-8")
    return next(folder.glob("files/usr/lib/*/libmariadb.so.3"))


def _versions() -> Path:
    """
    Raises:
        ClusterError: slurm.conf and the search paths of libraries cannot hold the folder's name.
    """
    folder = cache_dir() / "slurm-versions"
    if any(character.isspace() or character == ":" for character in str(folder)):
        raise ClusterError(f'"{folder}" has a space or colon in it: choose another folder with {CACHE_VARIABLE}')
    return folder


def _make(release: SlurmRelease, version: str) -> None:
    suite = SUITES[version]
    _unpack(suite, PACKAGES, release.dir)
    programs = dict(_programs(release.dir / "files"))
    try:
        use_own_libraries(release.dir / "files", programs.values())
    except PackagesError as error:
        raise ClusterError(str(error)) from error
    answer = subprocess.run([programs["slurmctld"], "-V"], capture_output=True, text=True, check=True)
    found = answer.stdout.split()[-1]
    if not found.startswith(f"{version}."):
        raise ClusterError(f"Debian {suite} has Slurm {found} now, and no longer {version}")
    shutil.rmtree(release.bin, ignore_errors=True)
    release.bin.mkdir()
    for name, program in programs.items():
        (release.bin / name).symlink_to(program)
    (release.dir / _READY).write_text(found + "\n", encoding="utf-8")


def _unpack(suite: str, packages: tuple[str, ...], folder: Path) -> None:
    try:
        unpack(suite, packages, folder)
    except PackagesError as error:
        raise ClusterError(str(error)) from error


def _programs(files: Path) -> Iterator[tuple[str, Path]]:
    """Slurm's and munge's programs by their usual names; Debian calls some ``slurmd-wlm`` and chooses by a link."""
    for folder in ("usr/bin", "usr/sbin"):
        for path in sorted((files / folder).iterdir()):
            name = path.name.removesuffix("-wlm")
            if name in PROGRAMS and path.is_file() and not path.is_symlink():
                yield name, path
