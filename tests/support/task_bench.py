"""What ``hpc-task`` and ``clearml-task`` are run with: the same folders, the same server."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from local_clone import Clone

from hpc_agent.api.client import Client
from hpc_agent.config.load import load
from hpc_agent.domain.ids import TaskId


@dataclass(frozen=True)
class Bench:
    """Folders for both tools to look at, one server for both to talk to."""

    folder: Path
    env: Mapping[str, str]
    peers: Path | None
    client: Client
    queue: str
    words: Mapping[str, str]

    def argv(self, line: str) -> list[str]:
        """A command line of the tests, words put in, as arguments; with a project and a name."""
        return ["--project", self.words["project"], "--name", "a task", *shlex.split(line.format(**self.words))]

    def run(self, program: list[str], arguments: list[str], here: str, **env: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*program, *arguments],
            cwd=self.folder / here,
            env={**self.env, **env},
            text=True,
            capture_output=True,
            timeout=120,
            check=False,
        )

    def theirs(self, arguments: list[str], here: str) -> subprocess.CompletedProcess[str]:
        assert self.peers
        return self.run([str(self.peers / "clearml-task")], arguments, here)

    def ours(self, arguments: list[str], here: str, **env: str) -> subprocess.CompletedProcess[str]:
        program = [sys.executable, "-c", "from hpc_agent.cli.task import main; main()"]
        return self.run(program, arguments, here, **env)

    def their_task(self, arguments: list[str], here: str) -> dict[str, Any]:
        done = self.theirs(arguments, here)
        match = re.search(r"created id=(\w+)", done.stdout)
        assert match and not done.returncode, done.stdout + done.stderr
        return self.taken(TaskId(match[1]))

    def our_task(self, arguments: list[str], here: str) -> dict[str, Any]:
        done = self.ours([*arguments, "--json"], here)
        assert not done.returncode, done.stdout + done.stderr
        return self.taken(TaskId(json.loads(done.stdout)["id"]))

    def taken(self, task: TaskId) -> dict[str, Any]:
        """The server's object of a task, which is then deleted: runs of a pipeline are numbered."""
        data = self.client.tasks.get_object(task)
        self.client.tasks.delete(task)
        return data

    def count(self) -> int:
        """All tasks on the server."""
        query = {"search_hidden": True, "only_fields": ["id"], "page_size": 500}
        found = page = 0
        while True:
            tasks = self.client.session.call("tasks.get_all", {**query, "page": page})["tasks"]
            found, page = found + len(tasks), page + 1
            if len(tasks) < 500:
                return found


def make_folders(folder: Path) -> dict[str, str]:
    """``plain`` without git, and clones: ``code`` as pushed, ``changed`` and ``added`` with what their names say."""
    plain = folder / "plain"
    (plain / "sub").mkdir(parents=True)
    (plain / "train.py").write_text("print(1)")
    (plain / "sub" / "future.py").write_text("from __future__ import annotations\nimport os\n")
    (plain / "run.sh").write_text("#!/bin/bash\necho 1\n")
    (plain / "setup.sh").write_text("#!/bin/bash\napt update\necho \\\n  1\n")
    (plain / "note.ipynb").write_text('{"cells": []}\n')
    (plain / "list.txt").write_text("# these\nnumpy==1.0 # why\n\n  torch  \nclearml>1\n")
    (plain / "include.txt").write_text("torch\n-r more.txt\nscipy\n")
    (plain / "more.txt").write_text("numpy\n")
    Clone.make(folder)
    (folder / "1").mkdir()
    (folder / "2").mkdir()
    changed, added = Clone.make(folder / "1"), Clone.make(folder / "2")
    first = changed.head
    changed.write("train.py", "print(2)\n")
    changed.git("commit", "--quiet", "-am", "two")
    changed.git("push", "--quiet")
    changed.write("train.py", "print(3)\n")
    added.write("new.py", "print('new')\n")
    added.git("add", "new.py")
    changed.root.rename(folder / "changed")
    added.root.rename(folder / "added")
    return {"folder": str(folder), "first": first}


def make_bench(folder: Path, server: Any, peers: Path | None) -> Bench:
    """``server`` is the fixture ``clearml_server``."""
    words = make_folders(folder.resolve())
    client = Client(load(server.conf, {}).settings.api)
    queue = f"q-{uuid.uuid4().hex[:8]}"
    client.queues.resolve(queue, create=True)
    env = {name: value for name, value in server.env.items() if not name.startswith("GIT_")}
    words |= {"queue": queue, "project": f"like/{queue}"}
    return Bench(folder.resolve(), {**env, "HOME": str(folder)}, peers, client, queue, words)
