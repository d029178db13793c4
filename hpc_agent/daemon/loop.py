"""Daemon: runs passes (observe, decide, act) at the poll interval. Its parts are built in ``daemon.parts``."""

from __future__ import annotations

import gc
import threading
from functools import partial

from hpc_agent.api.client import Client
from hpc_agent.clock import Clock
from hpc_agent.config.settings import AllSettings
from hpc_agent.daemon.job_launch import JobLaunchConfig, rules
from hpc_agent.daemon.loop_options import LoopOptions
from hpc_agent.daemon.observe import ClusterSnapshot
from hpc_agent.daemon.pace import is_quiet
from hpc_agent.daemon.parts import build_parts
from hpc_agent.domain import actions
from hpc_agent.domain.attempt import Attempt
from hpc_agent.domain.decide import decide
from hpc_agent.domain.snapshot import AttemptPolicy
from hpc_agent.errors import HpcAgentError, SchedulerUnavailableError, ServerUnreachableError
from hpc_agent.logs import EventLog
from hpc_agent.retry import next_pause
from hpc_agent.schedulers.base import Scheduler
from hpc_agent.wake_up import TERMINATION, WakeUp

log = EventLog("daemon")

NOTIFY_S = 15.0
"""How long a single pass stays for its notifications."""
NOTIFY_AT_STOP_S = 2.0


_COLLECTED_AFTER = (50_000, 20, 100)
"""Objects, and collections of younger ones, after which Python looks for cycles of garbage."""


def collect_garbage_seldom() -> None:
    """For the whole process of a daemon: a pass over 100,000 entries makes millions of objects and no cycles of them,
    and with Python's own thresholds (700, 10, 10) a quarter of its time went into looking for some."""
    gc.set_threshold(*_COLLECTED_AFTER)


