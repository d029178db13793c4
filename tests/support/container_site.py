"""A machine without Slurm that runs tasks in containers: our server, our agent, tasks of a few lines."""

from __future__ import annotations

import subprocess
import sys
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from e2e_site import Site
from waiting import HANG_S, wait_until

from hpc_agent.api.client import Client
from hpc_agent.config.load import load
from hpc_agent.domain.ids import QueueId, TaskId

SETTINGS = """
include "{server}"
hpc {{ root: "{folder}/hpc", scratch_dir: "{folder}/scratch" }}
sdk.storage.cache.default_base_dir: "{folder}/sdk-cache"
"""


POLITE = """
import signal, sys, time
def on(*_):
    print("cleaned up", flush=True)
    sys.exit(0)
signal.signal(signal.SIGTERM, on)
print("started", flush=True)
while True:
    time.sleep(0.1)
"""
"""Program that says when it has started, and that it cleans up at SIGTERM."""


class ContainerSite(Site):
    """``container`` is the task's; whatever else is given is in its script section."""

    def task(self, text: str, image: str = "", arguments: str = "", setup: str = "", **script: Any) -> TaskId:
        task = self.bare_task(text, enqueue=False, **script)
        container = {"image": image, "arguments": arguments, "setup_shell_script": setup}
        self.client.tasks.edit(task, {"container": container})
        return task

    def execute(self, task: TaskId, *flags: str, **env: Any) -> subprocess.CompletedProcess[str]:
        return self.agent("execute", "--id", task, *flags, timeout=HANG_S, **env)

    @contextmanager
    def executing(
        self, task: TaskId, *flags: str, until: str = "started", **env: Any
    ) -> Iterator[subprocess.Popen[bytes]]:
        """Start a task; enter when its console has ``until``."""
        log = f"{uuid.uuid4().hex}.log"
        child = self.start("execute", "--id", task, *flags, log=log, **env)
        path = self.folder / log

        def look() -> bool:
            assert child.poll() is None, path.read_text()
            # The agent logs that it started the process: what counts is what the process printed.
            return any(until in line for line in path.read_text().splitlines() if " INFO " not in line)

        wait_until(f"{until!r} in the console", look)
        yield child

    def container(self, task: TaskId) -> dict[str, str]:
        section: dict[str, str] = self.client.tasks.get_object(task)["container"]
        return section


def container_site(server: Any, folder: Path, env: Mapping[str, str]) -> ContainerSite:
    conf = folder / "clearml.conf"
    conf.write_text(SETTINGS.format(server=server.conf, folder=folder))
    return ContainerSite(
        env={**server.env, "CLEARML_CONFIG_FILE": str(conf), "HOME": str(folder), "USER": "root", **env},
        root=folder / "hpc",
        peers=Path(sys.executable).parent,
        folder=folder,
        conf=conf,
        queue="",
        queue_id=QueueId(""),
        client=Client(load(conf, {}).settings.api),
    )
