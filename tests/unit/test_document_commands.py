"""Commands in documents are commands that exist: the real parsers take them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from document_commands import commands_in_blocks, commands_in_text, objection, unknown_names

ROOT = Path(__file__).parents[2]
PAGES = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md", "sbatch_templates/README.md")),
    *sorted((ROOT / "docs").rglob("*.md")),
]
PLACES = ("…", "[", "<")
"""A command line with one of these is a pattern for the reader, and is checked as text is."""


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_commands_in_code_blocks_are_accepted_by_the_real_parser(
    page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = list(commands_in_blocks(page.relative_to(ROOT), page.read_text("utf-8")))
    whole = [command for command in found if not any(place in command.text for place in PLACES)]
    patterns = [command for command in found if command not in whole]
    monkeypatch.chdir(tmp_path)
    for name in {word for command in whole for word in command.words if re.fullmatch(r"[\w-]+\.\w+", word)}:
        Path(name).touch()  # files that the reader has
    assert [f"{command}: {said}" for command in whole if (said := objection(command.words))] == []
    assert [f"{command}: {said}" for command in patterns if (said := unknown_names(command.words))] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_commands_in_the_text_have_the_options_that_they_are_shown_with(page: Path) -> None:
    found = commands_in_text(page.relative_to(ROOT), page.read_text("utf-8"))
    assert [f"{command}: {said}" for command in found if (said := unknown_names(command.words))] == []


def test_the_pages_show_many_commands() -> None:
    found = [command for page in PAGES for command in commands_in_blocks(page, page.read_text("utf-8"))]
    assert len(found) > 40
    assert {command.words[0] for command in found} == {"hpc-agent", "hpc-task"}
    in_text = [command for page in PAGES for command in commands_in_text(page, page.read_text("utf-8"))]
    assert len(in_text) > 60


PAGE = """
A page with `hpc-agent jobs
--colour` in its text, and:

```bash
hpc-agent jobs --queue a | head -1   # a comment
CLEARML_LOG=1 hpc-agent daemon --queue "a b" c \\
    --once > log.txt 2>&1 && hpc-task --name x
```

```
$ hpc-agent why 12
hpc-agent is a word of the output here
```

    exec hpc-agent execute --id "$1" --require-queue
"""


def test_commands_are_found_in_every_kind_of_block() -> None:
    assert [command.words for command in commands_in_blocks(Path("p"), PAGE)] == [
        ("hpc-agent", "jobs", "--queue", "a"),
        ("hpc-agent", "daemon", "--queue", "a b", "c", "--once"),
        ("hpc-task", "--name", "x"),
        ("hpc-agent", "why", "12"),
        ("hpc-agent", "execute", "--id", "$1", "--require-queue"),
    ]
    [command] = commands_in_text(Path("p"), PAGE)
    assert command.line == 2 and unknown_names(command.words) == "no option --colour"


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("hpc-agent job", "No such command 'job'. Did you mean 'jobs'?"),
        ("hpc-agent jobs --colour", "No such option '--colour'"),
        ("hpc-agent why", "Missing argument 'TASK...'."),
        ("hpc-agent jobs --state sleeping", "Invalid value for '--state': 'sleeping' is none of running"),
        ("hpc-agent cache wash", "No such command 'wash'."),
        ("hpc-agent daemon --once --detached", "--"),
        ("hpc-agent sbatch --clearml-color red train.sh", "no option --clearml-color"),
        ("hpc-task --num-gpu 2", "No such option"),
    ],
)
def test_a_command_that_does_not_exist_is_found(line: str, said: str) -> None:
    assert said in objection(line.split())


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("hpc-agent look TASK", "no command look"),
        ("hpc-agent --quiet jobs", "no option --quiet"),
        ("hpc-agent --log-format json jobs --all", "no option --all"),
        ("hpc-agent build --id T --docker [IMAGE ARGS…] --target x [--entry-pointer reuse_task]", "--entry-pointer"),
        ("hpc-agent cache warm --task T", "no option --task"),
    ],
)
def test_an_option_that_does_not_exist_is_found_in_a_pattern(line: str, said: str) -> None:
    assert said in unknown_names(line.split())


@pytest.mark.parametrize("line", ["hpc-agent …", "hpc-agent sbatch --mem 3G x.sh", "hpc-agent --log-format json …"])
def test_patterns_that_are_right_pass(line: str) -> None:
    assert unknown_names(line.split()) == ""
