"""The simulated executor of the property tests does what a real job does, in the same order."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from faults.troubled import troubled
from simulated_site import SimulatedSite

from hpc_agent.api.client import Client
from hpc_agent.config.load import load
from hpc_agent.domain.attempt import attempt_for
from hpc_agent.domain.job import JobState
from hpc_agent.domain.status import TaskStatus
from hpc_agent.domain.termination_cause import TerminationCause
from hpc_agent.runs.directory import RunDirectory, RunsFolder

CHANGES = (
    "queues.remove_task",
    "tasks.edit",
    "tasks.started",
    "workers.status_report",
    "tasks.completed",
    "tasks.failed",
    "tasks.stopped",
)
"""Calls by which others see how far a run is."""


@dataclass
class Trace:
    """What others see of a run: its calls in the order of their first time, and what it leaves in its run directory."""

    calls: list[str]
    status: TaskStatus
    claim: tuple[str, bool] | None
    report: tuple[str, bool, TerminationCause | None] | None


def trace(calls: list[str], status: TaskStatus, run: RunDirectory) -> Trace:
    claim, report = run.claim(), run.exit_report()
    return Trace(
        [call for call in dict.fromkeys(calls) if call in CHANGES],
        status,
        (claim.state, claim.user_process_started) if claim else None,
        (report.status, report.posted, report.cause) if report else None,
    )


@dataclass
class RealRun:
    """``hpc-agent execute`` in a job's environment, at a real server through a proxy that notes its calls."""

    server: Any
    folder: Path
    code: str
    calls: list[str] = field(default_factory=list)
    before: Callable[[str], None] = lambda _endpoint: None
    """Called with the endpoint before each call is carried out."""

    def __post_init__(self) -> None:
        self._client = Client(load(self.server.conf, {}).settings.api)
        self.call = self._client.session.call
        """Calls of its user."""
        script = {"entry_point": "run.py", "working_dir": ".", "diff": self.code, "requirements": {"pip": ""}}
        self.task = self._client.tasks.create({"name": "train", "type": "training", "script": script})

    def trace(self) -> Trace:
        client, task = self._client, self.task
        queue = client.queues.resolve(f"queue of {self.folder.name}", create=True)
        client.tasks.enqueue(task, queue)
        [waiting] = client.queues.get_many([queue])
        run = RunsFolder(self.folder / "runs").of(attempt_for("c", queue, task, waiting.entries[0].added)).create()
        with troubled(self.server.url) as proxy:

            def note(endpoint: str) -> None:
                self.calls.append(endpoint)
                self.before(endpoint)

            proxy.choose = note
            conf = self.folder / "through.conf"
            hpc = f'root: "{self.folder}", scratch_dir: "{self.folder}/scratch"'
            conf.write_text(f'include "{self.server.conf}"\napi {{ api_server: "{proxy.url}" }}\nhpc {{ {hpc} }}\n')
            done = subprocess.run(
                [sys.executable, "-m", "hpc_agent", "execute", "--id", task, "--require-queue"],
                env={
                    **self.server.env,
                    "CLEARML_CONFIG_FILE": str(conf),
                    "HOME": str(self.folder),
                    "HPC_AGENT_RUN_DIR": str(run.path),
                    "HPC_AGENT_JOB_ID": str(os.getpid()),
                },
                text=True,
                capture_output=True,
                timeout=240,
                check=False,
            )
        assert "Traceback" not in done.stderr, done.stderr
        return trace(self.calls, client.tasks.get_states([task])[task].status, run)


class SimulatedRun:
    def __init__(self, folder: Path) -> None:
        self.site = SimulatedSite(folder / "simulated")
        self.site.enqueue()
        self.site.run_pass()
        self.site.faults.made.clear()
        [job] = self.site.cluster.startable_jobs()
        self.executor = self.site.start_job(job)

    def trace(self) -> Trace:
        self.executor.finish()
        made = trace(self.site.faults.made, self.site.server.status, self.executor.run)
        assert self.executor.job.record is not None
        self.site.close()
        return made


def test_a_run_that_completes(clearml_server: Any, tmp_path: Path) -> None:
    real = RealRun(clearml_server, tmp_path, "print('trained')\n").trace()
    assert SimulatedRun(tmp_path).trace() == real
    assert real.calls == [
        "queues.remove_task",
        "tasks.edit",
        "tasks.started",
        "workers.status_report",
        "tasks.completed",
    ]
    assert (real.status, real.claim, real.report) == (
        TaskStatus.COMPLETED,
        ("won", True),
        ("completed", True, None),
    )


def test_a_run_that_its_user_aborts(clearml_server: Any, tmp_path: Path) -> None:
    def abort(endpoint: str) -> None:
        if endpoint == "events.add_batch" and (tmp_path / "begun").exists():
            run.call("tasks.stop", {"task": run.task})

    code = (
        f"import pathlib, time\npathlib.Path('{tmp_path}/begun').touch()\nprint('begun', flush=True)\ntime.sleep(600)\n"
    )
    run = RealRun(clearml_server, tmp_path, code, before=abort)
    real = run.trace()
    simulated = SimulatedRun(tmp_path)
    while not simulated.executor.has_process:
        simulated.executor.step()
    simulated.site.server.abort()
    simulated.executor.check_task()
    assert simulated.trace() == real
    assert (real.status, real.report) == (TaskStatus.STOPPED, ("stopped", True, None))


@pytest.mark.parametrize("after", ["queues.remove_task", "tasks.edit"])
def test_a_run_whose_task_is_reset_before_it_starts(clearml_server: Any, tmp_path: Path, after: str) -> None:
    """After the claim, or after the stamp: it looks once more after each."""
    real = RealRun(clearml_server, tmp_path, "print('trained')\n")
    simulated = SimulatedRun(tmp_path)
    faults = simulated.site.faults
    reset = partial(real.call, "tasks.reset", {"task": real.task})
    real.before = once_at_a_look(after, real.calls, reset, overtaken_s=2)
    faults.before = once_at_a_look(after, faults.made, simulated.site.server.reset)
    seen = real.trace()
    assert simulated.trace() == seen
    assert (seen.status, "tasks.started" in seen.calls) == (TaskStatus.CREATED, False)


def once_at_a_look(
    after: str, calls: list[str], act: Callable[[], object], *, overtaken_s: float = 0
) -> Callable[[str], None]:
    """Act at the first look at the task that follows a call.

    A real run looks while the call that sets its token may still be on its way: the look is held back for that call.
    """
    done: list[str] = []

    def before(endpoint: str) -> None:
        if endpoint != "tasks.get_all" or "queues.remove_task" not in calls or done:
            return
        until = time.monotonic() + overtaken_s
        while after not in calls and time.monotonic() < until:
            time.sleep(0.01)
        if after in calls:
            done.append(endpoint)
            act()

    return before


def test_a_job_that_is_terminated_leaves_the_verdict_to_the_daemon(clearml_server: Any, tmp_path: Path) -> None:
    code = (
        "import os, signal, time\nprint('begun', flush=True)\nos.kill(os.getppid(), signal.SIGTERM)\ntime.sleep(600)\n"
    )
    real = RealRun(clearml_server, tmp_path, code).trace()
    simulated = SimulatedRun(tmp_path)
    while not simulated.executor.has_process:
        simulated.executor.step()
    simulated.site.end_job(simulated.executor.job, JobState.FAILED, TerminationCause.UNKNOWN)
    assert simulated.trace() == real
    assert real.status is TaskStatus.IN_PROGRESS
