"""This machine as a backend, for those without a batch system."""

from __future__ import annotations

import socket
from collections.abc import Iterable, Mapping

from hpc_agent.clock import Clock
from hpc_agent.config.settings import HpcSettings
from hpc_agent.domain.ids import JobId
from hpc_agent.schedulers.base import (
    Backend,
    JobVariables,
    Scheduler,
    ScriptLanguage,
    Share,
)
from hpc_agent.schedulers.local.settings import LocalSettings

JOB_ID = "HPC_AGENT_JOB_ID"
"""Set by the supervisor of a job."""


class LocalBackend(Backend):
    """See ``schedulers.base.Backend``."""

    name = "local"
    is_batch_system = False

    def is_installed(self) -> bool:
        return True

    def create(
        self, settings: HpcSettings, clock: Clock, *, share: Share | None = None, timeout: float | None = None
    ) -> Scheduler:
        from hpc_agent.schedulers.local.scheduler import LocalScheduler

        # The root may be shared by several machines; processes are not.
        folder = settings.root / "local" / socket.gethostname()
        # A task gets term_grace to end; its agent needs a moment more to report.
        grace = settings.term_grace + 10
        return LocalScheduler(
            settings.backend_settings(LocalSettings), folder, clock, cluster=settings.cluster, grace=grace, share=share
        )

    def script(self, settings: HpcSettings) -> ScriptLanguage:
        """Slurm's: a queue's template serves here too, where its directives are comments."""
        from hpc_agent.schedulers import registry

        language: ScriptLanguage = registry.load("slurm").script(settings)
        return language

    def job_variables(self, environ: Mapping[str, str]) -> JobVariables | None:
        job = environ.get(JOB_ID)
        return JobVariables(self.name, JobId(job), f"job:{job}") if job else None

    def foreign(self, environ: Mapping[str, str]) -> Iterable[str]:
        return [JOB_ID]


BACKEND = LocalBackend()
