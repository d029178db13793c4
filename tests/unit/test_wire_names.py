"""ClearML's field names and error numbers are in ``hpc_agent/wire``, and in the embedded server, only."""

from __future__ import annotations

import ast
import re
from pathlib import Path

from syntax_trees import syntax_nodes

PACKAGE = Path(__file__).parents[2] / "hpc_agent"
KNOWS_NAMES = {"wire", "server"}

FIELD = re.compile(
    r"status_(message|reason|changed)|last_worker(_report)?|version_num|hyperparams|replace_hyperparams|docker_cmd"
    r"|new_task_\w+|output_dest|_hpc_agent_\w+|_exec_agent_hostname|_slurm_job_id|_abort_\w+"
)
"""Fields of ClearML's task object, runtime properties and requests whose names mean nothing else."""


def literals() -> list[tuple[str, ast.Constant]]:
    return [
        (f"{path.relative_to(PACKAGE)}:{node.lineno}", node)
        for path in sorted(PACKAGE.rglob("*.py"))
        if path.relative_to(PACKAGE).parts[0] not in KNOWS_NAMES
        for node in syntax_nodes(path)
        if isinstance(node, ast.Constant)
    ]


def test_no_other_package_spells_fields_of_a_task() -> None:
    found = [
        f"{place} {node.value}"
        for place, node in literals()
        if isinstance(node.value, str) and FIELD.fullmatch(node.value)
    ]
    assert found == []


def test_field_names_are_found_where_they_belong() -> None:
    text = "".join(path.read_text(encoding="utf-8") for path in (PACKAGE / "wire").glob("*.py"))
    assert {"status_message", "version_num", "_slurm_job_id"} <= {
        name.strip('"') for name in re.findall(r'"\w+"', text)
    }


def test_no_other_package_compares_with_the_number_of_an_error() -> None:
    found = [
        f"{path.relative_to(PACKAGE)}:{node.lineno}"
        for path in sorted(PACKAGE.rglob("*.py"))
        if path.relative_to(PACKAGE).parts[0] not in KNOWS_NAMES
        for node in syntax_nodes(path)
        if isinstance(node, ast.Compare)
        and any(isinstance(part, ast.Attribute) and part.attr == "subcode" for part in ast.walk(node))
    ]
    assert found == []
