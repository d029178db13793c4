"""Console output: cut into events at line ends, in order, never lost, progress bars collapsed."""

from __future__ import annotations

from pathlib import Path

import pytest

from hpc_agent.telemetry.console_writer import Splitter
from hpc_agent.telemetry.spool import Chunk, Mark, Spool, cut

LIMIT = 16


@pytest.mark.parametrize(
    ("data", "final", "expected"),
    [
        (b"one\ntwo\n", False, Chunk("one\ntwo\n", 8)),
        (b"one\ntw", False, Chunk("one\n", 4)),
        (b"tw", False, None),
        (b"tw", True, Chunk("tw", 2)),
        (b"0123456789abcdefXYZ", False, Chunk("0123456789abcdef", 16)),
        ("0123456789abcde€".encode(), False, Chunk("0123456789abcde", 15)),
        (b"10%\r20%\r100%\nok\n", False, Chunk("100%\nok\n", 16)),
        (b"10%\r20%\r30", False, Chunk("20%", 8)),
        (b"windows\r\n", False, Chunk("windows\n", 9)),
        (b"\xff\xfe\n", False, Chunk("\ufffd\ufffd\n", 3)),
    ],
)
def test_a_chunk_ends_where_a_line_ends(data: bytes, final: bool, expected: Chunk | None) -> None:
    assert cut(data, 0, LIMIT, final=final, collapse=True) == expected


def test_chunks_in_a_row_hold_everything_once() -> None:
    text = "".join(f"line {number} äöü €\n" for number in range(200))
    data, offset, parts = text.encode(), 0, []
    while (chunk := cut(data[offset:], offset, LIMIT, final=True, collapse=False)) is not None:
        parts.append(chunk.text)
        offset = chunk.end
    assert "".join(parts) == text


def test_the_spool_is_read_where_it_was_acknowledged(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "console.log", tmp_path / "console.offset")
    spool.write(b"first\nsecond\n")
    spool.remember(Mark(6, 1000))
    again = Spool(tmp_path / "console.log", tmp_path / "console.offset")
    assert again.mark() == Mark(6, 1000)
    assert again.read(again.mark().offset, 100) == b"second\n"
    spool.close()


def test_a_broken_mark_sends_again_rather_than_never(tmp_path: Path) -> None:
    (tmp_path / "console.offset").write_text("{half")
    assert Spool(tmp_path / "console.log", tmp_path / "console.offset").mark() == Mark()


def test_a_full_disk_costs_lines_and_not_the_task(tmp_path: Path) -> None:
    spool = Spool(Path("/dev/full"), tmp_path / "console.offset")
    spool.write(b"lost\n")
    spool.write(b"lost too\n")
    spool.close()
    assert spool.mark() == Mark()


@pytest.mark.parametrize("size", [1, 2, 3, 5, 100])
def test_our_own_lines_are_told_from_the_tasks_in_whatever_pieces_they_come(size: int) -> None:
    splitter = Splitter(b"<mark>")
    text = b"theirs <<mark>ours\n<m<mark>ours too\n<mar"
    output = b""
    ours: list[bytes] = []
    for start in range(0, len(text), size):
        first, *rest = splitter.split(text[start : start + size])
        if ours:
            ours[-1] += first
        else:
            output += first
        ours += rest
    assert (output, ours, splitter.rest()) == (b"theirs <", [b"ours\n<m", b"ours too\n"], b"<mar")
