"""Selection of a backend: the one that serves this machine, and the one that runs the current process as a job."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from hpc_agent.clock import Clock
from hpc_agent.config.settings import HpcSettings
from hpc_agent.errors import SchedulerUnavailableError
from hpc_agent.schedulers import registry
from hpc_agent.schedulers.base import (
    Backend,
    CurrentJobClient,
    JobOrigin,
    JobSteps,
    JobVariables,
    NullCurrentJob,
    Scheduler,
    Share,
)

if TYPE_CHECKING:
    from hpc_agent.schedulers.inspector import JobInspector


def every() -> Iterator[Backend]:
    """The batch systems in the order of the registry, then this machine, then pilots, which run inside of others."""
    yield from map(registry.load, (*registry.BACKENDS, registry.PILOTS))


def choose(settings: HpcSettings) -> Backend:
    """The backend that the settings name; ``auto``: the first one that is installed."""
    if settings.scheduler == "auto":
        return next(backend for backend in every() if backend.is_installed())
    backend: Backend = registry.load(settings.scheduler)
    return backend


def create(
    settings: HpcSettings, clock: Clock, *, share: Share | None = None, timeout: float | None = None
) -> Scheduler:
    """As ``Backend.create``."""
    return choose(settings).create(settings, clock, share=share, timeout=timeout)


def with_pilots(scheduler: Scheduler, settings: HpcSettings, clock: Clock) -> Scheduler:
    """The scheduler, with the pilots in front of it where a queue has them, or once had."""
    if not _has_pilots(settings):
        return scheduler
    from hpc_agent.schedulers.pilots.scheduler import PilotScheduler

    return PilotScheduler(scheduler, settings, clock)


def inspector(settings: HpcSettings, clock: Clock) -> JobInspector:
    """As ``Backend.inspector``, with the tasks in pilots."""
    own: JobInspector = choose(settings).inspector(settings, clock)
    scheduler = with_pilots(own.scheduler, settings, clock)
    if scheduler is own.scheduler:
        return own
    from hpc_agent.schedulers.pilots.pilot_inspector import PilotInspector
    from hpc_agent.schedulers.pilots.scheduler import PilotScheduler

    assert isinstance(scheduler, PilotScheduler)
    return PilotInspector(own, scheduler, clock)


def _has_pilots(settings: HpcSettings) -> bool:
    return any(queue.mode == "pilot" for queue in settings.queues.values()) or settings.pilots.is_dir()


def describe(scheduler: Scheduler) -> JobOrigin:
    """What serves the jobs, also where it does not answer now."""
    try:
        return scheduler.about()
    except SchedulerUnavailableError as error:
        return JobOrigin(f"{scheduler.name}, which does not answer", (str(error),))


def job_variables(environ: Mapping[str, str] = os.environ) -> JobVariables | None:
    """What the environment says of the job that a process is in; None outside of jobs."""
    return next(filter(None, (backend.job_variables(environ) for backend in every())), None)


def current_job(environ: Mapping[str, str] = os.environ) -> CurrentJobClient:
    """The job that this process is in, to ask the scheduler about it."""
    found = job_variables(environ)
    if found is None:
        return NullCurrentJob()
    client: CurrentJobClient = registry.load(found.backend).current_job(found.job, environ)
    return client


def time_limit_in(script: str) -> float | None:
    """Seconds that the script of the job that this process is in asks for, as ``Backend.time_limit_in``."""
    found = job_variables()
    limit: float | None = registry.load(found.backend).time_limit_in(script) if found else None
    return limit


def job_prefixes() -> tuple[str, ...]:
    """What the names of variables begin with that a job's own programs may read, of all backends."""
    return tuple(prefix for backend in every() for prefix in backend.job_prefixes)


def job_launch_failure(output: str) -> str:
    """As ``Backend.job_launch_failure``, of any backend: a run directory does not say which one ran it."""
    return next(filter(None, (backend.job_launch_failure(output) for backend in every())), "")


def job_steps(settings: HpcSettings, environ: Mapping[str, str] = os.environ) -> JobSteps | None:
    """Steps of the job that this process is in; None outside of jobs, and where a job has one process only."""
    found = job_variables(environ)
    return registry.load(found.backend).job_steps(settings, environ) if found else None
