"""Gate of a task's agent: it is started ahead, and waits here for its slot before it asks the server for anything. By
the same way it says when the task's process has ended."""

from __future__ import annotations

import fcntl
import json
import os
import socket
from collections.abc import MutableMapping, Sequence
from contextlib import suppress

import msgspec

GATE = "HPC_AGENT_PILOT_GATE"
"""The number of the descriptor from which an agent reads that it may go on."""
_MOST = 65536
_HAS_ENDED = b"e"


class _Own:
    """The gate of this process, once it is open."""

    descriptor = -1


class Grant(msgspec.Struct, frozen=True):
    """What a task gets of its pilot. ``cpus``: numbers of the CPUs that it is bound to; none: it is not bound."""

    gpus: Sequence[str] = ()
    cpus: Sequence[int] = ()


# ---------------------------------------------------------------- the agent's side


def wait_at_gate(environ: MutableMapping[str, str] = os.environ) -> bool:
    """Wait until the pilot opens the gate; False if it closes it instead: the task is not ours to run.

    Where there is none, as in any other job, True at once. What is granted holds for this process from then on.
    """
    number = environ.pop(GATE, "")
    if not number:
        return True
    gate = int(number)
    os.set_inheritable(gate, False)
    data = os.read(gate, _MOST)
    if not data:
        os.close(gate)
        return False
    _Own.descriptor = gate
    grant = json.loads(data)
    environ["CUDA_VISIBLE_DEVICES"] = ",".join(grant["gpus"])
    if grant["cpus"]:
        with suppress(OSError):  # the site binds the job to others meanwhile
            os.sched_setaffinity(0, grant["cpus"])
    return True


def report_end() -> None:
    """Tell the pilot, where there is one, that the task's process has ended."""
    gate, _Own.descriptor = _Own.descriptor, -1
    if gate >= 0:
        with suppress(OSError):  # the pilot has ended
            os.write(gate, _HAS_ENDED)
        os.close(gate)


# ---------------------------------------------------------------- the pilot's side


def make_gate() -> tuple[int, int]:
    """Descriptors of the pilot and of the agent. Reading from the pilot's does not wait."""
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    return ours.detach(), theirs.detach()


def open_gate(descriptor: int, grant: Grant) -> bool:
    """Let the agent go on; False if it has ended."""
    data = json.dumps({"gpus": list(grant.gpus), "cpus": list(grant.cpus)}).encode()
    try:
        os.write(descriptor, data)
    except BrokenPipeError:
        return False
    return True


def send_signal_at_end(descriptor: int) -> None:
    """Have this process get SIGIO, for which it must have a handler, when the agent says that its task has ended."""
    fcntl.fcntl(descriptor, fcntl.F_SETOWN, os.getpid())
    fcntl.fcntl(descriptor, fcntl.F_SETFL, fcntl.fcntl(descriptor, fcntl.F_GETFL) | os.O_ASYNC)


def has_ended(descriptor: int) -> bool:
    """Whether the agent said, since this was asked last, that its task's process has ended."""
    try:
        return os.read(descriptor, 1) == _HAS_ENDED
    except OSError:  # nothing yet, or the agent is gone without having read all
        return False
