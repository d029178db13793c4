"""Wrong input to ``hpc-task``, and servers that fail: one sentence, the right exit code, nothing half-made left."""

from __future__ import annotations

import json
import shlex
import sys
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import pytest
from faulty_server import LOST, LOST_ONCE, REFUSED, faulty_server
from task_bench import Bench, make_bench


@pytest.fixture(scope="module")
def bench(clearml_server: Any, tmp_path_factory: pytest.TempPathFactory) -> Bench:
    return make_bench(tmp_path_factory.mktemp("bench"), clearml_server, None)


BAD = [
    ("--script train.py", 2, "a task needs a name"),
    ("--name n --script train.py", 2, "a task needs a project"),
    ("--project p --name n", 2, "nothing to run"),
    ("--project p --name n --script train.py --module m", 2, "--script or --module"),
    ("--project p --name n --script train.py --branch b --commit c", 2, "--branch"),
    ("--project p --name n --script train.py --packages a --args lr", 2, "name=value"),
    ("--project p --name n --script train.py --task-type wrong", 2, "'wrong' is not one of"),
    ("--project p --name n --script train.py --unknown", 2, "--unknown"),
    ("--import-offline-session x.zip --name n", 2, "does not go with --name"),
    ("--project p --name n --script none.py", 1, "the script none.py does not exist"),
    ("--project p --name n --script train.py", 1, "give --packages or --requirements"),
    ("--project p --name n --script train.py --packages", 1, "give --packages or --requirements"),
    ("--project p --name n --script train.py --packages a=1", 1, "'a=1' is not a requirement"),
    ("--project p --name n --script train.py --requirements none.txt", 1, "none.txt does not exist"),
    ("--project p --name n --script train.py --requirements wrong.txt", 1, "wrong.txt, line 2: 'b=1'"),
    ("--project p --name n --script train.py --packages a --queue none", 1, 'there is no queue "none"'),
    ("--project p --name n --folder none --script train.py", 1, "--folder none is not a folder"),
    ("--project p --name n --script train.py --packages a --docker_bash_setup_script none.sh", 1, "none.sh"),
    ("--project p --name n --script train.py --packages a --output-uri out", 1, "--output-uri out"),
    ("--name n --base-task-id 0123456789abcdef0123456789abcdef", 1, "the task 0123456789abcdef"),
    ("--name n --base-task-id nobody", 1, 'no task has the id or name "nobody"'),
    ("--import-offline-session none.zip", 1, "none.zip does not exist"),
    ("--import-offline-session run.sh", 1, "not a readable zip file"),
    ("--import-offline-session sub", 1, "not an offline session"),
]


@pytest.mark.parametrize(("line", "code", "words"), BAD, ids=[line for line, _, _ in BAD])
def test_bad_input_is_one_sentence_and_creates_nothing(bench: Bench, line: str, code: int, words: str) -> None:
    (bench.folder / "plain" / "wrong.txt").write_text("a\nb=1\n")
    before = bench.count()
    done = bench.ours(shlex.split(line), "plain")
    assert (done.returncode, done.stdout) == (code, "")
    assert words in done.stderr and "Traceback" not in done.stderr
    if "Usage:" not in done.stderr:
        assert len(done.stderr.splitlines()) == 1
    assert bench.count() == before


@pytest.mark.parametrize(
    ("conf", "words"),
    [
        ('api { api_server: "http://127.0.0.1:9", credentials { access_key: k, secret_key: s } }', "cannot be reached"),
        ("api { }", "no ClearML server is configured"),
        ("api { api_server ", "not valid HOCON"),
        ('include "{server}"\napi.credentials.secret_key: wrong', "check the access key"),
    ],
)
def test_a_server_that_does_not_let_us_in(bench: Bench, tmp_path: Path, conf: str, words: str) -> None:
    file = tmp_path / "clearml.conf"
    file.write_text(conf.replace("{server}", bench.env["CLEARML_CONFIG_FILE"]))
    done = bench.ours(bench.argv("--script train.py --packages a"), "plain", CLEARML_CONFIG_FILE=str(file))
    assert done.returncode == 1 and words in done.stderr and len(done.stderr.splitlines()) == 1


def test_help_imports_only_click(bench: Bench) -> None:
    code = (
        "import sys\nfrom hpc_agent.cli.task import task\n"
        "task(['--help'], standalone_mode=False)\n"
        "print([m for m in sys.modules if m.partition('.')[0] in ('requests', 'msgspec', 'packaging', 'pyhocon')])"
    )
    assert bench.run([sys.executable, "-c", code], [], ".").stdout.splitlines()[-1] == "[]"


def through(bench: Bench, tmp_path: Path, faults: dict[str, str], arguments: list[str]) -> CompletedProcess[str]:
    """Run hpc-task on a server with faults."""
    with faulty_server(bench.client.session.settings.api_server, faults) as url:
        file = tmp_path / "clearml.conf"
        file.write_text(f'include "{bench.env["CLEARML_CONFIG_FILE"]}"\napi.api_server: "{url}"\n')
        return bench.ours(arguments, "plain", CLEARML_CONFIG_FILE=str(file))


@pytest.mark.parametrize(
    ("faults", "words", "left"),
    [
        ({"tasks.create": REFUSED}, "made to fail", 0),
        ({"tasks.enqueue": REFUSED}, "made to fail (400/0); the task was created and deleted again", 0),
        ({"tasks.enqueue": REFUSED, "tasks.delete": REFUSED}, "is left as it is: http", 1),
        ({"tasks.enqueue": LOST}, "the server may have carried out the rest: look at http", 1),
    ],
)
def test_a_server_that_fails_in_the_middle(
    bench: Bench, tmp_path: Path, faults: dict[str, str], words: str, left: int
) -> None:
    before = bench.count()
    done = through(bench, tmp_path, faults, bench.argv("--script train.py --packages a --queue {queue}"))
    assert done.returncode == 1 and words in done.stderr, done.stderr
    assert (len(done.stderr.splitlines()), done.stdout) == (1, "")
    assert bench.count() == before + left


def test_lost_reply_to_enqueue_is_not_an_error(bench: Bench, tmp_path: Path) -> None:
    arguments = [*bench.argv("--script train.py --packages a --queue {queue}"), "--json"]
    done = through(bench, tmp_path, {"tasks.enqueue": LOST_ONCE}, arguments)
    assert done.returncode == 0, done.stderr
    assert bench.client.tasks.get_object(json.loads(done.stdout)["id"])["status"] == "queued"


def test_a_copy_that_fails_in_the_middle_is_deleted(bench: Bench, tmp_path: Path) -> None:
    base = json.loads(bench.ours([*bench.argv("--script train.py --packages a"), "--json"], "plain").stdout)["id"]
    before = bench.count()
    done = through(bench, tmp_path, {"tasks.edit": REFUSED}, ["--name", "changed", "--base-task-id", base])
    assert done.returncode == 1 and "created and deleted again" in done.stderr
    assert bench.count() == before
