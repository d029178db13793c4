"""Reports of a run to the server: that it started, what it ran with, how it ended.

The end is reported in this order: exit report on disk, rest of the console, final status. The daemon, or the job's next
start, can go on from any point of it.
"""

from __future__ import annotations

import concurrent.futures
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from functools import partial

import msgspec

from hpc_agent.api.client import Client
from hpc_agent.cancellation import in_background
from hpc_agent.clock import Clock
from hpc_agent.domain.ids import QueueId, TaskId
from hpc_agent.domain.status import TaskStatus
from hpc_agent.domain.task import Task, TaskContainer
from hpc_agent.errors import ApiError, AuthError, HpcAgentError, ServerUnreachableError
from hpc_agent.executor.agent_identity import AgentIdentity
from hpc_agent.executor.claim import Moment, still_ours
from hpc_agent.executor.console import Console
from hpc_agent.executor.stall_guard import StallGuard
from hpc_agent.executor.stop_conditions import StopReason
from hpc_agent.executor.task_outcome import ExitContext, TaskOutcome, ended, never_started
from hpc_agent.logs import EventLog
from hpc_agent.retry import FINAL, ONCE, ROUTINE, Budget, retry
from hpc_agent.runs.attempt_records import ClaimRecord, ExitReport
from hpc_agent.runs.directory import RunDirectory
from hpc_agent.runs.job_news import JobNews
from hpc_agent.schedulers.base import CurrentJobClient
from hpc_agent.wire.task_requests import job_runtime
from hpc_agent.wire.task_state import TaskState

log = EventLog("report")

DAEMON_MANAGED = Budget(60)
"""A server that is away holds no node for longer: the daemon finishes what is left."""
INTERRUPTED = Budget(5)
"""The scheduler kills the job soon."""
CERTAIN_S = 10.0
"""After which another run may have taken over a task that shows no run token: far less than ``UNCERTAIN_WAIT_S``."""
_REGISTERED_S = 2.0
_AHEAD_S = 0.01
"""By which the run token is sent before the look that is to show it."""
_FRESH_S = 1.0
"""Age of a look at the task after which it is looked at again before the start."""


def run_token(directory: RunDirectory, identity: AgentIdentity) -> str:
    """Fencing token of a run, which its task shows on the server: ``<attempt>.<restart>``."""
    return f"{directory.attempt.id}.{identity.restart_count}"


