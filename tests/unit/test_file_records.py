"""Files that are there whole or not at all."""

from __future__ import annotations

import resource
from pathlib import Path

import pytest

from hpc_agent.file_records import write_atomic


def test_a_write_that_is_refused_names_the_file_and_leaves_the_old_one(tmp_path: Path) -> None:
    """As on a full disk: the descriptor that refuses has no name."""
    file = tmp_path / "record.json"
    write_atomic(file, b"old")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10, before[1]))
    try:
        with pytest.raises(OSError, match="File too large") as refused:
            write_atomic(file, b"x" * 100)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert refused.value.filename == str(file)
    assert [path.name for path in tmp_path.iterdir()] == ["record.json"]
    assert file.read_bytes() == b"old"
