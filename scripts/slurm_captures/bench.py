"""A cluster on which answers are captured: jobs by telling names, commands as the product runs them, files."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta, timezone
from pathlib import Path

from slurm_cluster.errors import ClusterError
from slurm_cluster.layout import Cluster
from slurm_cluster.lifecycle import wait_until

from hpc_agent.domain.ids import JobId
from hpc_agent.domain.resources import Resources
from hpc_agent.process import programs
from hpc_agent.schedulers.base import SubmitRequest
from hpc_agent.schedulers.job_environment import scrubbed
from hpc_agent.schedulers.slurm import commands
from hpc_agent.schedulers.slurm.commands import for_queries

DELIMITER = "|captured|"
USER = "0"
"""Whose jobs squeue is asked for. Clusters are started, and answers captured, as root."""
OUR_JOB = "clearml_task_0123456789abcdef0123456789abcdef_deadbeef"
UNKNOWN_JOBS = (JobId("99998"), JobId("99999"))
_PROBE = Path(__file__).with_name("probe.py")
_ROOT = Path(__file__).parents[2]


class Bench:
    def __init__(self, cluster: Cluster, work: Path, answers: Path) -> None:
        self.cluster = cluster
        self.work = work
        self._answers = answers
        self.jobs: dict[str, JobId] = {}
        """What was submitted, by name."""
        self.since = datetime.now(timezone.utc) - timedelta(hours=1)
        for folder in (work, answers):
            folder.mkdir()

    # ------------------------------------------------------------ jobs

    def script(self, name: str, *options: str, body: str = "sleep 300") -> SubmitRequest:
        """A job's script as the product would have it, not yet submitted."""
        path = self.work / f"{len(list(self.work.iterdir()))}.sh"
        path.write_text("\n".join(["#!/bin/bash", *(f"#SBATCH {option}" for option in options), body, ""]))
        return SubmitRequest(path, name, self.work, self.work / "job.out", Resources())

    def submit(self, name: str, *options: str, body: str = "sleep 300") -> JobId:
        """
        Raises:
            ClusterError: sbatch refused it.
        """
        argv = commands.sbatch(self.script(name, *options, body=body))
        answer = programs.run(argv, timeout=150, env=self.job_environ, cwd=self.work)
        if not answer.ok:
            raise ClusterError(f"job {name!r} was refused: {answer.last_words}")
        self.jobs[name] = JobId(answer.stdout.strip())
        return self.jobs[name]

    def submit_probe(self, name: str, *options: str) -> JobId:
        """A job that asks Slurm about itself when it starts and when it gets SIGTERM, see ``probe``."""
        argv = (sys.executable, str(_PROBE), str(self.work / f"probe-{name}"), DELIMITER)
        command = f"PYTHONPATH={shlex.quote(str(_ROOT))} exec {shlex.join(argv)}"
        return self.submit(name, *options, body=command)

    def own_answer(self, probe: str, moment: str, name: str) -> None:
        """Keep what a probe was answered, at its ``start`` or ``end`` or after a ``restart``."""
        path = self.work / f"probe-{probe}.{moment}.json"
        self.wait_for(path.exists, f"{path.name} is there")
        self.keep(name, programs.CompletedProcess(**json.loads(path.read_text())))

    def state(self, name: str) -> str:
        """Slurm's word for a job, as squeue has it; empty if it has none."""
        return self.cluster.command(
            "squeue", "--noheader", "--states=all", f"--jobs={self.jobs[name]},99999", "--Format=State:24"
        ).stdout.strip()

    def wait_for_state(self, state: str, *names: str, seconds: float = 60) -> None:
        for name in names:
            self.wait_for(lambda name=name: self.state(name) == state, f"{name} is {state}", seconds)  # type: ignore[misc]

    def wait_for(self, condition: Callable[[], bool], what: str, seconds: float = 60) -> None:
        """
        Raises:
            ClusterError: it is still not so after some time.
        """
        if not wait_until(condition, seconds):
            states = {name: self.state(name) for name in self.jobs}
            raise ClusterError(f"after {seconds:g} s it is still not so that {what}; jobs: {states}")

    # ------------------------------------------------------------ answers

    @property
    def job_environ(self) -> dict[str, str]:
        return scrubbed(self.cluster.env)

    def ask(
        self, name: str, argv: Sequence[str], environ: Mapping[str, str] | None = None
    ) -> programs.CompletedProcess:
        """Run a query as the product does, and keep what it printed."""
        answer = programs.run(argv, timeout=150, env=for_queries(environ or self.cluster.env))
        self.keep(name, answer)
        return answer

    def ask_sbatch(self, name: str, request: SubmitRequest, *options: str) -> programs.CompletedProcess:
        argv = commands.sbatch(request, options)
        answer = programs.run(argv, timeout=300, env=self.job_environ, cwd=self.work)
        self.keep(name, answer)
        return answer

    def keep(self, name: str, answer: programs.CompletedProcess) -> None:
        fields = {
            "argv": answer.argv,
            "returncode": answer.returncode,
            "stdout": answer.stdout,
            "stderr": answer.stderr,
        }
        text = json.dumps(fields, indent=2, ensure_ascii=True)
        for place, name in self._places().items():
            text = text.replace(place, name)
        (self._answers / f"{name}.json").write_text(text + "\n")

    def _places(self) -> dict[str, str]:
        """Names of this machine, each with its replacement in the data."""
        return {str(self.cluster.dir): "/cluster", str(self.work): "/work", self.cluster.host: "localhost"}
