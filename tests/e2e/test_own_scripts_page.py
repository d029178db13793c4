"""docs/own-scripts.md does what it says: its commands run, in order, and the tasks are there."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from sbatch_bench import Person
from waiting import wait_until

from hpc_agent.domain.ids import TaskId
from hpc_agent.domain.status import TaskStatus

pytestmark = [pytest.mark.slurm, pytest.mark.peers]

PAGE = (Path(__file__).parents[2] / "docs" / "own-scripts.md").read_text()
COMMANDS = re.findall(r"^```bash\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)


def test_the_commands_of_the_page_run(person: Person) -> None:
    assert len(COMMANDS) >= 5
    person.site.client.queues.resolve("by-hand", create=True)
    folder = person.site.folder / "work"
    folder.mkdir()
    path = f"{Path(sys.executable).parent}:{person.env['PATH']}"
    done = subprocess.run(
        ["bash", "-eu", "-c", "\n".join(COMMANDS)],
        cwd=folder,
        env={**person.env, "PATH": path},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, ""), done
    person.jobs += re.findall(r"Submitted batch job (\d+)", done.stdout)

    def tasks() -> dict[str, dict[str, Any]] | None:
        found = {str(task["name"]): task for task in person.tasks()}
        print({name: (task["status"], task["status_message"]) for name, task in found.items()})
        ended = all(task["status"] in ("completed", "failed", "stopped") for task in found.values())
        return found if ended and len(found) == 6 else None

    try:
        seen = wait_until("all tasks to end", tasks)
    except BaseException:
        print(person.logs())
        raise
    names = ["first", "small rate", "train.sh", "train.sh [1]", "train.sh [2]", "wrap"]
    assert sorted(seen) == names
    assert {task["status"] for task in seen.values()} == {"completed"}
    assert sorted(seen["small rate"]["tags"]) == ["may", "sweep"]
    assert "learning rate 0.3 on " in person.site.console(TaskId(str(seen["first"]["id"])))
    assert person.site.console(TaskId(str(seen["wrap"]["id"]))) == "wrapped\n"
    by_hand = TaskId(json.loads((folder / "task.json").read_text())["id"])
    assert person.site.status(by_hand) is TaskStatus.COMPLETED
    assert "hello from a task" in person.site.console(by_hand)