class Daemon:
    """Daemon that serves queues: ``run`` until it is asked to stop; jobs go on without it."""

    def __init__(
        self,
        client: Client,
        scheduler: Scheduler,
        settings: AllSettings,
        launch: JobLaunchConfig,
        options: LoopOptions,
        clock: Clock,
    ) -> None:
        self._settings = settings
        self._options = options
        self._clock = clock
        self._wake = WakeUp()
        """Set when there is something to do before the next pass."""
        parts = build_parts(client, scheduler, settings, launch, options, clock, self._wake)
        self._observer = parts.observer
        self._staging = parts.staging
        self._head_starts = parts.head_starts
        self._hints = parts.hints
        self._phases = parts.phases
        self._guarded = parts.guard
        self._dispatch = parts.dispatch
        self._submissions = parts.submissions
        self._leases = parts.leases
        self._notifier = parts.notifier
        self._pruner = parts.pruner
        self._pace = parts.pace
        self._reports = parts.reports
        self._is_woken = False
        """Whether something ended the last pause."""
        self._policies: dict[str, AttemptPolicy] = {}
        """Of each queue, by name."""
        self._is_stopping = False
        self._ended = threading.Event()
        """Not set by ``stop``, which runs in signal handlers."""
        self._is_busy = False
        """Whether the last pass had an attempt to see to."""
        self._busy_at = clock.monotonic()
        """When that was so the last time."""

    def stop_on_signals(self) -> None:
        """From now on the program's signals end ``run``."""
        self._wake.on_signals(TERMINATION, self.stop)

    def stop(self) -> None:
        """Ask ``run`` to return soon."""
        self._is_stopping = True
        self._wake.set()

    def run(self) -> None:
        """Passes at the poll interval, slower while the server or the scheduler does not answer."""
        self._reports.start(self._ended)
        pause = self._settings.hpc.poll_interval
        while not self._is_stopping and not self._is_idle():
            self._options.each_pass()
            pause = self._settings.hpc.poll_interval if self._try_pass() else next_pause(pause)
            self._is_woken = self._clock.wait(self._wake, pause)
        self._ended.set()
        self._close_staging()
        self._leases.give_back()
        self._reports.unregister()
        self._notifier.finish(NOTIFY_AT_STOP_S)

    def _is_idle(self) -> bool:
        return not self._is_busy and self._clock.monotonic() - self._busy_at > self._options.idle_after

    def once(self) -> bool:
        """One pass that waits for its stages; False if the server or the scheduler did not answer."""
        self._leases.wait_for_one()
        done = self._try_pass(wait=True)
        self._close_staging()
        self._notifier.finish(NOTIFY_S)
        self._leases.give_back()
        return done

    def _close_staging(self) -> None:
        if self._staging is not None:
            self._staging.close()

    def _try_pass(self, *, wait: bool = False) -> bool:
        """A pass, if it is due; False if server or scheduler did not answer."""
        try:
            if self._is_woken or self._pace.is_due():
                self.run_pass(wait=wait)
        except (ServerUnreachableError, SchedulerUnavailableError) as error:
            log.warning("pass.no_answer", error=error)
            return False
        except Exception as error:  # noqa: BLE001 - the top of the loop: the next pass starts from what is true then
            log.error("pass.failed", error=error, trace=not isinstance(error, HpcAgentError))
            return False
        return True

    def run_pass(self, *, wait: bool = False) -> None:
        """observe → decide → act.

        Raises:
            ServerUnreachableError, SchedulerUnavailableError: nothing was seen.
        """
        self._pace.note(is_quiet=False)
        for queue in self._observer.orphaned:
            self._leases.also(queue)
        served = self._leases.ours()
        if not served:
            return
        cluster = self._observer.observe(served)
        # Passes are left out while jobs only wait or run: until the last one ended the daemon was busy.
        if cluster.snapshots or self._is_busy:
            self._busy_at = self._clock.monotonic()
        self._is_busy = bool(cluster.snapshots)
        self._hints.begin_pass()
        self._head_starts.begin_pass(cluster.snapshots)
        if self._staging is not None:
            self._staging.update(cluster.staging)
        self._notifier.update(cluster)
        self._pruner.turn(wait=wait)
        for attempt, found in cluster.unreadable.items():
            self._guarded.report(attempt, found.error, found.queue, may_fail=not found.has_job)
        submits: dict[Attempt, int] = {}
        others: list[actions.Action] = []
        for attempt in cluster.snapshots:
            if self._is_stopping:
                return
            others += self._see_to(cluster, attempt, submits)
        submitted = self._submissions.submit(cluster, submits, lambda: self._is_stopping, waits=wait)
        self._pace.note(is_quiet=not submitted and is_quiet(cluster, others))

    def _see_to(self, cluster: ClusterSnapshot, attempt: Attempt, submits: dict[Attempt, int]) -> list[actions.Action]:
        """Decide and act for one attempt; returns what was decided, without submissions, which ``submits`` takes."""
        decided: list[actions.Action] = []
        self._guarded(cluster, attempt, partial(self._decide, cluster, attempt, decided))
        for action in decided:
            if not self._guarded(cluster, attempt, partial(self._dispatch.act, cluster, attempt, action, submits)):
                break
        return [action for action in decided if not isinstance(action, actions.SubmitJob)]

    def _decide(self, cluster: ClusterSnapshot, attempt: Attempt, decided: list[actions.Action]) -> None:
        snapshot, policy = cluster.snapshots[attempt], self._rules(cluster, attempt)
        self._phases.note(attempt, attempt.task, snapshot, policy.lost_after)
        decided += decide(snapshot, self._clock.now(), policy)

    def _rules(self, cluster: ClusterSnapshot, attempt: Attempt) -> AttemptPolicy:
        submission = cluster.files[attempt].submission
        if submission is not None:
            return self._policy(submission.queue_name)
        queue = cluster.queue_of.get(attempt)
        return self._policy(queue.name if queue else "")

    def _policy(self, queue: str) -> AttemptPolicy:
        if queue not in self._policies:
            self._policies[queue] = rules(self._settings.hpc, queue)
        return self._policies[queue]
