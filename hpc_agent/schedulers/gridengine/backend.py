"""Grid Engine as a backend: what the rest of the program may ask. A job has one node and is started once."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path

import msgspec

from hpc_agent.clock import Clock
from hpc_agent.config.settings import HpcSettings
from hpc_agent.domain.ids import JobId
from hpc_agent.domain.resources import Resources
from hpc_agent.errors import TemplateError
from hpc_agent.schedulers.base import Backend, JobVariables, Scheduler, ScriptLanguage, Share, UserCommands
from hpc_agent.schedulers.gridengine.scheduler import GridEngineScheduler
from hpc_agent.schedulers.gridengine.settings import GridEngineSettings

_OF_A_JOB = re.compile(
    r"SGE_(TASK_|O_|STD|JOB_SPOOL|BINARY_PATH|CWD|ACCOUNT)|(JOB_(ID|NAME|SCRIPT)|QUEUE|PE|PE_HOSTFILE|N(SLOTS|HOSTS|QUEUES)"
    r"|RESTARTED|REQUEST|REQNAME|ARC|ENVIRONMENT)$"
)


class GridEngineScript:
    """See ``schedulers.base.ScriptLanguage``."""

    prefix = "#$"
    templates = Path(__file__).parent / "templates"
    default_template = "task.sge.j2"
    staging_template = "stage.sge.j2"
    pilot_template = ""
    probe_template = "probe.sge.j2"

    def __init__(self, site: GridEngineSettings) -> None:
        self._site = site

    def directive(self, text: str) -> str:
        if not re.fullmatch(r"[A-Za-z0-9@%+=:,./_-]+", text):
            raise TemplateError(f'"{text}" cannot be an option of qsub in a script: use letters, digits and @%+=:,./_-')
        return text

    def variables(self, resources: Resources, signal_ahead: float, requeue: bool) -> Mapping[str, object]:
        """``requests``: options of qsub."""
        if resources.nodes > 1 or resources.qos:
            raise TemplateError("Grid Engine jobs have one node and no QOS: unset num_nodes and qos")
        limit = 60 * (resources.time_minutes or 0)
        slots = resources.cpus or 1
        amounts = {
            self._site.gpu_resource: str(resources.gpus or ""),
            "h_rt": str(limit or ""),
            "s_rt": str(round(limit - signal_ahead)) if limit and signal_ahead else "",
        }
        if self._site.memory_resource and resources.memory_mb:
            amounts[self._site.memory_resource] = f"{max(resources.memory_mb // slots, 1)}M"
        options = [f"-l {name}={value}" for name, value in amounts.items() if value]
        options += [f"-pe {self._site.parallel_environment} {slots}"] if slots > 1 else []
        names = {"-q": resources.partition, "-P": resources.account, "-ar": resources.reservation}
        options += [f"{option} {self.directive(name)}" for option, name in names.items() if name]
        options += [f"-l {self.directive(name)}" for name in [resources.constraint, resources.gpu_type] if name]
        options += [f"-l h=!{self.directive(host)}" for host in resources.exclude.split(",") if host]
        return {"requests": options, "signal": bool(amounts["s_rt"])}


class GridEngineBackend(Backend):
    """See ``schedulers.base.Backend``."""

    name = "gridengine"
    is_batch_system = True
    job_prefixes = ("SGE_", "JOB_ID", "NSLOTS", "PE_HOSTFILE")
    command_variables = ("SGE_ROOT", "SGE_CELL")
    user_commands = UserCommands(is_up="qstat -f", own_jobs="qstat", accounts="qconf -sprjl", partitions="qconf -sql")

    def is_installed(self) -> bool:
        # Other batch systems have a qsub too.
        return "SGE_ROOT" in os.environ and shutil.which("qsub") is not None

    def create(
        self, settings: HpcSettings, clock: Clock, *, share: Share | None = None, timeout: float | None = None
    ) -> Scheduler:
        own = settings.backend_settings(GridEngineSettings)
        own = msgspec.structs.replace(own, command_timeout=min(timeout or own.command_timeout, own.command_timeout))
        return GridEngineScheduler(own, clock, settings.cluster, settings.term_grace + 10, os.environ)

    def script(self, settings: HpcSettings) -> ScriptLanguage:
        return GridEngineScript(settings.backend_settings(GridEngineSettings))

    def job_variables(self, environ: Mapping[str, str]) -> JobVariables | None:
        job = environ.get("JOB_ID")
        if not job or "SGE_JOB_SPOOL_DIR" not in environ:
            return None
        return JobVariables(self.name, JobId(job), f"gridengine:{job}", cluster=environ.get("SGE_CLUSTER_NAME", ""))

    def foreign(self, environ: Mapping[str, str]) -> Iterable[str]:
        return [name for name in environ if _OF_A_JOB.match(name)] if self.job_variables(environ) else []


BACKEND = GridEngineBackend()
