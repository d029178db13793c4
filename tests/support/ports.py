"""Ports for servers of tests."""

from __future__ import annotations

import random
import socket

_BELOW_THE_EPHEMERAL = range(16_000, 32_000)
"""No outgoing connection takes one of these, so that a server finds its port again after a restart."""


def free_port() -> int:
    """A port of 127.0.0.1 on which nothing listens."""
    while True:
        port = random.choice(_BELOW_THE_EPHEMERAL)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        return port
