"""Pulls of images: what the person who waits sees, and why one failed."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from manual_clock import ManualClock

from hpc_agent.clock import SYSTEM
from hpc_agent.containers.apptainer import Apptainer
from hpc_agent.containers.images import Images
from hpc_agent.containers.pull import ImagePull
from hpc_agent.errors import ContainerError, ProcessError
from hpc_agent.process import programs


def printing(text: str, code: int = 0) -> list[str]:
    return [sys.executable, "-c", f"import sys; sys.stderr.write({text!r}); sys.exit({code})"]


@pytest.mark.parametrize(
    ("output", "sentence", "again"),
    [
        (
            "FATAL:   While making image from oci registry: GET https://index.docker.io/v2/x: MANIFEST_UNKNOWN: "
            "manifest unknown",
            "its registry has no image of this name and tag: While making image",
            False,
        ),
        (
            "Error response from daemon: pull access denied for x, repository does not exist or may require 'docker "
            "login'",
            "its registry has no image of this name and tag",
            False,
        ),
        (
            "Error: unable to copy: unauthorized: access to the requested resource",
            "does not show it to this account",
            False,
        ),
        ("dial tcp 10.0.0.1:443: i/o timeout", "its registry does not answer", True),
        ("net/http: TLS handshake timeout", "its registry does not answer", True),
        ("toomanyrequests: You have reached your pull rate limit", "its registry takes no more requests", True),
        (
            "error: GET failed; expected status {401, 404, 200, 429} but got 503: Service Unavailable",
            "its registry does not answer",
            True,
        ),
        ("write /tmp/x: no space left on device", "a disk is full", False),
        ('exec: "mksquashfs": executable file not found in $PATH', "cannot be fetched: exec", False),
    ],
)
def test_why_a_pull_failed(output: str, sentence: str, again: bool) -> None:
    pull = ImagePull("lab/tools:1", None, SYSTEM, lambda line: None)
    with pytest.raises(ContainerError) as caught:
        pull.run([printing(output, 255)])
    assert str(caught.value).startswith("the image lab/tools:1 cannot be fetched: ")
    assert sentence in str(caught.value)
    assert caught.value.retryable is again


def test_a_program_that_fetches_is_missing(tmp_path: Path) -> None:
    pull = ImagePull("lab/tools:1", tmp_path / ".0.image", SYSTEM, lambda line: None)
    with pytest.raises(ContainerError, match=f"no-enroot is not on this machine: .* into {tmp_path}$"):
        pull.run([["no-enroot", "import"]])


def test_a_long_pull_shows_that_it_goes_on(tmp_path: Path) -> None:
    clock, seen = ManualClock(), list[str]()
    making = tmp_path / "image.sif"
    making.write_bytes(b"x" * 3_000_000)
    pull = ImagePull("docker://user:word@r/lab/tools:1", making, clock, seen.append)
    pull._show(["INFO:    Converting OCI blobs to SIF format", "INFO:    To see mksquashfs output with progress bar …"])
    assert seen == []
    clock.sleep(20)
    pull._show([])
    assert seen == ["Fetching the image docker://r/lab/tools:1: 20 s, 3 MB written, Converting OCI blobs to SIF format"]
    clock.sleep(20)
    pull._show([])
    assert len(seen) == 1  # nothing new, and not yet a minute
    clock.sleep(150)
    pull._show(["\x1b[33mWARNING: slow\x1b[0m"])
    assert seen[1].endswith("3 min, 3 MB written, slow")


def test_a_name_that_is_too_long_for_a_file(tmp_path: Path) -> None:
    program = tmp_path / "apptainer"
    program.write_text('#!/bin/sh\nwhile [ $# -gt 2 ]; do shift; done; echo image >"$1"\n')
    program.chmod(0o755)
    names = [f"registry.example:5000/{'a' * 300}:{tag}" for tag in (1, 2)]
    images = Images(Apptainer(str(program)), tmp_path / "images", SYSTEM)
    files = {images.stage(name, lambda line: None, share=True).location for name in names}
    assert len(files) == 2 and all(Path(file).is_file() for file in files)


def test_lines_of_a_program_come_while_it_runs() -> None:
    code = "import time\nfor n in range(3):\n print('line', n, end='\\r', flush=True)\n time.sleep(1.2)\nprint('end')"
    calls: list[list[str]] = []
    answer = programs.run_reporting(
        [sys.executable, "-c", code], timeout=60, on_lines=lambda new: calls.append(list(new))
    )
    assert answer.ok and answer.stdout.split("\n") == ["line 0", "line 1", "line 2", "end"]
    assert len([new for new in calls if new]) >= 2


def test_a_program_that_takes_too_long_is_killed() -> None:
    with pytest.raises(ProcessError, match=r"sleep was not done after 0\.1 s"):
        programs.run_reporting(["sleep", "60"], timeout=0.1, on_lines=lambda new: None)
    with pytest.raises(ProcessError, match="could not start /no/such"):
        programs.run_reporting(["/no/such"], timeout=1, on_lines=lambda new: None)