class Reporter:
    """Reports of one run: ``start`` before its process, ``note`` and ``report`` after it."""

    def __init__(
        self,
        client: Client,
        identity: AgentIdentity,
        directory: RunDirectory,
        claim: ClaimRecord,
        current_job: CurrentJobClient,
        clock: Clock,
        files: StallGuard | None = None,
    ) -> None:
        self._client = client
        self._identity = identity
        self._directory = directory
        self._claim = claim
        self._current_job = current_job
        self._clock = clock
        self._files = files or StallGuard()
        self._task = directory.attempt.task
        self._registration: Future[None] | None = None
        self._token_was_shown = False
        """Whether the server has shown our run token: only a reset of the task takes it away then."""

    # ---------------------------------------------------------------- start

    def start(self, task: Task, tags: Sequence[str] = (), *, taken_at: Moment | None = None) -> TaskOutcome | None:
        """Set the task started, with our run token; an outcome if its user took it back meanwhile.

        The token comes first: from it others tell whose run a running task is. ``taken_at``: as in ``claim.Won``.

        Raises:
            ServerUnreachableError, AuthError: the server did not let it start; the task is unchanged.
        """
        if not still_ours(self._directory, self._claim):
            return ended(0, ExitContext(StopReason.FENCED))
        identity, tasks = self._identity, self._client.tasks
        values = job_runtime(identity.job or "", identity.host)
        budget = ROUTINE if identity.daemon_managed else FINAL
        try:
            if changed := self._set_token(task, values, budget, taken_at):
                return changed
            message = f"Changed by hpc-agent {identity.worker}"
            tasks.started(task.id, "worker started execution", message, force=not task.queue, budget=budget)
        except AuthError:
            raise
        except ApiError as error:
            return self._start_refused(task, error)
        log.info("task.started", task=task.id, run=self._token)
        self._registration = in_background(partial(self._register, task.id, tags), "worker")
        return None

    def _set_token(
        self, task: Task, values: Mapping[str, str], budget: Budget, taken_at: Moment | None
    ) -> TaskOutcome | None:
        """Set our run token unless the task's status has changed, and look again: ``tasks.started`` undoes an abort
        that it does not see, and each call may have waited long."""
        if taken_at is not None and taken_at.seconds_ago(self._clock) < CERTAIN_S:
            try:
                return self._set_first_token(task, values)
            except ServerUnreachableError as error:
                log.info("task.token_unclear", task=task.id, error=error)
        if changed := self._changed(task.status):
            return changed
        self._client.tasks.set_run_token(task.id, self._token, values, budget=budget)
        return self._changed(task.status)

    def _set_first_token(self, task: Task, values: Mapping[str, str]) -> TaskOutcome | None:
        """As ``_set_token``, in two requests of five: the task was taken off its queue so lately that no other run can
        have it, for a claim in doubt is decided ``UNCERTAIN_WAIT_S`` later. So the token is sent once only.

        Raises:
            ServerUnreachableError: whether it is set, or the task has changed, is not known.
        """
        state = self._token_and_state(task, values)
        if state is not None and state.status is TaskStatus.IN_PROGRESS:
            return ended(0, ExitContext(StopReason.TAKEN_BACK))
        return self._outcome_of(state, task.status)

    def _token_and_state(self, task: Task, values: Mapping[str, str]) -> TaskState | None:
        """Set our run token, and look at the task afterwards.

        The look is not held back until the token's answer is here where the server closes each connection: a second one
        costs nothing then, and over a distance one round trip less is waited for. A state without our token is older
        than the token, and one that waited for the answer may be: it is looked at again.

        Raises:
            ServerUnreachableError: as ``_set_first_token``.
        """
        tasks, clock = self._client.tasks, self._clock

        def look() -> TaskState | None:
            return tasks.get_states([task.id], budget=ONCE).get(task.id)

        if not self._client.session.closes_connections:
            tasks.set_first_run_token(task, self._token, values, budget=ONCE)
            return look()
        setting = in_background(lambda: tasks.set_first_run_token(task, self._token, values, budget=ONCE), "run token")
        clock.sleep(_AHEAD_S)
        try:
            state = look()
        finally:
            looked_at = clock.monotonic()
            setting.result()
        is_later = state is not None and state.run_token == self._token
        return state if is_later and clock.monotonic() - looked_at < _FRESH_S else look()

    def _register(self, task: TaskId, tags: Sequence[str]) -> None:
        try:
            self._client.workers.report(self._identity.worker, task=task, tags=tags)
        except HpcAgentError as error:
            log.warning("worker.not_registered", task=task, error=error)

    def _changed(self, before: TaskStatus) -> TaskOutcome | None:
        """Outcome of a task whose status on the server no longer is the one that we claimed it with."""
        return self._outcome_of(self._client.tasks.get_states([self._task]).get(self._task), before)

    def _outcome_of(self, state: TaskState | None, before: TaskStatus) -> TaskOutcome | None:
        if state is None:
            return ended(0, ExitContext(StopReason.TAKEN_BACK))
        self._token_was_shown = self._token_was_shown or state.run_token == self._token
        if state.abort_requested:
            return ended(0, ExitContext(StopReason.ABORT))
        started = state.status is TaskStatus.IN_PROGRESS and state.run_token == self._token
        if started or state.status in (before, TaskStatus.UNKNOWN):
            return None
        return ended(0, ExitContext(StopReason.TAKEN_BACK))

    def _start_refused(self, task: Task, error: ApiError) -> TaskOutcome:
        """
        Raises:
            ServerUnreachableError: the task still waits for its start, and its daemon puts it back.
        """
        log.warning("task.not_started", task=task.id, error=error)
        try:
            changed = self._changed(task.status)
        except ApiError:
            changed = None
        if changed is not None:
            return changed
        if self._identity.daemon_managed:
            raise ServerUnreachableError(f"the server did not let it start: {error}", uncertain=False) from error
        return never_started(f"the server did not let it start: {error}")

    @property
    def _token(self) -> str:
        return run_token(self._directory, self._identity)

    # ---------------------------------------------------------------- end

    def note(self, outcome: TaskOutcome) -> ExitReport | None:
        """Write the exit report, from which others can go on; None where another run has the task.

        A file server that stalls gets it later: the final status does not wait for that.
        """
        if outcome.fenced or not self._files.call(lambda: still_ours(self._directory, self._claim), True):
            return None
        report = ExitReport(
            status=outcome.status,
            reason=outcome.reason,
            exit_code=outcome.exit_code,
            at=self._clock.now(),
            last_line=outcome.last_line,
            cause=outcome.cause,
            ranks_may_run=outcome.ranks_may_run,
        )
        self._files.call(lambda: self._write(report), None)
        return report

    def report(self, console: Console, outcome: TaskOutcome, restart: str = "") -> None:
        """Report how the run ended, to disk, console and server. An error here no longer fails the run.

        ``restart`` counts the job's next start, if it gets one: "restart 1 of 3".
        """
        report = self.note(outcome)
        if report is None:
            log.warning("task.reassigned", task=self._task)
            console.drop()
            return
        console.write_line(outcome.last_line)
        if outcome.requeue:
            # First: a server that does not answer must not cost the task its next start.
            console.write_line(self._requeue(restart))
        sent = console.finish(INTERRUPTED if outcome.cause else DAEMON_MANAGED)
        if outcome.cause is not None:
            log.info("job.interrupted", task=self._task, job=self._identity.job, cause=outcome.cause.value)
            self._unregister()
            return
        if not sent and not self._answers():
            log.warning("status.left_to_daemon", task=self._task)
            return
        # Programs that wait for a final status read the console then: it comes first where the whole server was away.
        sent = sent or console.finish(INTERRUPTED)
        budget = DAEMON_MANAGED if self._identity.daemon_managed else FINAL
        if self._post(outcome, budget) and (sent or self._sends_late(console)):
            posted = msgspec.structs.replace(report, posted=True)
            self._files.call(lambda: self._write(posted), None)
        self._unregister()

    def _answers(self) -> bool:
        """Whether the server answers: at once where a daemon goes on from here, else within the longest budget. One
        that takes no console and answers all else does."""
        try:
            # A proxy's 401 passes like its 502.
            retry(
                lambda: self._client.tasks.get_states([self._task], budget=ONCE),
                ONCE if self._identity.daemon_managed else FINAL,
                self._clock,
                again=lambda _error: True,
            )
        except HpcAgentError as error:
            log.warning("server.unreachable", task=self._task, error=error)
            return False
        return True

    def _sends_late(self, console: Console) -> bool:
        """A status does not wait for a console that the server would not take; without a daemon only we send that."""
        return not self._identity.daemon_managed and console.finish(FINAL)

    def _write(self, report: ExitReport) -> None:
        """Where the run directory was deleted meanwhile it is made again, so that the daemon finds the task's end."""
        directory = self._directory
        try:
            directory.create()
            if directory.claim() is None:
                directory.write_claim(self._claim)
            directory.write_exit_report(report)
            if self._identity.daemon_managed and self._claim.queue:
                JobNews(directory.path.parent.parent).publish(QueueId(self._claim.queue), directory.attempt)
        except (OSError, HpcAgentError) as error:
            log.error("exit_report.not_written", directory=directory.path, error=error)

    def _requeue(self, restart: str) -> str:
        job, refusal = self._identity.job, self._current_job.requeue()
        if not refusal:
            return f"Job {job} is started again ({restart})"
        log.warning("job.not_requeued", task=self._task, job=job, reason=refusal)
        return f"Job {job} cannot be started again ({refusal}): its daemon puts the task back into its queue"

    def _post(self, outcome: TaskOutcome, budget: Budget) -> bool:
        if outcome.status == "none":
            return True
        try:
            # A proxy's 401 passes like its 502: of all calls this one must not be lost to it.
            retry(
                lambda: self._conclude(outcome, budget),
                budget,
                self._clock,
                again=lambda error: isinstance(error, AuthError),
            )
        except HpcAgentError as error:
            log.error("status.not_posted", task=self._task, status=outcome.status, error=error)
            return False
        return True

    def _conclude(self, outcome: TaskOutcome, budget: Budget) -> None:
        if self._was_reset():
            log.warning("task.reassigned", task=self._task)
            return
        tasks, task, status = self._client.tasks, self._task, TaskStatus(outcome.status)
        worker = self._identity.worker
        done = tasks.set_final_status(task, status, outcome.reason, worker, budget=budget)
        if not done and not outcome.started and self._waits_for_us():
            # It failed before the server showed it as running, and the usual steps lead through that.
            tasks.set_final_status(task, status, outcome.reason, worker, budget=budget, force=True)

    def _was_reset(self) -> bool:
        """Whether it was reset while we waited for a server or wound down: started again, or ended before it was."""
        state = self._client.tasks.get_states([self._task]).get(self._task)
        if state is None:
            return False
        if not state.run_token:
            return self._token_was_shown and state.status is not TaskStatus.IN_PROGRESS
        return state.run_token.partition(".")[0] != self._directory.attempt.id

    def _waits_for_us(self) -> bool:
        """Whether its status is queued while no queue has it: no other agent would ever start it."""
        state = self._client.tasks.get_states([self._task]).get(self._task)
        queued = state is not None and state.status is TaskStatus.QUEUED
        return queued and self._client.queues.queue_of(self._task) is None

    def _unregister(self) -> None:
        if self._registration is not None:
            concurrent.futures.wait([self._registration], _REGISTERED_S)
        try:
            self._client.workers.unregister(self._identity.worker)
        except HpcAgentError as error:
            log.debug("worker.not_unregistered", worker=self._identity.worker, error=error)


