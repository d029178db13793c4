"""Real repositories, by path and over HTTP with a password."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from http_git import HttpRemote, serve_git
from source_site import SourceSite


@pytest.fixture
def world(tmp_path: Path) -> SourceSite:
    return SourceSite(tmp_path)


@pytest.fixture
def http_remote(world: SourceSite) -> Iterator[HttpRemote]:
    """Serves ``world``'s repositories to who has the password."""
    with serve_git(world.folder / "remotes") as remote:
        yield remote
