"""The site of a chaos run: a real Slurm cluster, a real server behind a proxy, and the daemon or agent that brings
tasks to jobs."""

from __future__ import annotations

import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Container, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path

from slurm_cluster.errors import ClusterError
from slurm_cluster.layout import Cluster, step_above
from slurm_cluster.lifecycle import accepts, answers, end, start_part

from faults.bench import Bench, environment, start_server
from faults.chaos_ledger import Job, read, read_ranks
from faults.chaos_rows import Row, expanded, task_of
from faults.troubled import troubled
from hpc_agent.domain.ids import QueueId, TaskId

QUEUES = {
    "again": "",
    # A job of its own for each start: the task goes back to the head of its queue.
    "back": 'template: "back.sbatch.j2"',
    "once": "max_restarts: 0",
}
"""By how a task goes on when its job was ended by the machinery."""

PILOTS = """mode: pilot, max_restarts: 20, resources { partition: main, time_limit: 10 }, pilot {
    resources { num_cpus: 2, memory_gb: 2, time_limit: 60 }, max_pilots: 3, idle_time: 5
}"""
"""Of the queue "again": its tasks on the partition main then run in pilots, the others have jobs of their own."""

SLURMD_TIMEOUT_S = 15
_CONF = """
include "{server}"
api {{ api_server: "{proxy}" }}
hpc {{
    scheduler: slurm
    root: "{folder}/hpc"
    scratch_dir: "{folder}/scratch"
    template_dirs: ["{folder}/templates"]
    term_grace: 3
    max_jobs: {max_jobs}
    lost_after: 120
    {arrays}
    resources {{ num_cpus: 1, memory_gb: 1, time_limit: "01:00:00" }}
    queues {{ {queues} }}
}}
"""
_ARRAYS = "envs.build_on: compute, slurm.array_size: 8"
"""Nothing is staged, so that tasks that come together are due in one pass."""
_QUEUE = '"{name}" {{ overrides {{ num_gpus {{ max: 4 }}, num_nodes {{}}, partition {{}} }}, {lines} }}\n'
_BACK = (
    '{% extends "base.sbatch.j2" %}\n{% block directives %}{{ super() }}\n#SBATCH --no-requeue\n{% endblock %}\n'
    "{% block gpus %}{% if resources.gpus %}\n#SBATCH --gres=gpu:{{ resources.gpus }}\n{% endif %}{% endblock %}\n"
)

_SBATCH = """#!/bin/sh
# In front of the real sbatch: a file `accepted` or `refused` next to this one spoils the next call.
if mv {folder}/accepted {folder}/accepted.$$ 2>/dev/null; then
    {sbatch} "$@" >{folder}/spoilt.$$ 2>&1 || {{ cat {folder}/spoilt.$$ >&2; exit 1; }}
    echo "accepted $*" >>{folder}/log
elif mv {folder}/refused {folder}/refused.$$ 2>/dev/null; then
    echo "refused $*" >>{folder}/log
else
    exec {sbatch} "$@"
fi
echo "sbatch: error: Batch job submission failed: Socket timed out on send/recv operation" >&2
exit 1
"""


_SLOWED = ("squeue", "sacct", "scancel", "scontrol", "sinfo")
_SLOW = """#!/bin/sh
# In front of the real program: takes up to two seconds more.
sleep "$({python} -c 'import random; print(2 * random.random() ** 2)')"
exec {program} "$@"
"""
_SLOW_ANSWER_S = 1.5


