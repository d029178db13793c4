"""Gate of a task's agent: it is started ahead, and waits here for its slot before it asks the server for anything."""

from __future__ import annotations

import json
import os
from collections.abc import MutableMapping, Sequence
from contextlib import suppress
from dataclasses import dataclass

from hpc_agent.schedulers.pilots.backend import PREFIX

GATE = f"{PREFIX}GATE"
"""The number of the descriptor from which an agent reads that it may go on."""
_MOST = 65536


@dataclass(frozen=True)
class Grant:
    """What a task gets of its pilot. ``cpus``: numbers of the CPUs that it is bound to; none: it is not bound."""

    gpus: Sequence[str] = ()
    cpus: Sequence[int] = ()


def wait_at_gate(environ: MutableMapping[str, str] = os.environ) -> bool:
    """Wait until the pilot opens the gate; False if it closes it instead: the task is not ours to run.

    Where there is none, as in any other job, True at once. What is granted holds for this process from then on.
    """
    number = environ.pop(GATE, "")
    if not number:
        return True
    with os.fdopen(int(number), "rb") as gate:
        data = os.read(gate.fileno(), _MOST)
    if not data:
        return False
    grant = json.loads(data)
    environ["CUDA_VISIBLE_DEVICES"] = ",".join(grant["gpus"])
    if grant["cpus"]:
        with suppress(OSError):  # the site binds the job to others meanwhile
            os.sched_setaffinity(0, grant["cpus"])
    return True


def open_gate(descriptor: int, grant: Grant) -> bool:
    """Let the agent go on, from the pilot's side; False if it has ended."""
    data = json.dumps({"gpus": list(grant.gpus), "cpus": list(grant.cpus)}).encode()
    try:
        os.write(descriptor, data)
    except BrokenPipeError:
        return False
    return True
