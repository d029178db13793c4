"""Output of sbatch on its way to the terminal, searched for the job's id. Pure."""

from __future__ import annotations

from hpc_agent.domain.ids import JobId
from hpc_agent.schedulers.slurm.sbatch_answers import named_jobs

_KEPT = 65536
"""Bytes of it, for an error message; and of a line; a longer one is not an answer."""


class SbatchOutput:
    """``feed`` each piece, then ``close``. Lines are read when they are whole."""

    def __init__(self, *, parsable: bool) -> None:
        self._parsable = parsable
        self._line = bytearray()
        self._kept = bytearray()
        self.sentences: list[JobId] = []
        """Of ``Submitted batch job N``, in their order."""
        self.named: list[JobId] = []
        """Those, and with ``--parsable`` numbers on lines of their own."""

    @property
    def text(self) -> str:
        return self._kept.decode("utf-8", "replace")

    def feed(self, piece: bytes) -> None:
        self._kept += piece[: _KEPT - len(self._kept)]
        self._line += piece
        whole, newline, rest = self._line.rpartition(b"\n")
        if newline:
            self._line = rest
            self._read(bytes(whole))
        del self._line[_KEPT:]

    def close(self) -> None:
        self._read(bytes(self._line))
        self._line.clear()

    def _read(self, lines: bytes) -> None:
        text = lines.decode("utf-8", "replace")
        for found, parsable in ((self.sentences, False), (self.named, self._parsable)):
            found += [job.job for job in named_jobs(text, parsable=parsable) if job.job not in found]
