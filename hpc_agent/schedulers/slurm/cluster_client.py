"""Asks Slurm about the cluster as a whole, for people: what is free, when a job would start, what the site is like."""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable, Mapping, Sequence

from hpc_agent.domain.resources import Resources
from hpc_agent.errors import SchedulerUnavailableError
from hpc_agent.schedulers.cluster import ClusterFacts, ClusterState, ExpectedStart, UserLimits
from hpc_agent.schedulers.queries import printed, run
from hpc_agent.schedulers.slurm import cluster_answers as answers
from hpc_agent.schedulers.slurm.answers import parse_config
from hpc_agent.schedulers.slurm.commands import for_queries, sbatch_test, show_config
from hpc_agent.schedulers.slurm.delimited_table import new_delimiter
from hpc_agent.schedulers.slurm.settings import SlurmSettings


class SlurmClusterClient:
    """See ``schedulers.cluster.ClusterClient``."""

    def __init__(self, settings: SlurmSettings, *, cluster: str = "", environ: Mapping[str, str] | None = None) -> None:
        """``environ`` is our own when not given."""
        self._settings = settings
        self._cluster = cluster
        # Times as numbers are read in any time zone; nothing is submitted that would inherit this.
        self._environ = for_queries(os.environ if environ is None else environ)

    def ask(self, argv: Sequence[str]) -> str:
        """What a query printed.

        Raises:
            SchedulerUnavailableError: no usable answer.
        """
        return printed(run(argv, self._environ, self._settings.command_timeout))

    def discover(self, report: Callable[[str], None], partition: str = "", account: str = "") -> ClusterFacts:
        from hpc_agent.schedulers.slurm.discovery import discover

        return discover(self, self._settings, report, cluster=self._cluster, partition=partition, account=account)

    def state(self) -> ClusterState:
        delimiter = new_delimiter()
        answer = self.ask(answers.sinfo(delimiter))
        try:
            return answers.parse_sinfo(answer, delimiter)
        except ValueError as error:
            raise SchedulerUnavailableError(f"sinfo printed what cannot be read: {error}") from error

    def expected_start(self, resources: Resources) -> ExpectedStart:
        return self.try_out(answers.resource_options(resources, self._settings))

    def try_out(self, options: Sequence[str]) -> ExpectedStart:
        """What ``sbatch --test-only`` says of a job with these options.

        Raises:
            SchedulerUnavailableError: no usable answer.
        """
        words = ["--job-name=hpc-agent-test", "--output=/dev/null", *options, "--wrap=true"]
        argv = sbatch_test(words, self._settings.sbatch_args)
        answer = run(argv, self._environ, self._settings.command_timeout)
        return answers.parse_test_only(answer.returncode, answer.stdout, answer.stderr)

    def user_limits(self) -> UserLimits:
        from hpc_agent.schedulers.slurm.discovery import user_limits

        config = parse_config(self.ask(show_config()))
        if not config.get("AccountingStorageType", "").endswith("slurmdbd"):
            return UserLimits()
        return user_limits(self, self._cluster or config.get("ClusterName", ""))

    def periodic_job(self, command: str, resources: Resources) -> str:
        named = {"partition": resources.partition, "account": resources.account, "qos": resources.qos}
        options = [
            "--job-name=hpc-agent-daemon",
            "--time=00:10:00",
            *(f"--{name}={shlex.quote(value)}" for name, value in named.items() if value),
        ]
        return "\n".join([*(f"#SCRON {option}" for option in options), f"*/5 * * * * {command}"])
