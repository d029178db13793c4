"""Which programs are taken for ones that use ClearML's SDK, by the signals that they catch."""

from __future__ import annotations

import subprocess

import pytest

from hpc_agent.executor.sdk_signals import catches_as_sdk, has_sdk_handlers

STATUS = "Name:\tpython\nSigIgn:\t0000000001001000\nSigCgt:\t{mask}\nCapInh:\t0000000000000000\n"


@pytest.mark.parametrize(
    ("program", "mask", "expected"),
    [
        ("Python after Task.init", "00000001000044ae", True),
        ("Python", "0000000100000002", False),
        ("Python with a SIGTERM handler", "0000000000004002", False),
        ("Python with faulthandler", "00000000000004ea", False),
        ("podman", "fffffffd7fc1feff", False),
    ],
)
def test_signals_of_real_programs(program: str, mask: str, expected: bool) -> None:
    assert catches_as_sdk(STATUS.format(mask=mask)) is expected, program


def test_a_process_that_is_gone_has_no_handlers() -> None:
    with subprocess.Popen(["true"]) as child:
        child.wait()
    assert not has_sdk_handlers(child.pid)


def test_a_status_without_the_line_has_none() -> None:
    assert not catches_as_sdk("Name:\tpython\n")
