"""Requests that a job makes before its task's process starts and after it has ended, counted of a real one."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from collections.abc import Mapping
from datetime import date
from pathlib import Path

from faults.bench import environment, server

from hpc_agent.api.client import Client
from hpc_agent.config.job_config import write_job_config
from hpc_agent.config.load import load
from hpc_agent.domain.attempt import attempt_for
from hpc_agent.request_counts import read_counts
from hpc_agent.runs.directory import RunsFolder

_SCRIPT = {"entry_point": "-c true", "binary": "/bin/sh", "working_dir": "."}
_WHILE_IT_RUNS = ("tasks.ping",)
"""Left out, as the first one of ``tasks.get_all``: the simulation has them."""


def task_requests(folder: Path) -> Mapping[str, int]:
    """By endpoint, of a task that ends at once."""
    folder.mkdir(parents=True)
    with server(folder / "server") as (_, conf):
        configuration = folder / "clearml.conf"
        configuration.write_text(f'include "{conf}"\nhpc {{ root: "{folder}/hpc", scheduler: local }}\n')
        loaded = load(configuration, {})
        client = Client(loaded.settings.api)
        queue = client.queues.resolve("bench", create=True)
        project = client.projects.find_or_create("bench")
        task = client.tasks.create({"name": "short", "type": "training", "project": project, "script": _SCRIPT})
        client.tasks.enqueue(task, queue)
        [held] = client.queues.get_many([queue])
        [entry] = held.entries
        runs = RunsFolder(loaded.settings.hpc.runs)
        directory = runs.of(attempt_for("bench", queue, task, entry.added)).create()
        write_job_config(loaded, folder / "job.conf")
        variables = {"HPC_AGENT_RUN_DIR": str(directory.path), "CLEARML_CONFIG_FILE": str(folder / "job.conf")}
        argv = ["execute", "--id", task, "--require-queue", "--standalone-mode"]
        done = subprocess.run(
            [sys.executable, "-m", "hpc_agent", *argv],
            env=environment(HOME=str(folder), **variables),
            capture_output=True,
            text=True,
        )
        if client.tasks.get_object(task)["status"] != "completed":
            raise RuntimeError(f"the task did not run:\n{done.stdout}\n{done.stderr}")
        counted: Counter[str] = Counter()
        for row in read_counts(loaded.settings.hpc.root / "stats", date.min):
            counted.update(row.server if row.program == "execute" else {})
    return {endpoint: number for endpoint, number in counted.items() if endpoint not in _WHILE_IT_RUNS}
