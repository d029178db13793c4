"""A hostile server rules the jobs, but not the login node's files, Slurm's options or our memory."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from attacks import server_answers
from attacks.case import Case


@pytest.fixture(scope="module", autouse=True)
def _world() -> Iterator[None]:
    with server_answers.world():
        yield


@pytest.mark.parametrize("case", server_answers.CASES, ids=lambda case: case.name[:80])
def test_nothing_gets_in(case: Case, tmp_path: Path) -> None:
    assert case.attempt(tmp_path) == ""
