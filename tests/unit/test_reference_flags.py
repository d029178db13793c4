"""Every flag of ClearML's reference pages is ours: in the parser, in every form that they show, and in the table."""

from __future__ import annotations

import ast
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest

from hpc_agent.cli.main import group
from hpc_agent.cli.task import task as task_command
from hpc_agent.config.names import ENVIRONMENT, SWITCHES
from hpc_agent.config.variables import BY_CODE, NOT_HONOURED, honoured, why_not

ROOT = Path(__file__).parents[2]
USAGE = (ROOT / "tests" / "data" / "clearml-usage.txt").read_text()
LEVELS = ("DEBUG", "INFO", "WARN", "WARNING", "ERROR", "CRITICAL")
TASK = "0123456789abcdef0123456789abcdef"


def command(name: str) -> click.Command:
    if name == "hpc-task":
        return task_command
    found = group.get_command(click.Context(group), name)
    assert found is not None
    return found


def usages() -> Iterator[tuple[str, str]]:
    """Our command, and the usage that the pages show of the like of it."""
    for block in re.split(r"\n\n+", USAGE):
        match = re.match(r"clearml-(?:agent (?P<name>\w+)|task)\b(?P<usage>.*)", block, re.DOTALL)
        if match:
            yield match["name"] or "hpc-task", match["usage"]


FLAGS = [
    (name, flag)
    for name, usage in usages()
    for flag in dict.fromkeys(re.findall(r"(?<![\w-])(--?[A-Za-z][\w-]*)", usage))
]


def parsed(name: str, line: str) -> dict[str, Any]:
    """The values that a command gets from its words."""
    words = shlex.split(line)
    if name in ("execute", "build") and "--id" not in words and "--task-id" not in words:
        words += ["--id", TASK]
    found = command(name)
    return found.make_context(name, words, **found.context_settings).params


