"""Console output: cut into events at line ends, in order, never lost, progress bars collapsed."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from hpc_agent.telemetry.checkpoint import Batch, Checkpoint
from hpc_agent.telemetry.console_writer import Splitter, Storage, copy
from hpc_agent.telemetry.spool import ConsoleChunk, Spool, cut

LIMIT = 16


@pytest.mark.parametrize(
    ("data", "final", "expected"),
    [
        (b"one\ntwo\n", False, ConsoleChunk("one\ntwo\n", 8)),
        (b"one\ntw", False, ConsoleChunk("one\n", 4)),
        (b"tw", False, None),
        (b"tw", True, ConsoleChunk("tw", 2)),
        (b"0123456789abcdefXYZ", False, ConsoleChunk("0123456789abcdef", 16)),
        ("0123456789abcde€".encode(), False, ConsoleChunk("0123456789abcde", 15)),
        (b"10%\r20%\r100%\nok\n", False, ConsoleChunk("100%\nok\n", 16)),
        (b"10%\r20%\r30", False, ConsoleChunk("20%", 8)),
        (b"windows\r\n", False, ConsoleChunk("windows\n", 9)),
        (b"\xff\xfe\n", False, ConsoleChunk("\ufffd\ufffd\n", 3)),
        ("0123456789abcd€".encode(), False, ConsoleChunk("0123456789abcd", 14)),
        ("0123456789abc€x".encode(), False, ConsoleChunk("0123456789abc€", 16)),
        ("0123456789abc😀".encode(), False, ConsoleChunk("0123456789abc", 13)),
        ("0123456789abcdeä".encode(), False, ConsoleChunk("0123456789abcde", 15)),
        (b"ab\bc\n", False, ConsoleChunk("abc\n", 5)),
        (b"20%\r", False, None),
        (b"a\r\nb\r\n", False, ConsoleChunk("a\nb\n", 6)),
        (b"10%\r20%\r", True, ConsoleChunk("20%", 8)),
        (b"", True, None),
    ],
)
def test_a_chunk_ends_where_a_line_ends(data: bytes, final: bool, expected: ConsoleChunk | None) -> None:
    assert cut(data, 0, LIMIT, final=final, collapse=True) == expected


def test_progress_is_kept_where_it_is_not_to_be_collapsed() -> None:
    assert cut(b"10%\r20%\nok\n", 100, LIMIT, final=False, collapse=False) == ConsoleChunk("10%\r20%\nok\n", 111)


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
    spool.remember(Checkpoint(6, 1000))
    again = Spool(tmp_path / "console.log", tmp_path / "console.offset")
    assert again.mark() == Checkpoint(6, 1000)
    assert again.read(again.mark().offset, 100) == b"second\n"
    spool.close()


def console(folder: Path) -> Spool:
    return Spool(folder / "console.log", folder / "console.offset")


def test_lines_are_appended_to_what_others_wrote(tmp_path: Path) -> None:
    (tmp_path / "console.log").write_bytes(b"by the task\n")
    spool = console(tmp_path)
    spool.write(b"by the agent\n")
    with (tmp_path / "console.log").open("ab") as other:
        other.write(b"by the task again\n")
    spool.write(b"the end\n")
    spool.close()
    assert (tmp_path / "console.log").read_bytes() == b"by the task\nby the agent\nby the task again\nthe end\n"


def test_what_is_open_is_read_though_its_name_is_gone(tmp_path: Path) -> None:
    spool = console(tmp_path)
    spool.write(b"first\nsecond\n")
    (tmp_path / "console.log").unlink()
    assert (spool.size(), spool.read(6, 6)) == (13, b"second")
    spool.close()
    assert (spool.size(), spool.read(0, 100)) == (0, b"")


def test_a_console_is_private(tmp_path: Path) -> None:
    spool = console(tmp_path)
    spool.write(b"secret\n")
    spool.remember(Checkpoint(7, 1))
    spool.close()
    assert {path.stat().st_mode & 0o777 for path in tmp_path.iterdir()} == {0o600}


@pytest.mark.parametrize(
    ("line", "ends", "holds"),
    [("last", True, True), ("first", False, True), ("st", False, False), ("the last", False, False)],
)
def test_a_line_is_found_as_a_whole(line: str, ends: bool, holds: bool, tmp_path: Path) -> None:
    spool = console(tmp_path)
    spool.write(b"first\nlast\n")
    assert (spool.ends_with(line), spool.holds(line)) == (ends, holds)
    spool.close()


def test_the_only_line_is_the_last(tmp_path: Path) -> None:
    (tmp_path / "console.log").write_bytes(b"only\n")
    assert console(tmp_path).ends_with("only")
    assert not console(tmp_path).ends_with("y")


BEGUN = b"line 1\nline 2\n"


@pytest.mark.parametrize(
    ("content", "continues"),
    [(BEGUN, True), (BEGUN + b"more\n", True), (b"", False), (b"line 1\n", False), (b"LINE 1\nline 2\nmore\n", False)],
)
def test_a_file_that_was_begun_again_is_distinguished_from_one_that_grew(
    content: bytes, continues: bool, tmp_path: Path
) -> None:
    path = tmp_path / "console.log"
    path.write_bytes(BEGUN)
    spool = console(tmp_path)
    mark = Checkpoint(len(BEGUN), 1, before=spool.checksum(len(BEGUN)))
    path.write_bytes(content)
    assert spool.continues(mark) is continues


def test_a_file_that_ends_within_what_is_being_sent_was_begun_again(tmp_path: Path) -> None:
    (tmp_path / "console.log").write_bytes(BEGUN)
    sending = Checkpoint(7, 1, Batch((14,), 2), before=console(tmp_path).checksum(7))
    assert console(tmp_path).continues(sending)
    (tmp_path / "console.log").write_bytes(b"line 1\nline")
    assert not console(tmp_path).continues(sending)


def test_a_checksum_is_of_the_last_bytes_only(tmp_path: Path) -> None:
    (tmp_path / "console.log").write_bytes(b"x" * 100 + b"end")
    whole = console(tmp_path).checksum(103)
    (tmp_path / "console.log").write_bytes(b"y" + b"x" * 99 + b"end")
    assert console(tmp_path).checksum(103) == whole
    (tmp_path / "console.log").write_bytes(b"x" * 99 + b"yend")
    assert console(tmp_path).checksum(103) != whole


def test_a_broken_mark_sends_again_rather_than_never(tmp_path: Path) -> None:
    (tmp_path / "console.offset").write_text("{half")
    assert Spool(tmp_path / "console.log", tmp_path / "console.offset").mark() == Checkpoint()


def test_a_full_disk_costs_lines_and_not_the_task(tmp_path: Path) -> None:
    spool = Spool(Path("/dev/full"), tmp_path / "console.offset")
    spool.write(b"lost\n")
    spool.write(b"lost too\n")
    spool.close()
    assert spool.mark() == Checkpoint()


@pytest.mark.parametrize("size", [1, 2, 3, 5, 100])
def test_our_own_lines_are_distinguished_from_the_tasks_in_whatever_pieces_they_come(size: int) -> None:
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


def stored(path: Path) -> Storage:
    return Storage(str(path))


def test_each_piece_of_output_is_written_once_and_in_order(tmp_path: Path) -> None:
    storage = stored(tmp_path / "console.log")
    for number in range(1000):
        storage.put(f"{number}\n".encode())
    storage.put(b"")
    assert storage.close()
    assert (tmp_path / "console.log").read_text().splitlines() == [str(number) for number in range(1000)]


def test_a_line_of_our_own_begins_a_line_and_output_goes_on_where_it_was(tmp_path: Path) -> None:
    (tmp_path / "console.log").write_bytes(b"half")
    storage = stored(tmp_path / "console.log")
    storage.put(b"ours\n", line=True)
    storage.put(b"thei")
    storage.put(b"rs")
    storage.put(b"ours too\n", line=True)
    storage.put(b"end\n", line=True)
    assert storage.close()
    assert (tmp_path / "console.log").read_bytes() == b"half\nours\ntheirs\nours too\nend\n"


class Piped:
    """What ``copy`` reads."""

    def __init__(self, data: bytes) -> None:
        self.reads, writes = os.pipe()
        os.write(writes, data)
        os.close(writes)


@pytest.mark.parametrize("end", [b"<mark>\x04", b""])
def test_a_copy_ends_when_the_agent_says_so_or_no_process_can_print_any_more(end: bytes, tmp_path: Path) -> None:
    storage = stored(tmp_path / "console.log")
    pipe = Piped(b"theirs\nhalf<mark>ours\n<mar" + end)
    copy(pipe.reads, Splitter(b"<mark>"), storage)
    os.close(pipe.reads)
    assert storage.close()
    assert (tmp_path / "console.log").read_bytes() == b"theirs\nhalf\nours\n<mar"


def test_nothing_is_copied_after_the_end(tmp_path: Path) -> None:
    storage = stored(tmp_path / "console.log")
    pipe = Piped(b"theirs\n<mark>\x04of a process that was left behind\n")
    copy(pipe.reads, Splitter(b"<mark>"), storage)
    os.close(pipe.reads)
    assert storage.close()
    assert (tmp_path / "console.log").read_bytes() == b"theirs\n"
