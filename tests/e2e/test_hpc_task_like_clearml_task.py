"""``hpc-task X`` makes the task that ``clearml-task X`` makes, field by field; each difference has its reason here."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from task_bench import Bench, make_bench

from hpc_agent.domain.ids import TaskId
from hpc_agent.sources.changes import INIT

pytestmark = pytest.mark.peers

THEIR_INIT = (
    "try: from allegroai import Task\n",
    "except ImportError: from clearml import Task\n",
    '(__name__ != "__main__") or Task.init()\n',
    "\n",
)
OWN = frozenset({"id", "created", "last_update", "last_change", "status_changed", "comment"})
"""Fields that differ between any two tasks; ``comment`` says when, by whom and with what program it was made."""


@dataclass(frozen=True)
class Case:
    """A command line. ``differs``: field → what ours has there (None: nothing), where the real tool differs.

    ``why`` is the reason. ``here`` is the folder it runs in, relative to the bench's.
    """

    line: str
    here: str = "plain"
    differs: Mapping[str, object] = field(default_factory=dict)
    why: str = ""


_ONLY_INIT = "diff --git a/train.py b/train.py\n--- a/train.py\n+++ b/train.py\n@@ -0,0 +1,4 @@\n+<init>"

SAME = [
    Case("--script train.py --packages numpy tensorflow>2.2"),
    Case("--script train.py --requirements list.txt --packages foo bar"),
    Case("--script sub/future.py --packages a"),
    Case("--script sub/future.py --packages a --skip-task-init"),
    Case("--script train.py --force-no-requirements"),
    Case("--script train.py --skip-repo-detection --packages a"),
    Case("--script note.ipynb --packages a"),
    Case("--script run.sh --packages a"),
    Case("--script run.sh --packages a --binary /bin/zsh"),
    Case("--script train.py --packages a --args lr=0.003 a/b=1 c=2=3 d="),
    Case("--script train.py --packages a --tags base job --queue {queue}"),
    Case("--script train.py --packages a --task-type testing --output-uri {folder}/out"),
    Case("--script train.py --packages a --docker 'image -e A=1' --docker_bash_setup_script 'apt update'"),
    Case("--script train.py --packages a --docker image --docker_args '-e A=1 --ipc=host' --skip-python-env-install"),
    Case("--module pkg.main --packages a"),
    Case("--pipeline --script train.py --packages a --args x=1 --queue {queue}"),
    Case("--pipeline --script train.py --packages a --pipeline-version 1.2 --pipeline-dont-add-run-number --tags t"),
    Case("--repo https://host.invalid/a.git --script ./src/train.py --branch dev"),
    Case("--repo https://host.invalid/a.git --script src/train.py --cwd ./src --commit c0ffee --packages a"),
    Case("--repo git@host.invalid:lab/a.git --script run.sh"),
    Case("--repo git@host.invalid:lab/a.git --script note.ipynb --skip-task-init"),
    Case("--repo ssh://git@host.invalid/lab/a.git --module 'pkg.main --lr 1' --queue {queue}"),
    Case("--repo https://host.invalid/a.git --script {folder}/plain/train.py --packages a"),
    Case("--repo https://host.invalid/a.git --script {folder}/plain/run.sh --cwd tools"),
    Case("--script train.py", "code"),
    Case("--script deep.py --packages numpy", "code/src"),
    Case("--script src/deep.py --cwd src", "code"),
    Case("--script code/src/deep.py --queue {queue}", "."),
    Case("--script run.sh", "code"),
    Case("--script note.ipynb", "code"),
    Case("--script train.py --skip-task-init", "code"),
    Case("--folder {folder}/code --script src/deep.py --cwd .", "."),
    Case("--folder {folder}/code --script deep.py --cwd src", "."),
    Case("--folder {folder}/code --module pkg.main --cwd src", "."),
]

DIFFERENT = [
    Case(
        "--script train.py --packages a --docker_bash_setup_script setup.sh",
        differs={"container.setup_shell_script": "apt update\necho \\\n  1\n"},
        why="the real tool doubles the line ends of a file, which cuts continued lines in two",
    ),
    Case(
        "--repo https://user:password@host.invalid/a.git --script train.py",
        differs={"script.repository": "https://host.invalid/a.git"},
        why="all who see the task would read the password",
    ),
    Case(
        "--script sub/future.py --skip-repo-detection --packages a",
        differs={"script.entry_point": "future.py"},
        why="agents use the last part only, and it is what is there without the flag",
    ),
    Case(
        "--repo https://host.invalid/a.git --script {folder}/plain/sub/future.py --packages a",
        differs={"script.diff": "from __future__ import annotations\n<init>import os\n"},
        why="the real tool puts its call above the __future__ import: a SyntaxError",
    ),
    Case(
        "--folder . --script train.py --packages a",
        differs={"script.diff": "<init>print(1)\n"},
        why="the real tool loses the script's text",
    ),
    Case(
        "--script train.py --requirements include.txt",
        differs={"script.requirements.pip": "torch\nnumpy\nscipy\nclearml"},
        why="the included file stays on this machine: its lines replace it",
    ),
    Case(
        "--script train.py --packages 'tqdm>=2.1 scikit-learn'",
        differs={"script.requirements.pip": "tqdm>=2.1\nscikit-learn\nclearml"},
        why="its own help shows two packages in one value, which pip takes for one line that it cannot read",
    ),
    Case(
        "--folder {folder}/code --module pkg.main",
        ".",
        differs={"script.entry_point": "-m pkg.main"},
        why="the real tool writes the folder's name there, which nothing can run",
    ),
    Case(
        "--script src/deep.py --branch main --packages a",
        "code",
        differs={"script.version_num": None},
        why="its help: the branch's latest commit; the real tool pins the local one",
    ),
    Case(
        "--script train.py --commit {first} --packages a",
        "changed",
        differs={"script.version_num": "{first}", "script.diff": _ONLY_INIT},
        why="its help: select this commit; the real tool takes the newest one and today's changes",
    ),
    Case(
        "--script new.py --packages a",
        "added",
        differs={
            "script.diff": "diff --git a/new.py b/new.py\nnew file mode 100644\nindex 0000000..28cd44d\n--- /dev/null\n"
            "+++ b/new.py\n@@ -0,0 +1,5 @@\n+<init>+print('new')\n"
        },
        why="agents cannot apply a patch that creates a file and then changes it",
    ),
]


@pytest.fixture(scope="module")
def bench(clearml_server: Any, peers: Path, tmp_path_factory: pytest.TempPathFactory) -> Bench:
    return make_bench(tmp_path_factory.mktemp("bench"), clearml_server, peers)


def flat(value: Any, path: str = "") -> dict[str, Any]:
    """Dotted field → value; absent, null and empty are the same to every reader of a task.

    See docs/internals/clearml-protocol.md#method-and-body.
    """
    if isinstance(value, dict):
        return {
            k: v for name, inner in value.items() for k, v in flat(inner, f"{path}.{name}" if path else name).items()
        }
    if value in (None, "", []):
        return {}
    if isinstance(value, list):
        # The real tool sends tags in the order of a set.
        return {path: sorted(map(json.dumps, value))}
    return {path: value}


def comparable(task: Mapping[str, Any], init: tuple[str, ...]) -> dict[str, Any]:
    fields = flat({name: value for name, value in task.items() if name not in OWN})
    if diff := fields.get("script.diff"):
        fields["script.diff"] = diff.replace("".join(f"+{line}" for line in init), "+<init>").replace(
            "".join(init), "<init>"
        )
    return fields


def differences(bench: Bench, case: Case) -> dict[str, tuple[Any, Any]]:
    """Field → what the real tool has there, what we have."""
    arguments = bench.argv(case.line)
    theirs = comparable(bench.their_task(arguments, case.here), THEIR_INIT)
    ours = comparable(bench.our_task(arguments, case.here), INIT)
    return {
        name: (theirs.get(name), ours.get(name))
        for name in sorted({*theirs, *ours})
        if theirs.get(name) != ours.get(name)
    }


@pytest.mark.parametrize("case", SAME, ids=lambda case: f"{case.here}: {case.line}")
def test_the_tasks_are_equal(bench: Bench, case: Case) -> None:
    assert differences(bench, case) == {}


@pytest.mark.parametrize("case", DIFFERENT, ids=lambda case: f"{case.here}: {case.line}")
def test_the_tasks_differ_for_a_reason(bench: Bench, case: Case) -> None:
    seen = differences(bench, case)
    assert set(seen) == set(case.differs), seen
    for name, expected in case.differs.items():
        assert seen[name][1] == (expected.format(**bench.words) if isinstance(expected, str) else expected)


REPAIRED = [
    # The real tool fails on these though its help promises them; the second part is what ours records.
    Case("--folder code --script train.py", ".", {"script.entry_point": "train.py", "script.working_dir": "."}),
    Case("--folder {folder}/code --script {folder}/code/src/deep.py", ".", {"script.entry_point": "src/deep.py"}),
    Case("--script run.sh", "plain", {"script.entry_point": "run.sh", "script.binary": "/bin/bash"}),
]


@pytest.mark.parametrize("case", REPAIRED, ids=lambda case: f"{case.here}: {case.line}")
def test_what_the_real_tool_cannot_do(bench: Bench, case: Case) -> None:
    arguments = bench.argv(case.line)
    assert bench.theirs(arguments, case.here).returncode == 1
    ours = flat(bench.our_task(arguments, case.here))
    assert {name: ours.get(name) for name in case.differs} == case.differs


def test_a_copy_keeps_what_the_flags_do_not_name(bench: Bench) -> None:
    """The real tool empties the script of a copy and resets its container (measured with 2.1.12), so no comparison."""
    line = "--script train.py --packages a --args x=1 y=2 --tags t --docker image --output-uri {folder}/out"
    base = json.loads(bench.ours([*bench.argv(line), "--json"], "plain").stdout)["id"]
    script = bench.client.tasks.get_object(base)["script"]
    copy = bench.our_task(["--name", "copy", "--base-task-id", base, "--args", "y=3", "z=4", "--tags", "u"], ".")
    assert (copy["name"], copy["parent"], copy["status"]) == ("copy", base, "created")
    assert {name: item["value"] for name, item in copy["hyperparams"]["Args"].items()} == {"x": "1", "y": "3", "z": "4"}
    assert (sorted(copy["tags"]), copy["container"]["image"], copy["script"]) == (["t", "u"], "image", script)
    flags = ["--packages", "b", "--docker_args", "-e A=1", "--binary", "python3", "--queue", bench.queue]
    changed = bench.our_task(["--name", "changed", "--base-task-id", base, *flags], ".")
    assert changed["script"] == {**script, "requirements": {"pip": "b\nclearml"}, "binary": "python3"}
    assert (changed["container"]["image"], changed["container"]["arguments"]) == ("image", "-e A=1")
    assert changed["status"] == "queued"
    other = bench.our_task(["--name", "other", "--base-task-id", base, "--script", "run.sh"], "plain")
    assert (other["script"]["entry_point"], other["script"]["diff"]) == ("run.sh", "#!/bin/bash\necho 1\n")


def test_runs_of_a_pipeline_are_numbered(bench: Bench) -> None:
    line = ["--project", bench.words["project"], "--name", "numbered", "--pipeline", "--script", "train.py"]
    line += ["--packages", "a", "--json"]
    names = [json.loads(bench.ours(line, "plain").stdout)["name"] for _ in range(3)]
    assert names == ["numbered", "numbered #2", "numbered #3"]
    last = json.loads(bench.ours([*line, "--pipeline-dont-add-run-number"], "plain").stdout)["name"]
    assert last == "numbered"


def test_what_a_person_reads(bench: Bench) -> None:
    line = bench.argv("--script train.py --packages a --queue {queue}")
    theirs, ours = bench.theirs(line, "plain"), bench.ours(line, "plain")
    match = re.fullmatch(rf'task (\w+) "a task" created\nqueued on {bench.queue}\n(http\S+)\n', ours.stdout)
    assert match and ours.stderr == ""
    page = re.search(r"Execution log at: (\S+)", theirs.stdout)
    assert page and re.sub(r"\w{32}(?=/output)", match[1], page[1]) == match[2]
    draft = bench.ours(bench.argv("--script train.py --packages a"), "plain")
    assert "left as a draft" in draft.stdout and draft.returncode == 0


def test_every_flag_of_the_real_tool_is_there(bench: Bench) -> None:
    words = re.compile(r"(?<!\S)\[?(--[\w-]+)")
    ours, theirs = (set(words.findall(run(["--help"], ".").stdout)) for run in (bench.ours, bench.theirs))
    assert theirs - ours == set()
    assert bench.ours([], ".").stdout.startswith("Usage: hpc-task")
    assert bench.ours([], ".").returncode == bench.theirs([], ".").returncode == 0


OFFLINE = """
import sys
from clearml import Task
Task.set_offline(True)
task = Task.init(project_name=sys.argv[1], task_name="off line", task_type="testing", tags=["x", "y"])
task.connect({"a": 1})
task.connect_configuration({"lr": 0.1}, name="conf")
task.set_user_properties(prop="v")
task.set_comment("said")
print("hello from offline")
for i in range(3):
    task.get_logger().report_scalar("loss", "train", 1 / (i + 1), i)
