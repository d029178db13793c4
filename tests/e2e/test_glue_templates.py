"""Templates in the form of ClearML's Slurm glue on real Slurm, started with the flags that its pages show."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from e2e_site import Site
from waiting import contains, wait_until

from hpc_agent.domain.ids import TaskId
from hpc_agent.domain.status import TaskStatus

pytestmark = pytest.mark.slurm

EXAMPLES = Path(__file__).parents[2] / "scripts" / "examples" / "slurm-glue"
NATIVE = (EXAMPLES / "native.template").read_text()
SHOW = """
import os
for name in ("SITE_WORD", "USER_WORD", "CLEARML_MULTI_NODE_SINGLE_TASK"):
    print(name, os.environ.get(name))
"""


def named(site: Site, name: str, text: str, **properties: str) -> TaskId:
    task = site.bare_task(text, enqueue=False)
    site.client.tasks.edit(task, {"name": name})
    if properties:
        site.properties(task, **properties)
    site.client.tasks.enqueue(task, site.queue_id)
    return task


def template(site: Site, text: str, name: str = "slurm.template") -> str:
    (site.folder / name).write_text(text)
    return name


def script_of(site: Site, task: TaskId) -> str:
    [attempt] = (site.root / "runs" / task).iterdir()
    return (attempt / "job.sbatch").read_text()


def rendered(site: Site, task: TaskId) -> dict[str, Any]:
    answer = site.agent("render", "--json", "--id", task)
    assert answer.returncode == 0, answer.stderr
    found: dict[str, Any] = json.loads(answer.stdout)
    return found


def test_a_template_runs_its_queue(site: Site) -> None:
    evil = 'it\'s $(touch /tmp/glue-evil) `id` "x"'
    plain = named(site, "plain", SHOW)
    other = named(site, evil, SHOW, num_nodes="2", walltime="00:03:00", word=evil)
    site.daemon("--template-files", template(site, NATIVE))
    assert [site.wait_for_end(task) for task in (plain, other)] == [TaskStatus.COMPLETED] * 2
    assert {f"SITE_WORD queue {site.queue}", "USER_WORD none", "CLEARML_MULTI_NODE_SINGLE_TASK 1"} < {
        *site.lines(plain)
    }
    assert f"USER_WORD {evil}" in site.lines(other)
    assert not Path("/tmp/glue-evil").exists()
    script = script_of(site, other)
    assert "\nexec " in script and "#SBATCH --nodes=2\n#SBATCH --time=00:03:00\n" in script
    assert (
        f". {site.queue} in a comment" in script and "${CLEARML_TASK.hyperparams.properties.any.value} stays" in script
    )
    [attempt] = (site.root / "runs" / other).iterdir()
    assert f"task {evil}" in (attempt / "job.out").read_text()
    job = json.loads((attempt / "submit.json").read_text())["job"]
    assert f"Comment=task {evil}" in site.slurm("scontrol", "show", "job", job)


def test_each_queue_has_its_template_and_render_shows_it(site: Site) -> None:
    second = f"{site.queue}-b"
    site.client.queues.resolve(second, create=True)
    own = NATIVE.replace("${CLEARML_POST_SETUP}", "echo the script goes on with $?")
    site.start(
        *("daemon", "--queue", site.queue, second, "--foreground", "--polling-interval", "0.5", "--template-files"),
        *(template(site, NATIVE), template(site, own, "second.template")),
    )
    first = site.bare_task(SHOW)
    other = site.bare_task("import sys; print('failing'); sys.exit(3)", enqueue=False)
    site.client.tasks.enqueue(other, site.client.queues.resolve(second))
    assert site.wait_for_end(first) is TaskStatus.COMPLETED
    assert site.wait_for_end(other) is TaskStatus.FAILED
    assert "the script goes on" not in rendered(site, first)["script"]
    assert rendered(site, other)["script"] == script_of(site, other)
    [attempt] = (site.root / "runs" / other).iterdir()
    wait_until("the script's end", (attempt / "job.out").read_text, contains("the script goes on with 3"))


def test_abort_and_time_limit_reach_a_task_behind_a_shell(site: Site) -> None:
    text = "import time; print('begun', flush=True); time.sleep(300)"
    site.configure(f'hpc {{ queues {{ "{site.queue}" {{ signal_ahead: 30 }} }} }}')
    limited = named(site, "limited", text, walltime="00:01:00")
    aborted = named(site, "aborted", text)
    site.daemon("--template-files", template(site, f"{NATIVE}echo after\n"))
    site.begun(aborted)
    site.client.session.call("tasks.stop", {"task": aborted})
    assert site.wait_for_end(aborted) is TaskStatus.STOPPED
    assert site.wait_for_end(limited) is TaskStatus.FAILED
    assert "time limit" in site.reason(limited)
    assert "TIME_LIMIT" in site.console(limited) or "time limit" in site.console(limited)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (NATIVE.replace("num_nodes.value:1", "num_nodes.value"), "line 11 names ${CLEARML_TASK.hyperparams"),
        (NATIVE.replace("${CLEARML_AGENT_EXECUTE}\n", ""), "would never run the task"),
        (NATIVE.replace("${CLEARML_PRE_SETUP}\n", ""), "needs ${CLEARML_PRE_SETUP} once"),
        (NATIVE.replace("value:none", "value:none|swap"), "has the filter swap"),
    ],
)
def test_a_wrong_template_fails_its_task_with_a_sentence(site: Site, text: str, sentence: str) -> None:
    task = site.bare_task(SHOW)
    site.daemon("--template-files", template(site, text))
    assert site.wait_for_end(task) is TaskStatus.FAILED
    assert sentence in site.reason(task) and site.jobs(task) == []


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        (["--template-files", "gone"], "gone, which cannot be read: No such file or directory"),
        (["--template-files", "a", "b", "c"], "names 3 templates and --queue 1 queues"),
        (["--template-files", "a", "--singularity-mode", "--srun-delegation"], "give one"),
    ],
)
def test_wrong_flags_are_refused(site: Site, flags: list[str], sentence: str) -> None:
    (site.folder / "a").write_text(NATIVE)
    answer = site.agent("daemon", "--queue", site.queue, "--once", *flags)
    assert answer.returncode == 2 and sentence in answer.stderr


def test_templates_without_a_queue_are_refused(site: Site) -> None:
    answer = site.agent("daemon", "--once", "--template-files", template(site, NATIVE))
    assert answer.returncode == 2 and "--template-files needs --queue" in answer.stderr
