"""Texts that the page makes of a task's fields."""

from __future__ import annotations

import pytest

from hpc_agent.server.page.rendering import natural_order, status_text


@pytest.mark.parametrize(
    ("reason", "message", "shown"),
    [
        ("Forced stop (non-responsive)", "Forced stop (non-responsive)", "Forced stop (non-responsive)"),
        ("worker execution exit code 1", "out of memory", "worker execution exit code 1 · out of memory"),
        (None, "out of memory", "out of memory"),
        ("", None, ""),
    ],
)
def test_the_status_is_explained_once(reason: str | None, message: str | None, shown: str) -> None:
    assert status_text({"status_reason": reason, "status_message": message}) == shown


def test_numbers_in_names_are_sorted_as_numbers() -> None:
    names = ["layer 10", "layer 2", "loss", "layer 2 b", "9" * 5000]
    assert sorted(names, key=natural_order) == ["9" * 5000, "layer 2", "layer 2 b", "layer 10", "loss"]
