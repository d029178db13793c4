"""Program that merges the output of a node's ranks, line by line, each with its prefix.

    python -I -S rank_output.py FOLDER PREFIX…

Run by path with the standard library alone, as ``console_writer`` is, and like it ignores signals: it outlives the
agent that started it until nothing more is to be read. Reads the FIFOs ``FOLDER/rank.0``, ``rank.1`` …, one for each
prefix, and writes whole lines on stdout. On stderr, a JSON object a line, it says which rank's output has ended, and
its last lines. The end of stdin is the order to read what is there and to end.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import selectors
import signal
import sys

IGNORED = (
    *(signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2),
    *(signal.SIGPIPE, signal.SIGXFSZ),
)
LONGEST_LINE = 1 << 16
"""Bytes of a line that are held back for its end."""
TAIL_BYTES = 16 * 1024
_BLOCK = 1 << 16
_LINE = re.compile(rb"[^\r\n]*(?:\r?\n|\r(?!\n))")


class RankLines:
    """Lines of one rank, from pieces as they come."""

    def __init__(self, prefix: bytes) -> None:
        self._prefix = prefix
        self._held = b""
        self._tail = b""

    def put(self, piece: bytes) -> bytes:
        """The lines that are complete now, with their prefix. A progress bar's states (``\\r``) count as lines."""
        self._tail = (self._tail + piece)[-TAIL_BYTES:]
        data = self._held + piece
        # The line break after a last carriage return may be in the next piece.
        end = len(data) - 1 if data.endswith(b"\r") else len(data)
        lines = []
        position = 0
        while match := _LINE.match(data, position, end):
            lines.append(match[0])
            position = match.end()
        self._held = data[position:]
        if len(self._held) > LONGEST_LINE:
            lines.append(self._held + b"\n")
            self._held = b""
        return b"".join(self._prefix + line for line in lines)

    def finish(self) -> tuple[bytes, bytes]:
        """The rest, as a line, and the end of all that the rank printed, for its next writer to begin again."""
        rest = self._prefix + self._held + b"\n" if self._held else b""
        tail, self._held, self._tail = self._tail, b"", b""
        return rest, tail


class Merger:
    """Reader of all FIFOs of a node."""

    def __init__(self, folder: str, prefixes: list[str]) -> None:
        self._fifos = [os.path.join(folder, f"rank.{number}") for number in range(len(prefixes))]  # noqa: PTH118
        self._lines = [RankLines(prefix.encode("utf-8", "surrogateescape")) for prefix in prefixes]
        self._selector = selectors.DefaultSelector()
        self._open: dict[int, int] = {}
        for rank in range(len(prefixes)):
            self._reopen(rank)
        self._selector.register(0, selectors.EVENT_READ, None)

    def run(self) -> None:
        """Until the end of stdin, and of what the ranks have printed by then."""
        ordered = False
        while not ordered:
            for key, _ in self._selector.select():
                if key.data is None:
                    ordered = not os.read(0, _BLOCK)
                else:
                    self._read(key.data)
        for rank in list(self._open):
            while self._read(rank, last=True):
                pass

    def _reopen(self, rank: int) -> None:
        """A FIFO without a writer is silent until one has come and gone."""
        self._open[rank] = os.open(self._fifos[rank], os.O_RDONLY | os.O_NONBLOCK)
        self._selector.register(self._open[rank], selectors.EVENT_READ, rank)

    def _read(self, rank: int, *, last: bool = False) -> bool:
        """Whether there was something."""
        try:
            piece = os.read(self._open[rank], _BLOCK)
        except BlockingIOError:
            piece = b""
            if not last:
                return False
        if piece:
            _write(self._lines[rank].put(piece))
            return True
        self._selector.unregister(self._open[rank])
        os.close(self._open.pop(rank))
        rest, tail = self._lines[rank].finish()
        _write(rest)
        if tail or not last:
            report = {"rank": rank, "tail": tail.decode("utf-8", "replace")}
            _report(report)
        if not last:
            self._reopen(rank)
        return False


def _report(report: dict[str, object]) -> None:
    with contextlib.suppress(OSError):  # its agent has died
        os.write(2, json.dumps(report).encode() + b"\n")


def _write(data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(1, view) :]


def main() -> int:
    for number in IGNORED:
        signal.signal(number, signal.SIG_IGN)
    folder, *prefixes = sys.argv[1:]
    merger = Merger(folder, prefixes)
    _report({"rank": -1, "tail": ""})  # its FIFOs can be written to
    merger.run()
    return 0


if __name__ == "__main__":
    sys.exit(main())
