"""Flags of ``daemon`` as values: checked against each other, and which of them identify a daemon."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path

import msgspec
from msgspec.structs import asdict, fields, replace

from hpc_agent.cli.shared_options import Shared, docker_configuration, git_flags
from hpc_agent.config.load import Configuration
from hpc_agent.config.settings import AllSettings
from hpc_agent.daemon.options import DaemonOptions
from hpc_agent.domain.capacity import GpuRange, parse_allocation
from hpc_agent.domain.gpu_ids import NONE
from hpc_agent.errors import InputError
from hpc_agent.logs import EventLog
from hpc_agent.struct_types import decodable
from hpc_agent.submission.glue_template import ContainerLaunch, uses_container_directives

log = EventLog("daemon")

_NOT_IDENTIFYING = frozenset(
    {"foreground", "detached", "once", "stop", "status", "create_queue", "git_pass", "force_current_version"}
)
"""Flags that do not distinguish daemons, or are secret."""


class DaemonFlags(msgspec.Struct, frozen=True, dict=True):
    """As click gives them: None and False are flags that were not given."""

    queues: tuple[str, ...] | None
    create_queue: bool
    order_fairness: bool
    polling_interval: float | None
    foreground: bool
    detached: bool
    once: bool
    stop: tuple[str, ...] | None
    status: bool
    services_mode: int | None
    dynamic_gpus: bool
    uptime: tuple[str, ...] | None
    downtime: tuple[str, ...] | None
    child_report_tags: tuple[str, ...] | None
    use_owner_token: bool
    standalone_mode: bool
    template_files: tuple[str, ...] | None
    singularity_mode: bool
    srun_delegation: bool
    force_current_version: bool
    docker: tuple[str, ...] | None
    optimize: int
    git_user: str | None
    git_pass: str | None
    log_level: str
    gpus: str | None
    cpu_only: bool

    @classmethod
    def recorded(cls, record: Mapping[str, object] | None) -> DaemonFlags:
        """The flags that a daemon was started with (``given``); one that was not given, or that an older or newer
        version recorded otherwise, is as if it was not."""
        defaults: dict[str, object] = {
            field.name: {bool: False, int: 0, str: "INFO"}.get(field.type) for field in fields(cls)
        }
        found = msgspec.convert(defaults, decodable(cls))
        for name in defaults.keys() & (record or {}).keys():
            try:
                found = msgspec.convert({**asdict(found), name: (record or {})[name]}, decodable(cls))
            except msgspec.ValidationError as error:
                log.warning("daemon.flag_not_understood", flag=name, error=error)
        return found

    def check(self) -> None:
        """
        Raises:
            InputError: some contradict each other.
        """
        if self.services is not None and self.dynamic_gpus:
            raise InputError("--services-mode runs tasks without GPUs, --dynamic-gpus with them: give one of the two")
        if self.dynamic_gpus and self.cpu_only:
            raise InputError("--dynamic-gpus assigns GPUs, --cpu-only hides them: give one of the two")
        if self.detached and (self.foreground or self.once):
            raise InputError("--detached runs in the background: it excludes --foreground and --once")
        if self.dynamic_gpus and not self.queues:
            raise InputError("--dynamic-gpus needs --queue, with the GPUs of each queue's tasks: --queue two=2 one=1")
        self._check_templates()

    def _check_templates(self) -> None:
        if self.singularity_mode and self.srun_delegation:
            raise InputError("--singularity-mode and --srun-delegation are two ways to start a container: give one")
        if self.docker is not None and self.launch:
            raise InputError("--docker runs containers without a template's help: give it or --singularity-mode")
        files, queues = self.template_files or (), self.queues or ()
        if files and not queues:
            raise InputError("--template-files needs --queue: the n-th template is for the n-th queue")
        if len(files) > 1 and len(files) != len(queues):
            raise InputError(
                f"--template-files names {len(files)} templates and --queue {len(queues)} queues: the n-th template "
                "is for the n-th queue, a single one for all"
            )
        for file in files:
            self._read(file)

    def _read(self, file: str) -> str:
        try:
            return Path(file).expanduser().read_text(encoding="utf-8")
        except OSError as error:
            raise InputError(f"--template-files names {file}, which cannot be read: {error.strerror}") from error
        except UnicodeError as error:
            raise InputError(f"--template-files names {file}, which is not a text in UTF-8") from error

    @property
    def launch(self) -> ContainerLaunch | None:
        """What templates start containers with."""
        if self.singularity_mode:
            return ContainerLaunch.SINGULARITY
        return ContainerLaunch.SRUN if self.srun_delegation else None

    def template_of(self) -> dict[str, str]:
        """The templates by the names that the queues were given with."""
        files = [str(Path(file).expanduser().absolute()) for file in self.template_files or ()]
        named = [queue for queue, _ in self.allocations]
        return dict(zip(named, files * len(named) if len(files) == 1 else files, strict=False))

    def _runtime(self) -> str | None:
        """The container runtime that the templates need; None leaves the configuration's."""
        if self.launch is None and any(
            uses_container_directives(self._read(file), "#SBATCH") for file in self.template_files or ()
        ):
            return ContainerLaunch.SRUN.value
        return self.launch.value if self.launch else None

    @property
    def services(self) -> int | None:
        """0: any number."""
        if self.services_mode is None:
            return None
        return max(self.services_mode, 0)

    @cached_property
    def allocations(self) -> list[tuple[str, GpuRange | None]]:
        """The queues as they were named, with the GPUs of their tasks where --dynamic-gpus is given."""
        if not self.dynamic_gpus:
            return [(queue, None) for queue in self.queues or ()]
        return [*map(parse_allocation, self.queues or ())]

    def configuration(self, shared: Shared) -> Configuration:
        """Everything configured, with these flags on top."""
        return docker_configuration(
            shared,
            self.docker,
            {
                **git_flags(self.git_user, self.git_pass),
                "hpc.poll_interval": self.polling_interval,
                "hpc.container.runtime": self._runtime(),
                "agent.uptime": None if self.uptime is None else list(self.uptime),
                "agent.downtime": None if self.downtime is None else list(self.downtime),
            },
        )

    def options(
        self,
        settings: AllSettings,
        *,
        batch_system: str,
        dynamic: Mapping[str, GpuRange] | None = None,
        templates: Mapping[str, str] | None = None,
    ) -> DaemonOptions:
        """``batch_system``: as in ``DaemonOptions``; ``dynamic`` and ``templates``: by the queues' names on the
        server."""
        hidden = self.cpu_only or settings.agent.cpu_only or self.services is not None
        return DaemonOptions(
            batch_system=batch_system,
            gpus=NONE if hidden else self.gpus,
            dynamic=dynamic,
            services=self.services,
            docker=self.docker is not None,
            optimize=self.optimize,
            log_level=self.log_level,
            tags=self.child_report_tags or (),
            standalone=self.standalone_mode,
            templates=templates,
            launch=self.launch,
        )

    def from_anywhere(self) -> DaemonFlags:
        """The same flags for a process in another folder."""
        if self.template_files is None:
            return self
        files = (str(Path(file).expanduser().absolute()) for file in self.template_files)
        return replace(self, template_files=tuple(files))

    def given(self) -> dict[str, object]:
        """The flags that were given, as JSON has them: a daemon's record keeps them, ``--stop`` looks for them."""
        values = {field.name: getattr(self, field.name) for field in fields(self) if field.name not in _NOT_IDENTIFYING}
        if values["log_level"] == "INFO":
            del values["log_level"]
        return {
            name: list(value) if isinstance(value, tuple) else value
            for name, value in values.items()
            if value is not None and value is not False and not (name == "optimize" and value == 0)
        }
