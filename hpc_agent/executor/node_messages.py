"""Messages between the first agent of a job of many nodes and the node agents: one line each.

A step's lines of up to a kilobyte arrive whole, whatever the other nodes print; longer ones may be mixed
(docs/internals/slurm.md#steps).
"""

from __future__ import annotations

from typing import Literal

import msgspec

from hpc_agent.domain.outcome import in_one_line
from hpc_agent.struct_types import decodable

_LONGEST_TEXT = 500
"""Characters; with four bytes each, and the rest of the message, it is still cut by ``encode``."""
LONGEST_LINE = 1000


class NodeMessage(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """From a node. ``failed``: it cannot run the task, ``text`` says why. ``ended``: the output of ``rank`` has ended,
    ``text`` holds its last words. ``done``: all that the ranks printed is in the node's file and, if ``sent``, on the
    server."""

    kind: Literal["ready", "failed", "ended", "done"]
    index: int
    node: str
    rank: int = -1
    text: str = ""
    sent: bool = False

    def encode(self) -> bytes:
        text = in_one_line(self.text)[:_LONGEST_TEXT]
        while True:
            line = msgspec.json.encode(msgspec.structs.replace(self, text=text)) + b"\n"
            if len(line) <= LONGEST_LINE:
                return line
            text = text[: len(text) // 2]


def decode(line: bytes) -> NodeMessage | None:
    """None for a line that is not a message: of a site's own start scripts."""
    try:
        return msgspec.json.decode(line, type=decodable(NodeMessage))
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None


class Order(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """From the first agent. ``signal``: send ``number`` to the ranks and what they started; not to the ranks themselves
    with ``given``, for the scheduler has sent it to them. ``interrupt``: SIGINT to
    those that have the SDK's handlers. ``finish``: the ranks have ended; send the console within ``seconds``."""

    kind: Literal["signal", "interrupt", "finish"]
    number: int = 0
    given: bool = False
    seconds: float = 0.0

    def encode(self) -> bytes:
        return msgspec.json.encode(self) + b"\n"