class Site:
    """``argv`` is the program that brings tasks from queues to jobs; the names of the queues follow it."""

    def __init__(
        self,
        folder: Path,
        cluster: Cluster,
        bench: Bench,
        argv: Sequence[str],
        max_jobs: int,
        *,
        slow: bool,
        arrays: bool = False,
        pilots: bool = False,
    ) -> None:
        """``pilots``: tasks of one queue run in pilots."""
        self.folder = folder
        self._lines = {**QUEUES, "again": PILOTS} if pilots else QUEUES
        self.cluster = cluster
        self.bench = bench
        self.server_lock = threading.Lock()
        """Held while the server is away."""
        self._argv = argv
        self._ports: dict[str, int] = json.loads((cluster.dir / "ports.json").read_text())
        self._daemons: list[subprocess.Popen[bytes]] = []
        self.ended_by_themselves = 0
        self._last: list[Row] = []
        self._jobs: dict[str, tuple[str, Job]] = {}
        self.spoilt = folder / "bin"
        self._write(max_jobs, slow=slow, arrays=arrays)
        self.queues = {name: bench.direct.queues.resolve(name, create=True) for name in QUEUES}
        self.env = environment(
            CLEARML_CONFIG_FILE=str(folder / "clearml.conf"),
            HOME=str(folder),
            SLURM_CONF=str(cluster.conf),
            PATH=os.pathsep.join((str(self.spoilt), os.environ["PATH"])),
        )

    def _write(self, max_jobs: int, *, slow: bool, arrays: bool) -> None:
        for name in ("bin", "templates", "ledgers"):
            (self.folder / name).mkdir(exist_ok=True)
        queues = "".join(_QUEUE.format(name=name, lines=lines) for name, lines in self._lines.items())
        words = {"server": self.bench.conf, "proxy": self.bench.proxy.url, "folder": self.folder}
        words["arrays"] = _ARRAYS if arrays else ""
        (self.folder / "clearml.conf").write_text(_CONF.format(queues=queues, max_jobs=max_jobs, **words))
        (self.folder / "templates" / "back.sbatch.j2").write_text(_BACK)
        sbatch = self.spoilt / "sbatch"
        sbatch.write_text(_SBATCH.format(folder=self.spoilt, sbatch=shutil.which("sbatch")))
        sbatch.chmod(0o755)
        for name in _SLOWED if slow else ():
            (self.spoilt / name).write_text(_SLOW.format(program=shutil.which(name), python=sys.executable))
            (self.spoilt / name).chmod(0o755)

    # ---------------------------------------------------------------- tasks

    def enqueue(self, name: str, job: Job) -> TaskId:
        properties = {"partition": job.partition, **({"num_gpus": "1"} if job.partition == "scavenge" else {})}
        if job.nodes > 1:
            properties["num_nodes"] = str(job.nodes)
        queue: QueueId = self.queues[job.queue]
        with self.server_lock:
            task = self.bench.task(name, queue, job.script(self.ledger(name)), **properties)
        self._jobs[task] = name, job
        return task

    def ledger(self, name: str) -> Path:
        return self.folder / "ledgers" / name

    def ahead_of(self, task: str) -> float:
        """Seconds that the task's process still has before it; 0 for one that does not run."""
        if task not in self._jobs:
            return 0.0
        name, job = self._jobs[task]
        starts = read(self.ledger(name))
        if not starts or starts[-1].ended_at is not None or time.time() - starts[-1].last_at > 2 * job.pause + 1:
            return 0.0
        return (job.lines - len(starts[-1].lines)) * job.pause

    def rank_of(self, task: str, choice: float) -> int | None:
        """Pid of a rank of a task that runs on many nodes, if all of its ranks have started and none has ended."""
        name, job = self._jobs[task]
        last = [starts[-1] for starts in read_ranks(self.ledger(name), job.nodes) if starts]
        if len(last) < job.nodes or len({(start.job, start.restart) for start in last}) > 1:
            return None
        chosen = last[int(choice * len(last))]
        return chosen.pid if all(start.ended_at is None for start in last) else None

    # ---------------------------------------------------------------- Slurm

    def slurm(self, *argv: str) -> subprocess.CompletedProcess[str]:
        return self.cluster.command(*argv, timeout=60)

    def rows(self) -> list[Row]:
        """The live jobs of tasks; as they were last seen, while slurmctld does not answer."""
        answer = self.slurm("squeue", "-h", "-r", "-o", "%A|%i|%T|%P|%N|%j")
        if answer.returncode == 0:
            listed = [line.split("|") for line in answer.stdout.splitlines()]
            rows = [self._row(*fields) for fields in listed]
            self._last = [row for row in rows if row is not None]
            self._last += self._rows_of_pilots({fields[0] for fields in listed})
        return self._last

    def _row(self, job: str, id: str, state: str, partition: str, node: str, name: str) -> Row | None:
        if name.startswith("clearml_array_"):
            index = id.partition("_")[2]
            members = self.members(name)
            if not index.isdigit() or int(index) >= len(members):
                return None
            # One that waits has no id of its own yet.
            job = id if state == "PENDING" else job
            return Row(members[int(index)], job, state, expanded(node), partition, id)
        if not name.startswith("clearml_task_"):
            return None
        return Row(task_of(name), job, state, expanded(node), partition)

    def members(self, array: str) -> list[str]:
        """The tasks of a job array, given by its name."""
        path = self.folder / "hpc" / "runs" / ".arrays" / array.removeprefix("clearml_array_") / "members"
        try:
            return [task_of(name) for name in path.read_text(encoding="utf-8").splitlines()]
        except OSError:
            return []

    @property
    def arrays(self) -> int:
        """Job arrays that were written so far."""
        return len(list((self.folder / "hpc" / "runs" / ".arrays").glob("*/members")))

    def _rows_of_pilots(self, live: Container[str]) -> list[Row]:
        """The tasks that run in pilots. ``live``: jobs that squeue lists."""
        found = []
        for path in (self.folder / "hpc" / "pilots").glob("*/open/*.claim"):
            # The pilot may be at it: what is gone has ended.
            with suppress(OSError, ValueError):
                claim = json.loads(path.read_text())
                name = json.loads(path.with_suffix(".task").read_text())["name"]
                if claim["pilot"] in live and not path.with_suffix(".end").exists():
                    found.append(Row(task_of(name), claim["pilot"], "RUNNING", claim["node"], "main", in_pilot=True))
        return found

    def pilot_process(self, job: str) -> int | None:
        """Pid of a pilot itself; None where no task names it any more."""
        for path in (self.folder / "hpc" / "pilots").glob("*/open/*.claim"):
            with suppress(OSError, ValueError):
                claim = json.loads(path.read_text())
                if claim["pilot"] == job:
                    return int(claim["process"]["pid"])
        return None

    def accounting(self) -> str:
        """How each start of each job ended, as ``chaos_judge.ended_by_slurm`` reads it; empty where there is no sacct.

        Raises:
            ClusterError: it does not answer.
        """
        if self.cluster.without_accounting:
            return ""
        program = ("env", "SLURM_TIME_FORMAT=%s", "sacct", "-a", "-D", "-X", "-P", "-n", "-S", "now-1days")
        deadline = time.monotonic() + 60
        while True:
            try:
                return self.cluster.checked(*program, "-o", "JobIDRaw,State,End,JobID")
            except ClusterError:
                if time.monotonic() > deadline:
                    raise
            time.sleep(2)

    def slurmd_log(self, node: str) -> str:
        return (self.cluster.dir / "log" / f"{node}.log").read_text(encoding="utf-8", errors="replace")

    def tune(self) -> None:
        """Nodes count as dead after half the time; and only urgent jobs preempt, which the ledger has."""
        text = self.cluster.conf.read_text()
        text = re.sub(r"SlurmdTimeout=\d+", f"SlurmdTimeout={SLURMD_TIMEOUT_S}", text)
        text = re.sub(r"(PartitionName=main .*PriorityTier=)\d+", r"\g<1>1", text)
        self.cluster.conf.write_text(text)
        self.cluster.checked("scontrol", "reconfigure")

    def stop_part(self, name: str, *, kill: bool = False) -> None:
        pid = self.cluster.pid(name)
        if pid is None:
            return
        if kill:
            os.kill(pid, signal.SIGKILL)
        else:
            end(pid)

    def start_part(self, name: str) -> None:
        port = self._ports[name]
        ping = partial(answers, self.cluster, port, "scontrol", "ping")
        start_part(self.cluster, name, ping if name == "slurmctld" else partial(accepts, port))

    def kill_jobs_on(self, node: str) -> None:
        """All that runs of jobs on a node: their processes, and slurmstepd above them."""
        for _ in range(3):
            pids = [int(path.name) for path in Path("/proc").iterdir() if path.name.isdigit()]
            jobs = [pid for pid in pids if self._runs_on(pid, node)]
            above = {step for pid in jobs if (step := step_above(pid))}
            # All at once: one that sees another die would still report it, which no dead node does.
            for number in (signal.SIGSTOP, signal.SIGKILL):
                for pid in (*above, *jobs):
                    with suppress(ProcessLookupError):
                        os.kill(pid, number)
            time.sleep(0.1)

    def _runs_on(self, pid: int, node: str) -> bool:
        try:
            environ = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
        except OSError:
            return False
        wanted = {f"SLURMD_NODENAME={node}".encode(), f"SLURM_CONF={self.cluster.conf}".encode()}
        return wanted <= set(environ)

    # ---------------------------------------------------------------- the program under test

    def start_daemon(self) -> None:
        with (self.folder / "daemon.log").open("ab") as log:
            child = subprocess.Popen([*self._argv, *QUEUES], env=self.env, cwd=self.folder, stdout=log, stderr=log)
        self._daemons.append(child)

    def kill_daemon(self) -> None:
        """The oldest of them."""
        child = self._daemons.pop(0)
        child.kill()
        child.wait()

    def revive_daemon(self) -> None:
        """As systemd does: one that could not start, because the server was away for long, is started again."""
        for child in list(self._daemons):
            if child.poll() is not None:
                self._daemons.remove(child)
                self.ended_by_themselves += 1
                self.start_daemon()

    def close(self) -> None:
        for child in self._daemons:
            child.kill()
            child.wait()
        self.slurm("scancel", f"--user={self.cluster.user}")