task.get_logger().report_single_value("final", 3.5)
open("weights.bin", "wb").write(b"weights")
task.get_logger().report_media("media", "v", iteration=0, local_path="weights.bin")
task.upload_artifact("numbers", {"k": 1})
task.upload_artifact("file", "weights.bin")
task.close()
print("SESSION", task.get_offline_mode_folder())
"""

READ_BACK = """
import json, sys
from clearml import Task
task = Task.get_task(task_id=sys.argv[1])
print("RESULT" + json.dumps({
    "scalars": task.get_reported_scalars(),
    "single": task.get_reported_single_values(),
    "console": "".join(task.get_reported_console_output(number_of_reports=100)),
    "numbers": task.artifacts["numbers"].get(),
    "file": open(task.artifacts["file"].get_local_copy()).read(),
    "samples": len(task.get_debug_samples("media", "v")),
    "configuration": task.get_configuration_object("conf"),
}))
"""


def test_an_offline_session_is_imported_as_the_real_tool_does(bench: Bench) -> None:
    assert bench.peers is not None
    python = [str(bench.peers / "python"), "-c"]
    made = bench.run(python, [OFFLINE, bench.words["project"]], "plain")
    assert made.returncode == 0, made.stderr
    session = made.stdout.split("SESSION ")[1].strip()
    theirs = bench.theirs(["--import-offline-session", f"{session}.zip"], ".")
    page = re.search(r"tasks/(\w+)/output", theirs.stdout)
    assert page, theirs.stdout + theirs.stderr
    identifiers = [page[1]]
    for source in (f"{session}.zip", session):
        ours = bench.ours(["--import-offline-session", source, "--json"], ".")
        assert ours.returncode == 0, ours.stderr
        identifiers.append(json.loads(ours.stdout)["id"])
    read = [bench.run(python, [READ_BACK, identifier], ".") for identifier in identifiers]
    results = [json.loads(done.stdout.partition("RESULT")[2]) for done in read]
    assert results[0]["console"] and results[0]["file"] == "weights" and results[0]["samples"] == 1
    assert results[0] == results[1] == results[2]
    their_task, *our_tasks = (offline_fields(bench.client.tasks.get_object(TaskId(i))) for i in identifiers)
    assert their_task == our_tasks[0] == our_tasks[1]


def offline_fields(task: Mapping[str, Any]) -> dict[str, Any]:
    """Without what differs: times, and addresses, which hold the task's id and are quoted as URLs by ours only."""
    fields = flat({name: value for name, value in task.items() if name not in OWN - {"comment"}})
    own = ("started", "completed", "active_duration", "status_message", "last_", "execution.artifacts")
    return {name: value for name, value in fields.items() if not name.startswith(own)}
