"""Steps of the current job: srun's arguments, the job's nodes, and which rank failed first."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import cached_property

from hpc_agent.errors import ProcessError, SchedulerUnavailableError
from hpc_agent.process import programs
from hpc_agent.schedulers.base import RankFailure, RankVariables
from hpc_agent.schedulers.slurm.commands import for_queries
from hpc_agent.schedulers.slurm.settings import SlurmSettings
from hpc_agent.schedulers.slurm.versions import GPUS_OVERLAP_SINCE, parse_version

_TIMEOUT_S = 30.0
_EXITED = re.compile(r"^srun: error: (\S+): tasks? ([0-9]+)[0-9,-]*: Exited with exit code ([0-9]+)$", re.MULTILINE)
_KILLED = re.compile(
    r"^srun: error: (\S+): tasks? ([0-9]+)[0-9,-]*: ([A-Z][A-Za-z ]+?)(?: \(core dumped\))?$", re.MULTILINE
)
_NOT_LAUNCHED = re.compile(r"^srun: error: Task launch for \S+ failed on node (\S+): (.+)$", re.MULTILINE)
_SIGTERM = re.compile(
    r"^(?:(?:slurmstepd-\S+:|\[\S+\]) error: \*\*\* STEP \S+ ON (\S+) CANCELLED AT \S+(?: DUE to SIGNAL \w+)? \*\*\*"
    r"|srun: error: (\S+): tasks? [0-9,-]+: Terminated)$",
    re.MULTILINE,
)
_SIGNALS = {
    "Killed": 9,
    "Out Of Memory": 9,
    "Segmentation fault": 11,
    "Aborted": 6,
    "Bus error": 7,
    "Floating point exception": 8,
}
"""Words of strsignal(3), and srun's own for a process that the kernel has ended; ``Terminated`` is what the others of a
failed step show."""
_OF_ONE_PROCESS = re.compile(
    r"(SLURM_(PROCID|LOCALID|NODEID|STEP\w*|NTASKS\w*|NPROCS|NNODES|TASKS_PER_NODE|TASK_PID|GTIDS|SRUN_\w+|"
    r"CPU_BIND\w*|DISTRIBUTION|LAUNCH_NODE_IPADDR|UMASK|MPI_TYPE|OVERCOMMIT|KILL_BAD_EXIT)$|PMIX?_)"
)


class SlurmJobSteps:
    """See ``schedulers.base.JobSteps``."""

    variables = RankVariables("SLURMD_NODENAME", "SLURM_PROCID", "SLURM_LOCALID")

    def __init__(self, site: SlurmSettings, environ: Mapping[str, str]) -> None:
        self._site = site
        self._environ = environ

    def hosts(self) -> Sequence[str]:
        nodes = self._environ.get("SLURM_JOB_NODELIST", "")
        try:
            answer = programs.run(
                ["scontrol", "show", "hostnames", nodes], timeout=_TIMEOUT_S, env=for_queries(self._environ)
            )
        except ProcessError as error:
            raise SchedulerUnavailableError(f"the job's nodes are not known: {error}") from error
        if not answer.ok or not answer.stdout.split():
            raise SchedulerUnavailableError(f"the job's nodes are not known: {answer.last_words}")
        return answer.stdout.split()

    def on_each_node(self, argv: Sequence[str], nodes: int) -> list[str]:
        # --overlap and no memory of its own: it leaves the job's CPUs, GPUs and memory to the ranks.
        return [
            *("srun", f"--nodes={nodes}", f"--ntasks={nodes}", "--ntasks-per-node=1", "--overlap", "--mem=0"),
            *("--kill-on-bad-exit=1", "--mpi=none", *([] if self._shares_gpus else ["--gres=none"]), *argv),
        ]

    @cached_property
    def _shares_gpus(self) -> bool:
        """Whether steps with --overlap share GPUs as well: from 21.08 on. Before that the node agents get none, and
        cannot tell how busy those of the ranks are."""
        try:
            answer = programs.run(["srun", "--version"], timeout=_TIMEOUT_S, env=for_queries(self._environ))
        except ProcessError:
            return True
        version = parse_version(answer.stdout.rpartition(" ")[2])
        return version is None or version.release >= GPUS_OVERLAP_SINCE

    def ranks(self, argv: Sequence[str], nodes: int, per_node: int) -> list[str]:
        cpus = int(self._environ.get("SLURM_CPUS_PER_TASK") or 1)
        # From 22.05 on srun does not take the job's CPUs per task by itself (docs/internals/slurm.md#versions).
        share = [f"--cpus-per-task={cpus // per_node}"] if cpus >= per_node else ["--cpus-per-task=1", "--overcommit"]
        return [
            *("srun", f"--nodes={nodes}", f"--ntasks={nodes * per_node}", f"--ntasks-per-node={per_node}"),
            *("--distribution=block", *share, "--overlap", "--mem=0", "--kill-on-bad-exit=1"),
            *(*self._site.srun_args, *argv),
        ]

    def first_failure(self, text: str) -> RankFailure | None:
        found = [
            *((match.start(), RankFailure(match[1], int(match[2]), int(match[3]))) for match in _EXITED.finditer(text)),
            *(
                (match.start(), RankFailure(match[1], int(match[2]), -_SIGNALS[match[3]]))
                for match in _KILLED.finditer(text)
                if match[3] in _SIGNALS
            ),
        ]
        return min(found, key=lambda pair: pair[0])[1] if found else None

    def scheduler_failure(self, text: str) -> str:
        match = _NOT_LAUNCHED.search(text)
        return f"Slurm could not start the ranks on {match[1]}: {match[2]}" if match else self._late_request(text)

    def _late_request(self, text: str) -> str:
        """slurmctld repeats a request to end a step where a node did not answer; once the job has been started again
        there, a step of the same number gets it (docs/internals/slurm.md#steps-of-an-earlier-start)."""
        match = _SIGTERM.search(text)
        started_again = self._environ.get("SLURM_RESTART_COUNT", "0") != "0"
        if match is None or not started_again or self.first_failure(text[: match.start()]):
            return ""
        return (
            f"Slurm ended the step of the task's processes on {match[1] or match[2]} while its job went on: perhaps by "
            "a request for the start of the job before, whose steps had the same numbers"
        )

    def of_one_process(self, environ: Mapping[str, str]) -> Sequence[str]:
        return [name for name in environ if _OF_ONE_PROCESS.match(name)]
