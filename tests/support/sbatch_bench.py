"""A person at a login node who submits scripts: with sbatch, and with hpc-agent sbatch."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from e2e_site import Site
from waiting import wait_until

from hpc_agent.domain.ids import TaskId
from hpc_agent.domain.status import TaskStatus

FINAL = ("COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "OUT_OF_MEMORY", "NODE_FAIL")
_NEWEST = {"search_hidden": True, "order_by": ["-created"]}
"""A page holds 500 at most, and other tests have tasks on the same server."""
_ID = re.compile(r"^(?:Submitted batch job )?(\d+)", re.MULTILINE)


@dataclass
class Person:
    """``sbatch`` and ``plain`` take the same words; ``root`` is their own, and what follows their jobs ends with us."""

    site: Site
    root: Path
    env: Mapping[str, str]
    jobs: list[str] = field(default_factory=list)

    def sbatch(self, *words: str, cwd: Path | None = None, input: str | None = None, **env: str) -> Answer:
        """With hpc-agent."""
        return self._run([sys.executable, "-m", "hpc_agent", "sbatch", *words], cwd, input, env)

    def plain(self, *words: str, cwd: Path | None = None, input: str | None = None, **env: str) -> Answer:
        """With Slurm alone."""
        return self._run(["sbatch", *words], cwd, input, env)

    def _run(self, argv: list[str], cwd: Path | None, input: str | None, env: Mapping[str, str]) -> Answer:
        done = subprocess.run(
            argv,
            env={**self.env, **env},
            cwd=cwd or self.site.folder,
            input=input,
            stdin=subprocess.DEVNULL if input is None else None,
            text=True,
            capture_output=True,
            timeout=200,
            check=False,
        )
        match = _ID.search(done.stdout)
        if match:
            self.jobs.append(match[1])
        return Answer(done.returncode, done.stdout, done.stderr, match[1] if match else "")

    def script(self, text: str, name: str = "train.sh", folder: Path | None = None) -> Path:
        path = (folder or self.site.folder) / name
        path.write_text(text)
        return path

    def follow(self, *words: str, **env: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "hpc_agent", "follow", *words],
            env={**self.env, **env},
            text=True,
            capture_output=True,
            timeout=120,
            check=False,
        )

    def tasks(self, **query: Any) -> list[dict[str, Any]]:
        """Tasks of the server that this person's jobs have."""
        found = self.site.client.session.call("tasks.get_all", {**_NEWEST, **query})["tasks"]
        return [task for task in found if str(self.site.folder) in (task.get("comment") or "")]

    def task(self, job: str) -> TaskId:
        """The task of a job (``123``, ``123_4``)."""

        def look() -> list[TaskId]:
            return [TaskId(t["id"]) for t in self.tasks() if (t.get("runtime") or {}).get("_slurm_job_id") == job]

        return wait_until(f"the task of job {job}", look)[0]

    def raw(self, task: TaskId) -> dict[str, Any]:
        return self.site.client.tasks.get_object(task)

    def state(self, job: str) -> str:
        """Slurm's final word on a job with its exit code, ``COMPLETED 0:0``; empty while there is none."""
        rows = self.site.slurm("sacct", "-X", "-n", "-P", "-j", job, "-o", "State,ExitCode").splitlines()
        words = [row.replace("|", " ") for row in rows]
        over = rows and all(row.startswith(FINAL) for row in rows)
        return re.sub(r" by \d+", "", "; ".join(sorted(words))) if over else ""

    def wait_for_job(self, job: str) -> str:
        return wait_until(f"job {job} to end", lambda: self.state(job))

    def wait_for_end(self, job: str) -> tuple[TaskStatus, str]:
        """The final status and its reason of a job's task."""
        task = self.task(job)
        try:
            status = self.site.wait_for_end(task)
        except BaseException:
            print(self.logs())
            raise
        return status, self.site.reason(task)

    def logs(self) -> str:
        return "\n".join(f"--- {log}\n{log.read_text()}" for log in self.root.rglob("*.log"))

    def folder(self, job: str) -> Path:
        """Where the job is recorded while its task has no final status."""
        return self.root / "sbatch" / self.task(job)

    def follower(self) -> int | None:
        """The process id of the follower in the background."""
        try:
            return int((self.root / "sbatch" / ".follow" / "owner").read_text().split()[1])
        except (OSError, IndexError, ValueError):
            return None

    def close(self) -> None:
        if self.jobs:
            subprocess.run(["scancel", *self.jobs], env=self.env, timeout=60, check=False, capture_output=True)
        pid = self.follower()
        if pid is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


@dataclass(frozen=True)
class Answer:
    returncode: int
    stdout: str
    stderr: str
    job: str
