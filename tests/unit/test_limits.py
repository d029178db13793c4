"""Bounds on what a task says about its source."""

from __future__ import annotations

from typing import Any

import pytest

from hpc_agent.domain.task import Requirements, TaskScript
from hpc_agent.errors import SourceError
from hpc_agent.sources.layout import MAX_DIFF_LENGTH, MAX_FIELD_LENGTH, check_limits


@pytest.mark.parametrize("field", ["repository", "branch", "tag", "commit", "entry_point", "working_dir", "binary"])
@pytest.mark.parametrize(
    ("value", "words"),
    [("x" * (MAX_FIELD_LENGTH + 1), "characters"), ("a\0b", "NUL"), ("\ud800", "UTF-8")],
)
def test_field_that_cannot_be_meant_is_named(field: str, value: str, words: str) -> None:
    with pytest.raises(SourceError, match=words) as error:
        given: dict[str, Any] = {field: value}
        check_limits(TaskScript(**given))
    assert field.replace("_", " ") in str(error.value)


@pytest.mark.parametrize(
    ("script", "words"),
    [
        (TaskScript(diff="x" * (MAX_DIFF_LENGTH + 1)), "commit and push"),
        (TaskScript(diff="\udfff"), "UTF-8"),
        (TaskScript(requirements=Requirements(pip=("a",) * 20_001)), "list of packages"),
        (TaskScript(requirements=Requirements(pip=("a" * 4_000_001,))), "list of packages"),
        (TaskScript(requirements=Requirements(org_pip=("\ud800",))), "UTF-8"),
    ],
)
def test_what_is_too_much_is_refused(script: TaskScript, words: str) -> None:
    with pytest.raises(SourceError, match=words):
        check_limits(script)


def test_what_people_send_passes() -> None:
    check_limits(
        TaskScript(
            repository="https://host/" + "x" * 200,
            entry_point="für.py",
            diff="x" * 5_000_000,
            requirements=Requirements(pip=("six",) * 2000, conda=("a",)),
        )
    )
