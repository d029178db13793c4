"""Layout of a cluster: its folder, its daemons, and how its processes are distinguished from others."""

from __future__ import annotations

import os
import pwd
import shutil
import socket
import subprocess
from functools import cached_property
from pathlib import Path

from slurm_cluster.errors import ClusterError, MissingProgramError
from slurm_cluster.releases import SlurmRelease, slurm_release

CLUSTER = "hpcagent"
ACCOUNT = "lab"
COUNT_VARIABLE = "HPC_AGENT_SLURM_NODES"
"""Number of nodes of a cluster for benchmarks; three without it."""
GPU_TYPES = {
    f"n{number}": "a100" if number % 3 else "h100" for number in range(1, int(os.environ.get(COUNT_VARIABLE, "3")) + 1)
}
NODES = tuple(GPU_TYPES)
GPUS_PER_NODE = 4
UP_STATES = frozenset({"idle", "mixed", "allocated", "completing", "planned"})
"""sinfo's words for a node that takes jobs. The backfill scheduler calls an idle one "planned" while a job waits."""
MARK = "HPC_AGENT_SLURM_CLUSTER"
"""Environment variable of every daemon started here; its value, the folder, tells our daemons from others."""
PACKAGES = "slurm-wlm slurmctld slurmd slurmdbd munge mariadb-server"
PROGRAMS = ("mungekey", "munged", "slurmctld", "slurmd", "sinfo")
ACCOUNTING_PROGRAMS = ("mariadb-install-db", "mariadbd", "slurmdbd")
SMALL_LOG = "--innodb-log-file-size=8M"
"""MariaDB takes 96 MB by default, for each cluster that a test session makes."""
SBIN = ("/usr/sbin", "/sbin", "/usr/local/sbin")


