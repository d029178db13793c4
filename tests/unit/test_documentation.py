"""The documentation keeps its promises: commands exist, settings are described, templates name what there is."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from hpc_agent.cli.main import COMMANDS, group
from hpc_agent.submission.render import own_templates

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()


def commands() -> list[tuple[str, click.Command]]:
    context = click.Context(group)
    found = [(name, group.get_command(context, name)) for name in COMMANDS]
    return [(name, command) for name, command in found if command is not None]


@pytest.mark.parametrize("name", list(COMMANDS))
def test_every_command_has_help_and_stands_in_the_readme(name: str) -> None:
    done = CliRunner().invoke(group, [name, "--help"])
    assert done.exit_code == 0, done.output
    assert f"hpc-agent {name}" in README


def test_every_option_of_every_command_has_help() -> None:
    todo = commands()
    bare = []
    while todo:
        name, command = todo.pop()
        if isinstance(command, click.Group):
            todo += [(f"{name} {inner}", child) for inner, child in command.commands.items()]
        bare += [
            f"{name} {parameter.opts[0]}"
            for parameter in command.params
            if isinstance(parameter, click.Option) and not parameter.help
        ]
        assert command.help, f"{name} has no help"
    assert bare == []


def test_the_settings_page_is_up_to_date_and_complete() -> None:
    subprocess.run([sys.executable, str(ROOT / "scripts" / "reference"), "--check"], check=True)
    page = (ROOT / "docs" / "settings.md").read_text()
    empty = [line for line in page.splitlines() if line.startswith("| `") and line.endswith("|  |")]
    assert empty == []


def test_the_files_that_the_readme_links_to_exist() -> None:
    links = re.findall(r"\]\((?!https?:)([^)#]+)\)", README)
    assert links
    assert [link for link in links if not (ROOT / link).exists()] == []


def test_every_block_and_template_is_described() -> None:
    folder = own_templates()
    page = (folder / "README.md").read_text()
    templates = list(folder.glob("*.j2"))
    assert templates
    for template in templates:
        assert f"`{template.name}`" in page
        for block in re.findall(r"{%-? block (\w+)", template.read_text()):
            assert f"| `{block}` |" in page