class ServerProcess:
    """A server that can be killed and started again on its port."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._process, self.url = start_server(folder)

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()
        assert self._process.stdout is not None
        self._process.stdout.close()

    def start(self) -> None:
        self._process, _ = start_server(self.folder, int(self.url.rpartition(":")[2]))


OURS = (
    *(sys.executable, "-m", "hpc_agent", "daemon", "--foreground", "--polling-interval", "1", "--order-fairness"),
    "--queue",
)
PEERS = (sys.executable, "-m", "faults.peers", "serve")


@contextmanager
def site(
    folder: Path,
    cluster: Cluster,
    argv: Sequence[str],
    max_jobs: int,
    *,
    slow: bool = False,
    arrays: bool = False,
    pilots: bool = False,
) -> Iterator[tuple[Site, ServerProcess]]:
    """``slow``: the program under test gets late answers from server and Slurm. ``pilots``: as ``Site``."""
    server = ServerProcess(folder / "server")
    try:
        with troubled(server.url) as proxy:
            if slow:
                proxy.delay = lambda _endpoint: random.random() ** 3 * _SLOW_ANSWER_S
            bench = Bench(folder, proxy, server.folder / "clearml.conf")
            built = Site(folder, cluster, bench, argv, max_jobs, slow=slow, arrays=arrays, pilots=pilots)
            try:
                built.tune()
                yield built, server
            finally:
                built.close()
    finally:
        server.kill()
