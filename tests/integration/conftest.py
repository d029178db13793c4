"""Parts that several of these tests use."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from faulty_share import Share, mounted


@pytest.fixture
def share(tmp_path: Path) -> Iterator[Share]:
    """A file system that stalls, fills up, or loses what is open, when it is asked to."""
    with mounted(tmp_path / "fuse") as made:
        yield made