def sections() -> dict[str, str]:
    page = (ROOT / "docs" / "flags.md").read_text()
    parts = re.split(r"^## `(?:hpc-agent )?([\w-]+)`$", page, flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def test_the_pages_have_the_flags_that_we_look_for() -> None:
    assert len(FLAGS) > 50
    assert ("daemon", "--use-owner-token") in FLAGS


@pytest.mark.parametrize(("name", "flag"), FLAGS)
def test_every_flag_is_in_the_parser_and_in_the_table(name: str, flag: str) -> None:
    found = command(name)
    context = click.Context(found, **found.context_settings)
    known = {spelling for parameter in found.get_params(context) for spelling in parameter.opts}
    assert flag in known
    rows = [re.split(r"(?<!\\)\|", line)[1:-1] for line in sections()[name].splitlines() if line.startswith("| `")]
    described = [cells for spellings, *cells in rows if f"`{flag}`" in spellings]
    assert len(described) == 1 and all(len(cell.strip()) > 3 for cell in described[0]), "not described in docs/flags.md"


@pytest.mark.parametrize(
    ("name", "line", "expected"),
    [
        ("daemon", "--queue dual_gpus=2 single_gpu=1 --dynamic-gpus", {"queues": ("dual_gpus=2", "single_gpu=1")}),
        ("daemon", "--dynamic-gpus --queue dual_gpus=2 single_gpu=1", {"dynamic_gpus": True}),
        ("daemon", "--queue default", {"queues": ("default",)}),
        ("daemon", f"--queue {TASK} other", {"queues": (TASK, "other")}),
        ("daemon", "--foreground --order-fairness --standalone-mode --create-queue", {"order_fairness": True}),
        ("daemon", "--services-mode", {"services_mode": -1}),
        ("daemon", "--services-mode 5", {"services_mode": 5}),
        ("daemon", "--services-mode --queue services", {"services_mode": -1, "queues": ("services",)}),
        ("daemon", "--child-report-tags one two", {"child_report_tags": ("one", "two")}),
        ("daemon", "--detached --gpus 0", {"detached": True}),
        ("daemon", "-d", {"detached": True}),
        ("daemon", "--stop", {"stop": ()}),
        ("daemon", "--stop --gpus 0,1", {"stop": (), "gpus": "0,1"}),
        ("daemon", "--stop host:gpu0 host:1", {"stop": ("host:gpu0", "host:1")}),
        ("daemon", "--status", {"status": True}),
        ("daemon", "--uptime '17-20 TUE'", {"uptime": ("17-20 TUE",)}),
        ("daemon", "--uptime 17-20 TUE", {"uptime": ("17-20", "TUE")}),
        ("daemon", "--downtime '09-13 TUE' '0 SUN'", {"downtime": ("09-13 TUE", "0 SUN")}),
        ("daemon", "--use-owner-token --force-current-version", {"use_owner_token": True}),
        ("daemon", "--gpus all", {"gpus": "all"}),
        ("daemon", "--gpu 0,1,2", {"gpus": "0,1,2"}),
        ("daemon", "--cpu-only -O", {"cpu_only": True, "optimize": 1}),
        ("daemon", "-O -O", {"optimize": 2}),
        ("daemon", "-OO", {"optimize": 2}),
        ("daemon", "--docker", {"docker": ()}),
        ("daemon", "--docker nvidia/cuda", {"docker": ("nvidia/cuda",)}),
        ("daemon", "--docker img --ipc=host -v /a:/b --cpu-only", {"docker": ("img", "--ipc=host", "-v", "/a:/b")}),
        ("daemon", "--git-user me --git-pass secret", {"git_user": "me", "git_pass": "secret"}),
        *((name, f"--log-level {level}", {"log_level": level}) for name in ("daemon", "build") for level in LEVELS),
        *(("execute", f"--log-level {level}", {"log_level": level}) for level in LEVELS),
        *((name, "--gpus 0", {"gpus": "0"}) for name in ("execute", "build")),
        *((name, "--gpu 0,1,2", {"gpus": "0,1,2"}) for name in ("execute", "build")),
        *((name, "--gpus all --cpu-only", {"gpus": "all", "cpu_only": True}) for name in ("execute", "build")),
        ("execute", f"--id {TASK}", {"task": TASK}),
        ("execute", "--id 'a name'", {"task": "a name"}),
        ("execute", "--log-file /tmp/log", {"log_file": Path("/tmp/log")}),
        ("execute", "--disable-monitoring --require-queue", {"disable_monitoring": True, "require_queue": True}),
        ("execute", "--full-monitoring --standalone-mode --clone", {"full_monitoring": True, "clone": True}),
        ("execute", "--docker img -e A=b", {"docker": ("img", "-e", "A=b")}),
        ("execute", "--docker", {"docker": ()}),
        ("build", "--target out --install-globally", {"target": "out", "install_globally": True}),
        ("build", "--docker --force-docker", {"docker": (), "force_docker": True}),
        ("build", "--docker img --entry-point reuse_task", {"entry_point": "reuse_task"}),
        ("build", "--docker img --entry-point reuse", {"entry_point": "reuse_task"}),
        ("build", "--docker img --entry-point clone_task", {"entry_point": "clone_task"}),
        ("build", f"--task-id {TASK} --python-version 3.11", {"task_name": TASK, "python_version": "3.11"}),
        ("config", "", {}),
        ("list", "", {}),
        ("hpc-task", "--docker img", {"docker": "img"}),
        ("hpc-task", '--packages "keras" "tensorflow>2.2"', {"packages": ("keras", "tensorflow>2.2")}),
        ("hpc-task", "--branch main --commit c0ffee --queue q", {"branch": "main", "commit": "c0ffee", "queue": "q"}),
    ],
)
def test_every_form_of_the_pages_is_understood(name: str, line: str, expected: dict[str, Any]) -> None:
    values = parsed(name, line)
    assert {key: values[key] for key in expected} == expected


@pytest.mark.parametrize("name", [name for name, _ in usages()])
@pytest.mark.parametrize("flag", ["-h", "--help"])
def test_help_is_shown(name: str, flag: str) -> None:
    with pytest.raises(click.exceptions.Exit) as ended:
        parsed(name, flag)
    assert ended.value.exit_code == 0


def test_the_pages_of_docs_are_up_to_date() -> None:
    script = ROOT / "scripts" / "reference"
    done = subprocess.run([sys.executable, str(script), "--check"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


class TestVariables:
    def test_nothing_is_both_honoured_and_not(self) -> None:
        assert honoured().keys() & NOT_HONOURED.keys() == set()

    def test_what_is_honoured_is_read_or_set_by_the_code(self) -> None:
        text = "\n".join(path.read_text() for path in (ROOT / "hpc_agent").rglob("*.py") if path.name != "variables.py")
        words = text + "".join(f"CLEARML_{suffix} " for suffix in (*ENVIRONMENT, *SWITCHES))
        always = {name for name, sentence in BY_CODE.items() if sentence.startswith("Always so")}
        # Those for the SDK are made of a prefix and a name.
        missing = [
            name
            for name in honoured().keys() - always
            if "<" not in name and name not in words and f'"{name.removeprefix("CLEARML_")}"' not in words
        ]
        assert missing == []

    def test_what_is_not_honoured_is_nowhere_in_the_code(self) -> None:
        """But in messages: what a variable would be, were it one of ours."""
        texts = {path: path.read_text() for path in (ROOT / "hpc_agent").rglob("*.py") if path.name != "variables.py"}
        found = [
            (name, path.name)
            for name in NOT_HONOURED
            for path, text in texts.items()
            if name.startswith("CLEARML_") and f'"{name}"' in text
        ]
        assert found == []

    @pytest.mark.peers
    def test_every_variable_of_the_real_agent_is_listed(self, peers: Path) -> None:
        [package] = peers.parent.glob("lib/python*/site-packages/clearml_agent")
        read = set()
        for path in package.rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.Constant) and isinstance(node.value, str):
                    read |= {node.value} if re.fullmatch(r"CLEARML_[A-Z0-9_]+", node.value) else set()
        listed = {*honoured(), *NOT_HONOURED, "CLEARML_AGENT"}  # the last is not a variable
        assert read - listed == set()

    @pytest.mark.parametrize(
        ("variable", "reason"),
        [
            ("CLEARML_CONFIG_PATH", "One file is enough"),
            ("TRAINS_CONFIG_PATH", "One file is enough"),
            ("CLEARML_API_HOST", ""),
            ("RANK", ""),
            ("PATH", ""),
        ],
    )
    def test_why_a_variable_does_nothing(self, variable: str, reason: str) -> None:
        assert why_not(variable).startswith(reason) and bool(why_not(variable)) is bool(reason)
