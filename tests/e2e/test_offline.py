"""A compute node without any network but to the server: what was staged runs, what was not is named at once."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from capabilities import missing

from hpc_agent.api.client import Client
from hpc_agent.config.load import load

SCRIPT = "import idna, socket\nprint('idna', idna.__version__)\n"

INSIDE = """
import json, os, subprocess, sys
from pathlib import Path
server, tasks = sys.argv[1:3]
subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
child = subprocess.Popen([sys.executable, "-m", "hpc_agent", "server", *json.loads(server)],
                         stdout=subprocess.PIPE, text=True)
child.stdout.readline()
found = []
for task in json.loads(tasks):
    ran = subprocess.run([sys.executable, "-m", "hpc_agent", "execute", "--id", task, "--standalone-mode"],
                         capture_output=True, text=True)
    found.append([ran.returncode, ran.stdout + ran.stderr])
child.terminate()
child.communicate()
print("FOUND" + json.dumps(found))
"""


@contextmanager
def served(data: Path, env: dict[str, str]) -> Iterator[str]:
    argv = [sys.executable, "-m", "hpc_agent", "server", "--port", "0", "--data-dir", str(data)]
    child = subprocess.Popen(argv, stdout=subprocess.PIPE, text=True, env=env)
    assert child.stdout is not None
    try:
        yield child.stdout.readline().split()[-1]
    finally:
        child.terminate()
        child.communicate()


@pytest.fixture
def alone() -> list[str]:
    """The words before a command that cut it off from every network."""
    words = ["unshare", "-rn"]
    if subprocess.run([*words, "ip", "link", "set", "lo", "up"], capture_output=True).returncode:
        missing("namespaces", "no network namespace can be made here")
    return words


@pytest.mark.namespaces
def test_staged_task_runs_offline_and_an_unstaged_one_is_reported(tmp_path: Path, alone: list[str]) -> None:
    data = tmp_path / "server"
    conf = tmp_path / "client.conf"
    conf.write_text(
        f'include "{data}/clearml.conf"\nhpc {{ root: "{tmp_path}/hpc", scratch_dir: "{tmp_path}/node" }}\n'
    )
    env = {k: v for k, v in os.environ.items() if not k.startswith(("CLEARML_", "TRAINS_"))} | {"HOME": str(tmp_path)}
    repository = tmp_path / "code"
    repository.mkdir()
    git = ["git", "-c", "user.name=t", "-c", "user.email=t@t"]
    for words in (["init", "-q", "-b", "main"], ["commit", "-q", "--allow-empty", "-m", "empty"]):
        subprocess.run([*git, *words], cwd=repository, check=True)
    with served(data, env) as url:
        client = Client(load(conf, {}).settings.api)
        common = {"entry_point": "train.py", "working_dir": ".", "diff": SCRIPT, "requirements": {"pip": "idna==3.7"}}
        elsewhere = {**common, "repository": "https://git.invalid/lab/model.git", "branch": "main"}
        tasks = [
            client.tasks.create({"name": name, "type": "training", "project": None, "script": script})
            for name, script in (
                ("script", common),
                ("repository", {**common, "repository": f"file://{repository}", "branch": "main"}),
                ("unstaged", {**common, "requirements": {"pip": "idna==3.6"}}),
                ("unstaged code", elsewhere),
            )
        ]
        argv = [sys.executable, "-m", "hpc_agent", "cache", "warm", "--id", tasks[0], "--id", tasks[1]]
        warmed = subprocess.run(argv, env={**env, "CLEARML_CONFIG_FILE": str(conf)}, capture_output=True, text=True)
        assert warmed.returncode == 0, warmed.stderr
    repository.rename(tmp_path / "gone")
    server = ["--port", url.rpartition(":")[2], "--data-dir", str(data)]
    inside = subprocess.run(
        [*alone, sys.executable, "-c", INSIDE, json.dumps(server), json.dumps(tasks)],
        env={**env, "CLEARML_CONFIG_FILE": str(conf)},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert "FOUND" in inside.stdout, inside.stdout + inside.stderr
    script, code, unstaged, elsewhere_ran = json.loads(inside.stdout.partition("FOUND")[2])
    for returncode, said in (script, code):
        assert returncode == 0, said
        assert "idna 3.7" in said
    for task, (returncode, said) in zip(tasks[2:], (unstaged, elsewhere_ran), strict=True):
        assert returncode != 0
        assert f"hpc-agent cache warm --id {task}" in said
    assert "no environment for these requirements" in unstaged[1]
    assert "https://git.invalid/lab/model.git" in elsewhere_ran[1]
