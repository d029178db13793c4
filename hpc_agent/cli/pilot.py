"""``hpc-agent pilot``: runs many tasks in this job; the script of a pilot calls it."""

from __future__ import annotations

import os
import socket
from contextlib import suppress
from datetime import datetime
from pathlib import Path

import click

from hpc_agent.cli.shared_options import HELP, Shared, pass_shared

_UNCOUNTED_MB = 1 << 40
"""Of a pilot that asked for no memory in particular: what there is of it is not known."""


@click.command(context_settings=HELP, hidden=True)
@click.option(
    "--board", required=True, type=click.Path(path_type=Path), help="Folder of the tasks that pilots may run."
)
@click.option(
    "--news", required=True, type=click.Path(path_type=Path), help="Folder whose files start a pass of the daemon."
)
@click.option("--queue", required=True, help="Name of the queue whose tasks it runs.")
@click.option("--cluster", required=True, help="Name of the cluster.")
@click.option("--since", required=True, help="A time before its submission, in ISO form.")
@click.option("--cpus", required=True, type=int, help="CPUs for its tasks.")
@click.option("--memory", required=True, type=int, help="MiB for its tasks; 0: not counted.")
@click.option("--gpus", required=True, type=int, help="GPUs for its tasks.")
@click.option("--time-limit", required=True, type=float, help="Seconds that it may run.")
@click.option("--task-limit", required=True, type=float, help="Usual time limit of a task in seconds.")
@click.option("--idle-time", required=True, type=float, help="Seconds without a task after which it ends.")
@click.option("--grace", required=True, type=float, help="Seconds from SIGTERM to SIGKILL of a task.")
@pass_shared
def command(
    shared: Shared,
    board: Path,
    news: Path,
    queue: str,
    cluster: str,
    since: str,
    cpus: int,
    memory: int,
    gpus: int,
    time_limit: float,
    task_limit: float,
    idle_time: float,
    grace: float,
) -> None:
    """Run tasks of a queue in this job, one after the other and side by side. The daemon starts it."""
    from hpc_agent.clock import SYSTEM
    from hpc_agent.domain.gpu_ids import visible_gpus
    from hpc_agent.domain.pilot_slots import Slot
    from hpc_agent.errors import InputError
    from hpc_agent.file_records import ensure_directory
    from hpc_agent.process_id import process_id
    from hpc_agent.schedulers import backends, registry
    from hpc_agent.schedulers.job_environment import scrubbed
    from hpc_agent.schedulers.pilots.allocation import PilotAllocation, RemainingTime, TimeLimits
    from hpc_agent.schedulers.pilots.board import PilotClaim, TaskBoard
    from hpc_agent.schedulers.pilots.engine import PilotEngine
    from hpc_agent.schedulers.pilots.pilot_options import PilotOptions

    shared.start_log("INFO")
    job = backends.job_variables()
    if job is None:
        raise InputError("hpc-agent pilot runs in a job that the daemon submitted, and this process is in none")
    node = job.node_name or socket.gethostname()
    started = datetime.fromisoformat(since)
    claim = PilotClaim(started, job.job, job.restart_count, started, node, process_id(os.getpid()))
    title = f"{job.backend.capitalize()} job {job.job}"
    options = PilotOptions(queue, job.job, title, job.restart_count, started, node, cluster, idle_time, grace)
    # Where the scheduler does not name the job's GPUs, they are counted as their driver shows them.
    visible = visible_gpus(os.environ)
    names = list(map(str, range(gpus))) if visible is None else visible[:gpus]
    allocation = PilotAllocation(Slot(cpus, memory or _UNCOUNTED_MB), names, sorted(os.sched_getaffinity(0)))
    limits = TimeLimits(time_limit, grace + 10, task_limit)
    remaining = RemainingTime(backends.current_job().look, limits, SYSTEM)
    environment = scrubbed(os.environ)
    folders = map(os.environ.get, registry.settings_of(job.backend).scratch_variables)
    if scratch := next(filter(None, folders), None):
        environment["TMPDIR"] = scratch  # the tasks do not get the variable that names it

    def publish_news() -> None:
        with suppress(OSError):  # the daemon's next pass comes later
            (ensure_directory(news, mode=0o700) / f"pilot.{job.job}").touch()

    engine = PilotEngine(TaskBoard(board), options, allocation, remaining, environment, claim, publish_news, SYSTEM)
    engine.handle_signals()
    engine.run()
