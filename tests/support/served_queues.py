"""Queues with settings of their own on the site of an end-to-end test, each set served by a daemon of its own."""

from __future__ import annotations

import subprocess
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from e2e_site import Site

from hpc_agent.domain.ids import QueueId, TaskId

OVERRIDES = (
    "overrides { num_gpus { max: 4 }, partition {}, time_limit {}, memory_gb {}, num_cpus {}, reservation {}, "
    "constraint {} }"
)


@dataclass(frozen=True)
class Served:
    """Some queues and the daemon that serves them."""

    site: Site
    ids: Mapping[str, QueueId]
    env: Mapping[str, str]
    daemon: subprocess.Popen[bytes]
    log: Path

    def task(self, queue: str, text: str, **properties: str) -> TaskId:
        """Enqueue a script, with user properties."""
        task = self.site.bare_task(text, enqueue=False)
        if properties:
            self.site.properties(task, **properties)
        self.site.client.tasks.enqueue(task, self.ids[queue])
        return task


def serve(site: Site, queues: Mapping[str, str], *, slurm: str = "", **env: Any) -> Served:
    """``queues``: name → lines of its block; ``slurm``: lines of ``hpc.slurm``."""
    unique = uuid.uuid4().hex[:8]
    names = {name: f"{name}-{unique}" for name in queues}
    blocks = "\n".join(f'"{names[name]}" {{ {OVERRIDES}\n{lines} }}' for name, lines in queues.items())
    conf = site.folder / f"{unique}.conf"
    conf.write_text(f'include "{site.conf}"\nhpc {{ queues {{ {blocks} }}\nslurm {{ {slurm} }} }}\n')
    ids = {name: site.client.queues.resolve(full, create=True) for name, full in names.items()}
    # A worker id of its own: several daemons serve one cluster here.
    environ = {**env, "CLEARML_CONFIG_FILE": str(conf)}
    log = site.folder / f"daemon-{unique}.log"
    daemon = site.start(
        *("daemon", "--foreground", "--polling-interval", "1", "--queue", *names.values()), log=log.name, **environ
    )
    return Served(site, ids, environ, daemon, log)
