"""Output of the ranks of a node: whole lines, each with its prefix, in one stream."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import IO

import pytest
from waiting import HANG_S, equals, wait_until

from hpc_agent.telemetry import rank_output
from hpc_agent.telemetry.rank_output import LONGEST_LINE, TAIL_BYTES, RankLines


@pytest.mark.parametrize(
    ("pieces", "expected"),
    [
        ([b"one\ntwo\n"], b"[n2:1] one\n[n2:1] two\n"),
        ([b"on", b"e\ntw", b"o\n"], b"[n2:1] one\n[n2:1] two\n"),
        ([b"10%\r20%\r", b"done\n"], b"[n2:1] 10%\r[n2:1] 20%\r[n2:1] done\n"),
        ([b"windows\r", b"\nline\r\n"], b"[n2:1] windows\r\n[n2:1] line\r\n"),
        ([b"\n\n"], b"[n2:1] \n[n2:1] \n"),
        ([b"no end"], b"[n2:1] no end\n"),
        ([b"\xff\x00\n"], b"[n2:1] \xff\x00\n"),
        ([], b""),
    ],
)
def test_each_line_has_its_prefix(pieces: list[bytes], expected: bytes) -> None:
    lines = RankLines(b"[n2:1] ")
    assert b"".join(map(lines.put, pieces)) + lines.finish()[0] == expected


def test_a_line_without_an_end_does_not_wait_forever() -> None:
    lines = RankLines(b"")
    long = b"x" * (LONGEST_LINE + 1)
    assert lines.put(long) == long + b"\n"


def test_the_end_of_what_a_rank_printed_is_kept() -> None:
    lines = RankLines(b"[n2:1] ")
    lines.put(b"a" * TAIL_BYTES + b"\nlast words\n")
    rest, tail = lines.finish()
    assert (rest, len(tail)) == (b"", TAIL_BYTES)
    assert tail.endswith(b"a\nlast words\n")


def start(folder: Path, *prefixes: str) -> subprocess.Popen[bytes]:
    for number in range(len(prefixes)):
        os.mkfifo(folder / f"rank.{number}")
    return subprocess.Popen(
        [sys.executable, "-I", "-S", rank_output.__file__, str(folder), *prefixes],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def report(errors: IO[bytes] | None) -> dict[str, object]:
    assert errors is not None
    found: dict[str, object] = json.loads(errors.readline())
    return found


def test_ranks_share_one_stream_and_their_ends_are_reported(tmp_path: Path) -> None:
    child = start(tmp_path, "", "[n1:1] ")
    assert report(child.stderr)["rank"] == -1
    with (tmp_path / "rank.1").open("wb") as one:
        one.write(b"from one\nwith")
        one.flush()
        with (tmp_path / "rank.0").open("wb") as zero:
            zero.write(b"from zero\n")
    assert {str(found["rank"]): found["tail"] for found in (report(child.stderr), report(child.stderr))} == {
        "0": "from zero\n",
        "1": "from one\nwith",
    }
    output, _ = child.communicate(timeout=HANG_S)
    assert sorted(output.splitlines()) == [b"[n1:1] from one", b"[n1:1] with", b"from zero"]
    assert child.returncode == 0


def test_what_is_left_behind_by_a_rank_does_not_hold_up_the_end(tmp_path: Path) -> None:
    child = start(tmp_path, "")
    report(child.stderr)
    descriptor = os.open(tmp_path / "rank.0", os.O_WRONLY)
    try:
        os.write(descriptor, b"still open\n")
        output, _ = child.communicate(timeout=HANG_S)
    finally:
        os.close(descriptor)
    assert output == b"still open\n"


def test_a_rank_that_is_started_again_is_read_again(tmp_path: Path) -> None:
    child = start(tmp_path, "")
    report(child.stderr)
    for number in range(2):
        (tmp_path / "rank.0").write_bytes(b"start %d\n" % number)
        assert report(child.stderr) == {"rank": 0, "tail": f"start {number}\n"}
    assert child.communicate(timeout=HANG_S)[0] == b"start 0\nstart 1\n"


def test_it_outlives_signals_for_the_ranks(tmp_path: Path) -> None:
    child = start(tmp_path, "")
    report(child.stderr)
    for number in rank_output.IGNORED:
        child.send_signal(number)
    (tmp_path / "rank.0").write_bytes(b"after\n")
    assert child.communicate(timeout=HANG_S)[0] == b"after\n"
    wait_until("its end", child.poll, equals(0))
