"""Names of tasks and projects that are made from names of jobs and folders."""

from __future__ import annotations

import pytest

from hpc_agent.domain.draft import name_from


@pytest.mark.parametrize(("text", "name"), [("train", "train"), ("a.sh", "a.sh"), ("t1", "job t1"), ("", "job")])
def test_names_too_short_for_clearml_say_what_they_are_of(text: str, name: str) -> None:
    assert name_from(text, "job") == name
