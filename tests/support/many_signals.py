"""Many signals that ask a program to end, as fast as they can be sent: handlers interrupt each other."""

from __future__ import annotations

import os
import signal
import subprocess

_ROUNDS = 200


def send_many_signals(program: subprocess.Popen[bytes]) -> None:
    """Send them within some milliseconds, in which the program has not ended: then it would have no handlers."""
    for _ in range(_ROUNDS):
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            os.kill(program.pid, number)
