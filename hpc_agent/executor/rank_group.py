"""Ranks of a task on many nodes as one process: a launcher that starts them, and node agents that reach them."""

from __future__ import annotations

import signal
from collections.abc import Callable

import msgspec

from hpc_agent.clock import Clock
from hpc_agent.domain.failure_cause import failure_cause
from hpc_agent.domain.outcome import in_one_line
from hpc_agent.executor.node_messages import NodeMessage, Order
from hpc_agent.executor.node_step import NodeStep
from hpc_agent.logs import EventLog
from hpc_agent.process.supervised import Supervised
from hpc_agent.schedulers.base import JobSteps

log = EventLog("ranks")

_WORDS_S = 2.0
"""How long the last words of a rank may take from its node, once its launcher has ended."""


class RankEnd(msgspec.Struct, frozen=True):
    """End of the rank that failed first. ``cause``: which one, where, and its last words."""

    code: int
    cause: str = ""
    by_scheduler: bool = False
    """The scheduler did not start it, or ended it by mistake; ``cause`` says why."""


class RankGroup:
    """See ``supervise.Stoppable``.

    ``tail``: the end of what the launcher printed. ``starter``: the program on each node that starts its ranks, such as
    torchrun; empty where the launcher's step does. ``terminated``: whether the scheduler has sent SIGTERM to the ranks.
    """

    def __init__(
        self,
        launcher: Supervised,
        nodes: NodeStep,
        steps: JobSteps,
        clock: Clock,
        *,
        tail: Callable[[], str],
        starter: str,
        terminated: Callable[[], bool],
    ) -> None:
        self._launcher = launcher
        self._nodes = nodes
        self._steps = steps
        self._tail = tail
        self._starter = starter
        self._terminated = terminated
        self._clock = clock
        self._killed = False
        self._interrupted = False
        self._lost = False
        self.end: RankEnd | None = None
        """Set once a failed launcher has ended."""

    @property
    def pid(self) -> int:
        return self._launcher.pid

    def wait(self, timeout: float | None = None) -> int | None:
        """The exit code of the rank that failed first, as far as that is known, else the launcher's."""
        code = self._launcher.wait(timeout)
        if code is None and self._nodes.has_ended:
            log.error("nodes.lost")
            self._lost = True
            self._launcher.signal(signal.SIGKILL)
            code = self._launcher.wait(_WORDS_S)
        if code is None:
            return None
        if code and self.end is None:
            self.end = self._first_end(code)
        return self.end.code if self.end else code

    def _first_end(self, code: int) -> RankEnd:
        if self._lost:
            if reason := self._nodes.scheduler_failure:
                return RankEnd(1, in_one_line(reason), by_scheduler=True)
            node = self._nodes.lost_node or "one of its nodes"
            return RankEnd(1, f"the agent of {node} ended, and the ranks with it")
        printed = self._tail()
        if reason := self._steps.scheduler_failure(printed):
            return RankEnd(code, in_one_line(reason), by_scheduler=True)
        failure = self._steps.first_failure(printed)
        words = self._last_words(failure.rank if failure and not self._starter else None)
        code = failure.code if failure else code
        if words is not None:
            by_code = failure_cause("", code)
            text = "; its last words: ".join(filter(None, [str(by_code) if by_code else "", words.text]))
            return RankEnd(code, _sentence(f"rank {words.rank} on {words.node}", text))
        if failure is None:
            return RankEnd(code)
        cause = failure_cause(printed, code)
        who = self._starter or f"rank {failure.rank}"
        return RankEnd(code, _sentence(f"{who} on {failure.node}", str(cause) if cause else ""))

    def _last_words(self, rank: int | None) -> NodeMessage | None:
        """Of this rank, or of the one that ended first."""
        until = self._clock.monotonic() + _WORDS_S
        while True:
            found = [each for each in self._nodes.ended_ranks if rank is None or each.rank == rank]
            if found or self._clock.monotonic() > until:
                return found[0] if found else None
            self._clock.sleep(0.05)

    def signal(self, number: int) -> bool:
        """Signal the ranks on all nodes, and what they have started."""
        # A program that gets SIGTERM twice may take the second for "at once".
        given = number == signal.SIGTERM and self._terminated()
        self._nodes.order(Order(kind="signal", number=number, given=given))
        if number == signal.SIGKILL:
            # The launcher ends by itself once its ranks are gone; not at once, for then it could report nothing.
            if self._killed:
                return self._launcher.signal(number)
            self._killed = True
        return self._launcher.poll() is None

    def signal_chosen(self, number: int, chosen: Callable[[int], bool]) -> list[int]:
        """Have the nodes choose, from now on: which ranks have the SDK's handlers is seen there."""
        if self._interrupted:
            return []
        self._interrupted = True
        self._nodes.order(Order(kind="interrupt"))
        return [self.pid]

    def has_left_processes(self) -> bool:
        """The scheduler ends with a step all that it has started."""
        return False

    def reap_orphans(self) -> None:
        self._launcher.reap_orphans()

    def sweep(self, pause: Callable[[], None]) -> None:
        self._launcher.sweep(pause)


def _sentence(who: str, text: str) -> str:
    return in_one_line(f"{who}: {text}" if text else who)
