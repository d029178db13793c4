"""What a task of ``hpc-agent sbatch`` shows of the command line that made it."""

from __future__ import annotations

from pathlib import Path

import pytest

from hpc_agent.redact import HIDDEN
from hpc_agent.secret_values import masked_text, masked_words
from hpc_agent.tracking.command_line import parse
from hpc_agent.tracking.describe import comment, describe, exported_names
from hpc_agent.tracking.sbatch_options import ArrayElements
from hpc_agent.tracking.submission_request import read_script


def shown(folder: Path, *words: str) -> str:
    """Everything of the task that others read."""
    (folder / "job.sh").write_text("#!/bin/bash\ntrue\n")
    command = parse(words)
    submitted = read_script(command, folder, lambda: b"").submitted
    described = describe(submitted, ArrayElements())
    return "\n".join(
        [comment(command, described.notes, "Submitted"), described.script.entry_point, described.script.diff]
    )


@pytest.mark.parametrize(
    "words",
    [
        ("--export=ALL,MY_API_TOKEN=hunter2", "job.sh"),
        ("--export", "PLAIN=hunter2,B=hunter2", "job.sh"),
        ("-N1", '--export=A="hunter2,hunter2",B', "-n", "1", "job.sh"),
        ("--export=A='hunter2 hunter2'", "job.sh"),
        ("--export=A=1", ":", "--export=B=hunter2", "job.sh"),
        ("job.sh", "--token=hunter2"),
        ("job.sh", "--token", "hunter2"),
        ("job.sh", "--hf-token", "hunter2", "--lr", "3"),
        ("job.sh", "-H", "Authorization: Bearer hunter2"),
        ("job.sh", "X-Api-Key: hunter2"),
        ("job.sh", "DB_PASSWORD=hunter2"),
        ("job.sh", "https://u:hunter2@h/x"),
        ("job.sh", "-u", "me:hunter2"),
        ("job.sh", "ghp_hunter2hunter2"),
        ("job.sh", "--env=MY_TOKEN=hunter2"),
        ("job.sh", '{"lr": 1, "api_key": "hunter2"}'),
        ("job.sh", "db.password=hunter2"),
        ("--wrap=docker run --env=TOKEN=hunter2 x",),
        ("--wrap", "curl -H 'Authorization: Bearer hunter2' https://h"),
        ("--wrap=curl -u me:hunter2 https://h",),
        ("--wr=curl -u me:hunter2 https://h",),
        ("--wra", "TOKEN=hunter2 curl"),
        ("--wrap=PGPASSWORD=hunter2 psql",),
        ("--wrap=export TOKEN='hunter2'; run --password hunter2 --api-key=hunter2",),
        ("--wrap=wget --header 'PRIVATE-TOKEN: hunter2' https://u:hunter2@h/x",),
        ("--wrap", "python train.py", "--comment=https://u:hunter2@h"),
        ("--export=A=x,hunter2", "job.sh"),
        ("job.sh", "--pwd", "hunter2"),
        ("job.sh", "--db-pw=hunter2"),
        ("job.sh", "/password:hunter2"),
        ("job.sh", "--login", "me:hunter2"),
        ("job.sh", "--user=me:hunter2"),
        ("job.sh", "-ume:hunter2"),
        ("job.sh", "me:hunter2@host:/data"),
        ("job.sh", "--token", "-hunter2"),
        ("job.sh", "--header=Authorization: Token hunter2"),
        ("job.sh", "-HAuthorization: Token hunter2"),
        ("job.sh", "https://h/x?se=1&sig=hunter2"),
        ("job.sh", "https://b.s3/x?X-Amz-Signature=hunter2"),
        ("job.sh", "Server=db;Pwd=hunter2;"),
        ("job.sh", "sk_live_hunter2hunter2"),
        ("job.sh", "https://hooks.slack.com/services/T0/B0/hunter2"),
        ("--wrap=curl -H 'Authorization: Token hunter2' h",),
        ("--wrap=curl -H Authorization:\\ Token\\ hunter2 h",),
        ("--wrap=TOKEN=$'hunter2' run",),
        ("--wrap=TOKEN=\\\nhunter2 run",),
        ("--wrap=run --token\\\n hunter2",),
        ("--wrap=sshpass -p hunter2 ssh h",),
        ("--wrap=sshpass -p'hunter2' ssh h",),
        ("--wrap=mysqldump -phunter2 db",),
        ("--wrap=docker login -u me -p hunter2 h",),
        ("--wrap=wandb login hunter2hunter2hunter2",),
    ],
)
def test_no_secret_of_the_command_line_is_shown(tmp_path: Path, words: tuple[str, ...]) -> None:
    assert "hunter2" not in shown(tmp_path, *words)


def test_what_is_none_is_shown_as_it_was_written(tmp_path: Path) -> None:
    text = shown(
        tmp_path, "--export=ALL,A=1", "-N", "2", "--job-name=key", "job.sh", "--lr=0.1", "a b", "--name", "x:y"
    )
    image = "lab/image:1.0@sha256:0123abcd"
    assert masked_words(["login", "node1", "-p", "8080:80", image]) == ["login", "node1", "-p", HIDDEN, image]
    assert masked_words(["mkdir", "-p", "x", "-pv"]) == ["mkdir", "-p", "x", "-pv"]
    assert "sbatch --export=ALL,A -N 2 --job-name=key job.sh --lr=0.1 'a b' --name x:y" in text
    assert "--lr=0.1 'a b' --name x:y" in text.splitlines()[1]
    assert HIDDEN not in text


def test_the_comment_says_that_something_is_left_out(tmp_path: Path) -> None:
    assert f"{HIDDEN} replaces what looked like a secret" in shown(tmp_path, "job.sh", "--token=hunter2")


@pytest.mark.parametrize(
    ("value", "names"),
    [
        ("ALL", "ALL"),
        ("NONE", "NONE"),
        ("A=1,B", "A,B"),
        ('A="x,y",B', "A,B"),
        ("A='", "A"),
        ("", ""),
        ("A=1=2", "A"),
        ("a=1,b,B", "a,B"),
    ],
)
def test_of_exported_variables_the_names_remain(value: str, names: str) -> None:
    assert exported_names(value) == names


def test_masked_text_keeps_its_shape() -> None:
    assert masked_text("a  --token   b\n'c d' --x 1") == f"a  --token   {HIDDEN}\n'c d' --x 1"
    assert masked_words(["--token", "--other", "x"]) == ["--token", "--other", "x"]


def test_long_texts_are_masked_in_one_look() -> None:
    """A text whose characters are each looked at again and again does not come to its end here."""
    for text in ("a=" * 20_000, "a-" * 20_000, "token=" * 20_000, "token " * 20_000, '"a" : ' * 20_000):
        assert len(masked_text(text)) <= len(text)
