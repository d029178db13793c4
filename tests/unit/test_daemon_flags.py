"""Flags of a daemon as they are recorded, and read again by other commands, perhaps of another version."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from hpc_agent.cli.daemon_flags import DaemonFlags

NONE = DaemonFlags.recorded(None)


def test_what_was_given_is_read_again() -> None:
    flags = replace(NONE, queues=("gpu=2", "cpu"), dynamic_gpus=True, gpus="0,1", optimize=2, log_level="DEBUG")
    assert DaemonFlags.recorded(flags.given()) == flags
    assert NONE.given() == {}


@pytest.mark.parametrize(
    ("record", "expected"),
    [
        ({"queues": ["gpu"], "flag_of_a_newer_version": 5}, replace(NONE, queues=("gpu",))),
        ({"queues": 5}, NONE),
        ({"optimize": "twice"}, NONE),
        ({"queues": ["gpu"], "optimize": "twice", "gpus": "0"}, replace(NONE, queues=("gpu",), gpus="0")),
    ],
)
def test_a_record_of_another_version_is_read(record: dict[str, object], expected: DaemonFlags) -> None:
    assert DaemonFlags.recorded(record) == expected