class RunInputs(msgspec.Struct, frozen=True):
    """Inputs of a run, for a clone to reproduce it. Empty or None: nothing to record."""

    packages: Sequence[str] = ()
    """As ``pip freeze`` prints them."""
    commit: str = ""
    image: TaskContainer | None = None
    """The default that it ran in, where the task names none itself."""


class InputRecorder:
    """Recorder of a run's inputs in its task, in a thread: ``start`` with the process, ``finish`` after it."""

    def __init__(self, client: Client, task: Task, inputs: RunInputs) -> None:
        self._client = client
        self._task = task
        self._inputs = inputs
        self._thread = threading.Thread(target=self._record, name="record", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def finish(self) -> None:
        """Wait for a little: a server that does not answer must not hold the node."""
        self._thread.join(timeout=10)

    def _record(self) -> None:
        task, inputs = self._task, self._inputs
        try:
            if inputs.packages and list(inputs.packages) != list(task.script.requirements.pip or ()):
                self._client.tasks.set_requirements(task.id, _requirements(task, inputs.packages))
            if inputs.commit and not task.script.commit:
                self._client.tasks.set_commit(task.id, inputs.commit)
            if inputs.image is not None:
                self._client.tasks.set_container(task.id, inputs.image)
        except HpcAgentError as error:
            log.warning("task.not_updated", task=task.id, error=error)


def _requirements(task: Task, packages: Sequence[str]) -> dict[str, str]:
    """The frozen list as ``pip``, what was asked for as ``org_pip``, kept from the first run on.

    See docs/internals/clearml-protocol.md#requirements.
    """
    asked = task.script.requirements
    frozen = {"pip": "\n".join(packages)}
    original = asked.org_pip if asked.org_pip is not None else asked.pip
    return frozen if original is None else {"org_pip": "\n".join(original), **frozen}