class Cluster:
    """A cluster in ``directory``: what belongs to it, and whether it runs."""

    def __init__(self, directory: Path, slurm: str = "") -> None:
        """``slurm``: the version that it runs, ``24.11`` say; the machine's own where it is empty."""
        self.dir = directory
        self.conf = directory / "slurm.conf"
        # Not the USER of the environment, which sudo and containers leave as it was.
        self.user = _own_name()
        self.host = socket.gethostname().split(".")[0]
        self.slurm = slurm

    @cached_property
    def release(self) -> SlurmRelease | None:
        """The programs of another version than the machine's own."""
        return slurm_release(self.slurm) if self.slurm else None

    @cached_property
    def version(self) -> tuple[int, int]:
        """Year and month of its Slurm, ``(24, 11)`` say."""
        text = self.release.version if self.release else self.checked("slurmctld", "-V").split()[-1]
        year, month = text.split(".")[:2]
        return int(year), int(month)

    @property
    def path(self) -> str:
        """Where its programs are looked for."""
        own = [str(self.release.bin)] if self.release else []
        return os.pathsep.join((*own, os.environ.get("PATH", os.defpath), *SBIN))

    @property
    def without_accounting(self) -> str:
        """Why it has no slurmdbd; empty where it has one."""
        try:
            return (self.dir / "without-accounting").read_text(encoding="utf-8").strip()
        except FileNotFoundError:
            return ""

    @without_accounting.setter
    def without_accounting(self, reason: str) -> None:
        if reason:
            (self.dir / "without-accounting").write_text(reason + "\n", encoding="utf-8")
        else:
            (self.dir / "without-accounting").unlink(missing_ok=True)

    @property
    def preload(self) -> Path | None:
        """A library that slurmdbd needs in place of the one that it would load."""
        try:
            return Path((self.dir / "slurmdbd-preload").read_text(encoding="utf-8").strip())
        except FileNotFoundError:
            return None

    @preload.setter
    def preload(self, library: Path) -> None:
        (self.dir / "slurmdbd-preload").write_text(f"{library}\n", encoding="utf-8")

    def preloaded(self, part: str) -> dict[str, str]:
        """What a daemon's environment has beyond ``env``."""
        return {"LD_PRELOAD": str(self.preload)} if part == "slurmdbd" and self.preload else {}

    @property
    def env(self) -> dict[str, str]:
        """The environment of daemons and commands: nothing of the caller's Slurm."""
        kept = {name: os.environ[name] for name in ("HOME", "LANG", "TZ") if name in os.environ}
        return {
            **kept,
            "PATH": self.path,
            "SLURM_CONF": str(self.conf),
            # slurmdbd has no setting for the database's socket; the client library reads this.
            "MYSQL_UNIX_PORT": str(self.dir / "mariadb" / "socket"),
            MARK: str(self.dir),
        }

    def parts(self) -> dict[str, tuple[str, ...]]:
        """The command of each daemon, in the order in which they start. They run in the foreground, detached by us."""
        munge, mariadb, log = self.dir / "munge", self.dir / "mariadb", self.dir / "log"
        commands = {
            "munged": [
                # --force: the folder may be closed to other users, to whom munged would have to be reachable.
                *("munged", "--foreground", "--force", f"--socket={munge}/socket", f"--key-file={munge}/key"),
                *(f"--pid-file={munge}/pid", f"--log-file={log}/munged.log", f"--seed-file={munge}/seed"),
            ],
            "mariadbd": [
                *("mariadbd", "--no-defaults", "--skip-networking", f"--user={self.user}"),
                *(f"--datadir={mariadb}/data", f"--socket={mariadb}/socket", f"--pid-file={mariadb}/pid"),
                # One that starts removes all temporary tables there, and another whose table is gone so dies of it.
                *(f"--tmpdir={mariadb}", f"--log-error={log}/mariadbd.log"),
                # A power cut may lose a second of the accounting; quicker, and nothing here is worth a wait.
                *(SMALL_LOG, "--innodb-flush-log-at-trx-commit=2", "--innodb-lock-wait-timeout=900"),
            ],
            "slurmdbd": ["slurmdbd", "-D"],
            "slurmctld": ["slurmctld", "-D", "-f", str(self.conf)],
            **{node: ["slurmd", "-D", "-N", node, "-f", str(self.conf), *self._stepd()] for node in NODES},
        }
        if self.without_accounting:
            del commands["mariadbd"], commands["slurmdbd"]
        return {name: (find_program(argv[0], self.path), *argv[1:]) for name, argv in commands.items()}

    def _stepd(self) -> list[str]:
        """slurmd knows the path of the machine's own slurmstepd only."""
        return ["-d", str(self.release.bin / "slurmstepd")] if self.release else []

    def command(self, *argv: str, timeout: float = 30) -> subprocess.CompletedProcess[str]:
        """Run one of Slurm's commands against this cluster."""
        program = (find_program(argv[0], self.path), *argv[1:])
        try:
            return subprocess.run(program, env=self.env, capture_output=True, text=True, timeout=timeout, check=False)
        except subprocess.TimeoutExpired:
            return subprocess.CompletedProcess(program, 124, "", f"{argv[0]} gave no answer within {timeout:g} s")

    def checked(self, *argv: str) -> str:
        """As ``command``, but returns the output.

        Raises:
            ClusterError: it failed.
        """
        answer = self.command(*argv, timeout=240)
        if answer.returncode:
            words = (answer.stderr or answer.stdout).strip()
            raise ClusterError(f"{' '.join(argv)} ended with exit code {answer.returncode}: {words}")
        return answer.stdout

    def pid(self, part: str) -> int | None:
        """The process of a daemon, if its pid file names a process that is this daemon of this cluster."""
        try:
            pid = int(self.mark(part).read_text())
        except (FileNotFoundError, ValueError):
            return None
        return pid if is_ours(pid, self.dir, Path(self.parts()[part][0]).name) else None

    def mark(self, part: str) -> Path:
        """Our own pid file of a daemon, next to the one that it may write itself."""
        return self.dir / "run" / f"{part}.mark"

    def node_states(self) -> dict[str, str]:
        """Slurm's word for each node, without the sign for "planned"; empty while the controller does not answer."""
        answer = self.command("sinfo", "-h", "-N", "-p", "main", "-o", "%N %T")
        words = (line.split() for line in answer.stdout.splitlines())
        return {pair[0]: pair[1].removesuffix("-") for pair in words if len(pair) == 2}

    def is_up(self) -> bool:
        """Whether all nodes can take jobs."""
        states = self.node_states()
        return set(states) == set(NODES) and set(states.values()) <= UP_STATES


def _own_name() -> str:
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError as error:
        raise ClusterError(f"user {os.getuid()} has no name here, which Slurm needs: add it to /etc/passwd") from error


def find_program(name: str, path: str) -> str:
    """
    Raises:
        MissingProgramError: it is in none of the folders of ``path``.
    """
    found = shutil.which(name, path=path)
    if not found:
        raise MissingProgramError(
            f"{name} was not found; on Debian or Ubuntu install it as root with: apt install {PACKAGES}"
        )
    return found


def is_ours(pid: int, directory: Path, program: str) -> bool:
    """Whether the process runs this program and was started for this folder."""
    try:
        marks = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    except OSError:
        return False
    return runs_program(pid, program) and f"{MARK}={directory}".encode() in marks


def step_above(pid: int) -> int | None:
    """The slurmstepd that started a job's process. From 23.11 on its environment cannot be read: it writes its title
    over it."""
    try:
        parent = int(Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[1])
    except (OSError, ValueError):
        return None
    return parent if runs_program(parent, "slurmstepd") else None


def runs_program(pid: int, program: str) -> bool:
    """Whether the process runs a program whose name begins so (Debian calls some ``slurmd-wlm``)."""
    try:
        return Path(f"/proc/{pid}/exe").readlink().name.startswith(program)
    except OSError:
        return False
