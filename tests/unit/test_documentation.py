"""The documentation keeps its promises: commands exist, settings are described, templates name what there is."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.testing import CliRunner
from document_links import anchors, citations, texts, wrong

from hpc_agent import __version__
from hpc_agent.cli.main import COMMANDS, group
from hpc_agent.schedulers.slurm.script import own_templates
from hpc_agent.server.left_out import LEFT_OUT
from hpc_agent.server.services import ENDPOINTS

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
COMMANDS_PAGE = (ROOT / "docs" / "commands.md").read_text()
RECIPES = (ROOT / "CONTRIBUTING.md").read_text()
TO_BE_NAMED = {"NAME", "NameSettings"}
"""Names in the recipes that are in the place of what the reader writes."""


def commands() -> list[tuple[str, click.Command]]:
    context = click.Context(group)
    found = [(name, group.get_command(context, name)) for name in COMMANDS]
    return [(name, command) for name, command in found if command is not None]


@pytest.mark.parametrize("name", list(COMMANDS))
def test_every_command_has_help_and_a_row_in_the_reference(name: str) -> None:
    done = CliRunner().invoke(group, [name, "--help"])
    assert done.exit_code == 0, done.output
    assert f"| `hpc-agent {name}" in COMMANDS_PAGE


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


def test_the_endpoints_page_lists_and_describes_every_endpoint() -> None:
    page, _, left_out = (ROOT / "docs" / "endpoints.md").read_text().partition("## What is left out")
    rows = [line.split(" | ") for line in page.splitlines() if line[:3] == "| `"]
    assert {cells[0].strip("| `") for cells in rows} == set(ENDPOINTS)
    assert [name for name in LEFT_OUT if f"| `{name}` | " not in left_out or name in ENDPOINTS] == []
    assert [cells[0] for cells in rows if not cells[1].strip()] == []


def test_every_document_heading_and_module_that_is_cited_is_in_the_repository() -> None:
    found = [citation for file in texts(ROOT) for citation in citations(file, (ROOT / file).read_text("utf-8"))]
    assert {citation.file.parts[0] for citation in found} >= {"README.md", "docs", "hpc_agent", "scripts", "tests"}
    modules = [citation for citation in found if citation.path.endswith(".py")]
    assert {citation.file.as_posix() for citation in modules} >= {"CONTRIBUTING.md", "tests/data/slurm/README.md"}
    assert [reason for citation in found if (reason := wrong(ROOT, citation))] == []


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("hpc_agent/lease.py", "a fact (nowhere" + ".md 1.2)"),
        ("hpc_agent/lease.py", "See docs/slurm" + ".md#nowhere."),
        ("hpc_agent/lease.py", 'DOCS / "nowhere' + '.md"'),
        ("docs/slurm.md", "[a page](README" + ".md#nowhere)"),
        ("docs/slurm.md", "[another](../docs/nowhere" + ".md)"),
        ("docs/slurm.md", "[a heading](#nowhere)"),
        ("docs/slurm.md", "[no page](../scripts/nowhere)"),
        ("docs/slurm.md", "see `hpc_agent/schedulers/nowhere" + ".py`"),
        ("docs/slurm.md", "tests/nowhere" + ".py says so"),
        ("hpc_agent/lease.py", "# as in ``hpc_agent/nowhere" + ".py``"),
    ],
)
def test_a_citation_that_leads_nowhere_is_found(file: str, text: str) -> None:
    assert [wrong(ROOT, citation) for citation in citations(Path(file), text)] != [""]
    assert list(citations(Path(file), text)) != []


def test_a_heading_has_the_anchor_that_web_pages_give_it() -> None:
    page = "# ClearML's `protocol`\n## Job ids\n```\n# no heading\n```\n### [a](b) — c\n"
    assert anchors(page) == {"clearmls-protocol", "job-ids", "a--c"}


def test_the_readme_fits_on_two_screens_and_shows_the_two_commands() -> None:
    assert len(README.splitlines()) <= 130
    assert "scripts/demo\n" in README and "hpc-agent daemon --queue" in README


def test_the_index_lists_every_page() -> None:
    index = (ROOT / "docs" / "README.md").read_text()
    pages = {path.relative_to(ROOT / "docs").as_posix() for path in (ROOT / "docs").rglob("*.md")} - {"README.md"}
    assert {page for page in pages if f"]({page}" not in index} == set()


def test_the_recipes_name_files_that_are_there() -> None:
    named = set(re.findall(r"`?\b((?:hpc_agent|tests|scripts|sbatch_templates|docs|\.github)/[\w./-]+)", RECIPES))
    assert len(named) > 30
    assert [name for name in sorted(named) if not (ROOT / name).exists() and "NAME" not in name] == []


def test_names_in_the_recipes_are_defined_in_the_code() -> None:
    """Classes, constants and private functions, with the attribute that follows: ``Things.request``."""
    code = "\n".join(
        path.read_text("utf-8")
        for path in (*ROOT.glob("hpc_agent/**/*.py"), *ROOT.glob("tests/**/*.py"), *ROOT.glob("scripts/*.py"))
    )
    defined = set(re.findall(r"^\s*(?:class|def) (\w+)|^\s*(\w+)(?=: | = )", code, re.MULTILINE))
    names = {name for pair in defined for name in pair}
    quoted = re.findall(r"`((?:_?[A-Z]|_[a-z])\w+(?:\.\w+)*)", RECIPES)
    named = {part for text in quoted for part in text.split(".") if not text.endswith(".md")} - TO_BE_NAMED
    assert named >= {"Backend", "ImageStore", "SCHEDULERS", "_real_site", "Things", "request"}
    assert named - names == set()


def test_every_recipe_has_a_command_that_says_done() -> None:
    recipes = re.split(r"^### ", RECIPES.partition("## Recipes")[2].partition("\n## ")[0], flags=re.MULTILINE)[1:]
    assert len(recipes) == 6
    assert [recipe.splitlines()[0] for recipe in recipes if "scripts/test tests/" not in recipe] == []


def test_the_glossary_is_sorted_and_defines_each_term_once() -> None:
    rows = re.findall(r"^\| (.+?) \| (.+) \|$", (ROOT / "docs" / "glossary.md").read_text(), re.MULTILINE)
    terms = [term for term, _ in rows if term not in ("term", "---")]
    assert len(terms) >= 40
    assert terms == sorted(set(terms), key=str.lower)


def test_the_changelog_has_the_next_version_or_this_one() -> None:
    headings = re.findall(r"^## \[(.+?)\](.*)$", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert headings[0][0] in ("Unreleased", __version__)
    released = [(version, rest) for version, rest in headings if version != "Unreleased"]
    assert [v for v, rest in released if not re.fullmatch(r" - \d{4}-\d{2}-\d{2}", rest)] == []


def test_every_block_and_template_is_described() -> None:
    folder = own_templates()
    page = (folder / "README.md").read_text()
    templates = list(folder.glob("*.j2"))
    assert templates
    for template in templates:
        assert f"`{template.name}`" in page
        for block in re.findall(r"{%-? block (\w+)", template.read_text()):
            assert f"| `{block}` |" in page
