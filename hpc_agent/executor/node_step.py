"""Step of node agents, seen from the first agent: starts one on each node, reads their messages, gives orders."""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path

from hpc_agent.clock import Clock
from hpc_agent.errors import EnvironmentBuildError, NodesLostError
from hpc_agent.executor.node_messages import NodeMessage, Order, decode
from hpc_agent.logs import EventLog
from hpc_agent.process.supervised import Conversation
from hpc_agent.schedulers.base import JobSteps

log = EventLog("nodes")

_LOOK_S = 0.1
_END_S = 10.0
_BLOCK, _KEPT = 4096, 16384
"""Bytes read at once, and kept of what the step printed on stderr."""


class NodeStep:
    """Node agents of one run, from their start to ``end`` or ``close``."""

    def __init__(
        self, argv: Sequence[str], environ: Mapping[str, str], hosts: Sequence[str], steps: JobSteps, clock: Clock
    ) -> None:
        """
        Raises:
            ProcessError: the step could not be started.
        """
        self._hosts = hosts
        self._clock = clock
        self._ready: set[int] = set()
        self._done: dict[int, NodeMessage] = {}
        self._failed: list[NodeMessage] = []
        self._ended_ranks: list[NodeMessage] = []
        self._over = threading.Event()
        self._closed = False
        self._ends_by = 0.0
        self._steps = steps
        self._printed = b""
        errors, errors_to = os.pipe()
        try:
            self._conversation = Conversation(argv, env=environ, cwd=Path("/"), errors_to=errors_to)
        finally:
            os.close(errors_to)
        threading.Thread(target=self._read, name="nodes", daemon=True).start()
        threading.Thread(target=self._copy_errors, args=(errors,), name="nodes' log", daemon=True).start()

    @property
    def has_ended(self) -> bool:
        """Whether the node agents are gone: a job of many nodes loses all of them with one."""
        return self._over.is_set()

    @property
    def all_are_done(self) -> bool:
        """Whether each node has said, after ``finish``, that nothing of the task runs there any more."""
        return len(self._done) == len(self._hosts)

    @property
    def lost_node(self) -> str:
        """The node whose agent ended first, if the scheduler says so: ``node n2``; else empty."""
        failure = self._steps.first_failure(self._text)
        return f"node {failure.node}" if failure else ""

    @property
    def scheduler_failure(self) -> str:
        """Why the scheduler ended the agents by mistake, if it says so; else empty."""
        return self._steps.scheduler_failure(self._text)

    @property
    def _text(self) -> str:
        """The last that the step printed on stderr."""
        return self._printed.decode("utf-8", "replace")

    @property
    def ended_ranks(self) -> Sequence[NodeMessage]:
        """Ranks whose output has ended, the first one first."""
        return list(self._ended_ranks)

    def wait_ready(self) -> None:
        """Until each node is prepared.

        Raises:
            NodesLostError: the agents ended, for no reason that lies in the task.
            EnvironmentBuildError: a node cannot run the task.
            Cancelled: as the clock's ``sleep``.
        """
        while len(self._ready) < len(self._hosts):
            if self._failed:
                raise EnvironmentBuildError(_sentence(self._failed, len(self._hosts)))
            if self.has_ended:
                missing = [host for index, host in enumerate(self._hosts) if index not in self._ready]
                raise NodesLostError(
                    f"the agents of the task's nodes ended before all were ready (without {', '.join(missing)}); the "
                    "job's own output (hpc-agent logs --job) says why"
                )
            self._clock.sleep(_LOOK_S)

    def order(self, order: Order) -> bool:
        """Give an order to all nodes; False if they are gone."""
        return self._conversation.order(order.encode())

    def finish(self, seconds: float) -> None:
        """Have the nodes read what the ranks printed, send it within ``seconds``, and end."""
        self._ends_by = self._clock.monotonic() + seconds + _END_S
        self.order(Order(kind="finish", seconds=seconds))
        self._conversation.finish()

    def wait_ended(self, timeout: float) -> None:
        """Until the step has ended, ``timeout`` seconds at most."""
        until = self._clock.monotonic() + timeout
        self._over.wait(timeout)
        self._conversation.wait(max(until - self._clock.monotonic(), 0))

    def end(self) -> None:
        """After ``finish``: wait as long as the nodes may take, and end the step."""
        self._over.wait(max(self._ends_by - self._clock.monotonic(), 0))
        self.close()
        if not (self.all_are_done and all(message.sent for message in self._done.values())):
            log.warning("nodes.not_sent", done=sorted(self._done), nodes=len(self._hosts))

    def close(self) -> None:
        """End the step, whatever it does."""
        if self._closed:
            return
        self._closed = True
        self._conversation.finish()
        if self._conversation.wait(_END_S if self._over.is_set() else 1.0) is None:
            self._conversation.kill()
            self._conversation.wait(_END_S)

    def _copy_errors(self, errors: int) -> None:
        """The node agents' log is part of the job's own output."""
        with os.fdopen(errors, "rb", buffering=0) as source:
            while piece := source.read(_BLOCK):
                self._printed = (self._printed + piece)[-_KEPT:]
                os.write(2, piece)

    def _read(self) -> None:
        for line in self._conversation.lines():
            message = decode(line)
            if message is None:
                log.warning("nodes.line_not_understood", line=line.decode("utf-8", "replace").rstrip())
            elif message.kind == "ready":
                self._ready.add(message.index)
            elif message.kind == "failed":
                self._failed.append(message)
            elif message.kind == "ended":
                self._ended_ranks.append(message)
            else:
                self._done[message.index] = message
        self._over.set()


def _sentence(failed: Sequence[NodeMessage], nodes: int) -> str:
    """What failed; a task that cannot run on any node fails on all of them, and one sentence is enough."""
    first = min(failed, key=lambda message: message.index)
    return first.text if nodes == 1 else f"{first.node}: {first.text}"
