"""Flags that are missing or contradict each other are wrong usage, whatever files and server say."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec.structs import replace

from hpc_agent.cli import task as cli
from hpc_agent.domain.draft import TASK_TYPES
from hpc_agent.drafts.draft_request import DraftRequest, WrongUsageError, check_usage, is_address

GOOD = DraftRequest(name="n", project="p", script="a.py")


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"script": "", "module": "m"},
        {"args": ("lr=", "a=b=c")},
        {"repo": "https://host/a.git", "branch": "b", "cwd": "src"},
        {"script": "", "project": "", "base_task_id": "x"},
        {"repo": "./folder", "cwd": "/abs"},
    ],
)
def test_good_usage(changes: dict[str, Any]) -> None:
    check_usage(replace(GOOD, **changes))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"name": " "}, "give --name"),
        ({"project": ""}, "give --project"),
        ({"script": ""}, "nothing to run"),
        ({"module": "m"}, "--script or --module"),
        ({"branch": "b", "commit": "c"}, "--branch"),
        ({"repo": "https://host/a.git", "folder": "."}, "--repo or --folder"),
        ({"repo": "https://host/a.git", "cwd": "/abs"}, "relative to the root"),
        ({"args": ("lr",)}, "not 'lr'"),
        ({"args": ("=3",)}, "not '=3'"),
        ({"tags": ("",)}, "empty tag"),
        ({"base_task_id": "x", "pipeline": True}, "--pipeline"),
        ({"base_task_id": "x", "script": "", "repo": "https://host/a.git"}, "keeps the code"),
    ],
)
def test_wrong_usage(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(WrongUsageError, match=words):
        check_usage(replace(GOOD, **changes))


@pytest.mark.parametrize(
    ("repo", "address"),
    [
        ("https://host/a.git", True),
        ("ssh://git@host/a.git", True),
        ("file:///srv/a.git", True),
        ("git@host:a/b.git", True),
        ("host:a.git", True),
        (".", False),
        ("~/code", False),
        ("/srv/a.git", False),
        ("a/b:c", False),
    ],
)
def test_an_address_or_a_folder(repo: str, address: bool) -> None:
    assert is_address(repo) is address
    assert bool(DraftRequest(repo=repo).remote) is address
    assert DraftRequest(repo=repo).local == ("" if address else repo)


def test_the_command_offers_the_servers_types() -> None:
    assert cli.TASK_TYPES == TASK_TYPES
