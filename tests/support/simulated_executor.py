"""What ``hpc-agent execute`` does in a job of a simulated site, a step at a time; the claim in it is the real one."""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from typing import TYPE_CHECKING, Literal

import msgspec
from simulated_cluster import SimulatedJob
from simulated_faults import ProcessKilledError

from hpc_agent.domain.attempt import parse_job_name
from hpc_agent.domain.ids import WorkerId
from hpc_agent.domain.job import JobState
from hpc_agent.domain.status import TaskStatus
from hpc_agent.domain.task import Task
from hpc_agent.domain.termination_cause import TerminationCause
from hpc_agent.errors import ApiError, ServerUnreachableError
from hpc_agent.executor.agent_identity import AgentIdentity
from hpc_agent.executor.claim import Claimer, Won, still_ours
from hpc_agent.executor.report import CERTAIN_S
from hpc_agent.retry import ONCE
from hpc_agent.runs.attempt_records import ExitReport
from hpc_agent.runs.directory import RunDirectory

if TYPE_CHECKING:
    from simulated_site import SimulatedSite


class Stage(Enum):
    """What the next step is."""

    CLAIM = "claim"
    START = "start"
    RUN = "run"
    """The user's process begins."""
    FINISH = "finish"
    """It ends by itself."""
    REPORT = "report"
    """The exit report is written."""
    PUBLISH = "publish"
    """The server gets the final status."""
    ENDED = "ended"


class SimulatedExecutor:
    """One start of a job."""

    def __init__(self, site: SimulatedSite, job: SimulatedJob) -> None:
        attempt = parse_job_name(site.own_name(job))
        assert attempt is not None, job.name
        self.job = job
        self.restart = job.restarts
        self.run: RunDirectory = site.runs.of(attempt)
        self.won: Won | None = None
        self.stage = Stage.CLAIM
        self.has_process = False
        """Whether the user's process runs."""
        self.unreachable = False
        """Whether its node lost contact: Slurm takes the job for dead, and its processes go on."""
        self._site = site
        self._generation = 0
        self._client = site.server.client
        self._worker = WorkerId(f"node:slurm:{job.id}")
        self._task: Task | None = None
        """As it was read before the claim."""
        self._report: ExitReport | None = None
        self._token_was_shown = False
        self._steps: dict[Stage, Callable[[], None]] = {
            Stage.CLAIM: self._claim,
            Stage.START: self._start,
            Stage.RUN: self._run,
            Stage.FINISH: self._finish,
            Stage.REPORT: self._write_report,
            Stage.PUBLISH: self._publish,
        }

    @property
    def ended(self) -> bool:
        return self.stage is Stage.ENDED

    @property
    def stamp(self) -> str:
        """By which the task shows whose run it is."""
        return f"{self.run.attempt.id}.{self.restart}"

    def step(self) -> None:
        """The next thing that it does; when it is killed there, its job ends."""
        try:
            self._steps[self.stage]()
        except ProcessKilledError:
            self.exit(137)
        except (ServerUnreachableError, ApiError):
            self.exit(69)

    def finish(self) -> None:
        """All steps that are left."""
        while not self.ended:
            self.step()

    def exit(self, code: int = 0) -> None:
        """Its process is gone, and so is the job, if Slurm has this start and no later one."""
        self.vanish()
        if not self.unreachable and self.job.record is None and self.job.restarts == self.restart:
            self._site.cluster.end(self.job, JobState.FAILED if code else JobState.COMPLETED, code)

    def vanish(self) -> None:
        """Its processes are gone, and Slurm does not hear of it from them."""
        self.has_process = False
        self.stage = Stage.ENDED

    def terminate(self, cause: TerminationCause) -> None:
        """SIGTERM. What it does then, it does in the next steps."""
        if self.stage in (Stage.CLAIM, Stage.START):
            self.vanish()
        elif self.has_process:
            self._end_process("stopped", cause.value, cause)

    def report(self) -> None:
        """What it does every few seconds from the start of the task to its end, however long no step is asked for."""
        if self.stage in (Stage.RUN, Stage.FINISH, Stage.REPORT, Stage.PUBLISH) and self._is_ours():
            self._site.server.report(self._worker)

    def check_task(self) -> None:
        """What its watcher does every few seconds: report to the server, and see what became of the task."""
        if not self.has_process:
            return
        seen = self._site.server.seen
        if not self._is_ours():
            self.exit(1)
        elif seen.abort_requested:
            self._end_process("stopped", "aborted by its user")
        elif seen.status not in (TaskStatus.IN_PROGRESS, TaskStatus.COMPLETED):
            self._end_process("none", "taken back")
        else:
            self._site.server.report(self._worker)

    # ------------------------------------------------ steps

    def _claim(self) -> None:
        me = AgentIdentity(
            worker=self._worker,
            host=f"n{self.restart}",
            owner=f"job:{self.job.id}",
            job=self.job.id,
            restart_count=self.restart,
            run_dir=self.run.path,
            cluster=self._site.cluster.cluster(),
            pid=1,
        )
        self._task = task = self._client.tasks.get(self._site.server.task)
        claimed = Claimer(self._client, self.run, me, self._site.clock).claim(task, require_queue=True)
        if not isinstance(claimed, Won):
            self.exit()
            return
        self.won = claimed
        self.stage = Stage.START

    def _start(self) -> None:
        """As ``executor.report.Reporter.start``: the run token first, and a look at the task before each change."""
        assert self.won is not None
        task = self._site.server.task
        if not still_ours(self.run, self.won.claim):
            self.exit(1)
            return
        try:
            if not self._set_first_token():
                if self._was_taken_back():
                    return
                self._client.tasks.set_run_token(task, self.stamp, {}, budget=ONCE)
            if self._was_taken_back():
                return
            self._client.tasks.started(task, "worker started execution", "", budget=ONCE)
        except ApiError:
            if self._was_taken_back():
                return
            raise
        self._client.workers.report(self._worker, task=task)
        self.stage = Stage.RUN

    def _set_first_token(self) -> bool:
        """Set the run token without a look before; False where that is not safe, or had no answer."""
        assert self.won is not None and self._task is not None
        taken_at = self.won.taken_at
        if taken_at is None or taken_at.seconds_ago(self._site.clock) >= CERTAIN_S:
            return False
        try:
            self._client.tasks.set_first_run_token(self._task, self.stamp, {}, budget=ONCE)
        except ServerUnreachableError:
            return False
        return True

    def _was_taken_back(self) -> bool:
        """Whether the task is another than at the claim, or its user asked to stop it; the end is prepared then."""
        task = self._site.server.task
        assert self._task is not None
        seen = self._client.tasks.get_states([task]).get(task)
        self._token_was_shown = self._token_was_shown or (seen is not None and seen.run_token == self.stamp)
        if seen is not None and seen.abort_requested:
            self._end_process("stopped", "aborted by its user")
        elif seen is None or not (
            seen.status in (self._task.status, TaskStatus.UNKNOWN)
            or (seen.status is TaskStatus.IN_PROGRESS and seen.run_token == self.stamp)
        ):
            self._end_process("none", "taken back")
        else:
            return False
        return True

    def _run(self) -> None:
        assert self.won is not None
        if self.won.silent:
            # It waits for FENCE_S, in which an earlier one that still lives has looked several times.
            for other in self._site.executors:
                if other is not self:
                    other.check_task()
        if not self._is_ours():
            self.exit(1)
            return
        self.run.write_claim(msgspec.structs.replace(self.won.claim, user_process_started=True))
        self.has_process = True
        self._generation = self._site.generation
        self._site.processes_started += 1
        self._site.count_processes()
        self.stage = Stage.FINISH

    def _finish(self) -> None:
        self.check_task()
        if self.has_process:
            self._end_process("completed", "worker execution done")

    def _end_process(
        self, status: Literal["completed", "stopped", "none"], reason: str, cause: TerminationCause | None = None
    ) -> None:
        self.has_process = False
        self._report = ExitReport(status=status, reason=reason, exit_code=1, at=self._site.clock.now(), cause=cause)
        self.stage = Stage.REPORT

    def _write_report(self) -> None:
        assert self.won is not None and self._report is not None
        if not still_ours(self.run, self.won.claim):
            self.exit(1)
            return
        self.run.write_exit_report(self._report)
        # What ended before its user reset the task is not a second end, however late it is on record.
        if self._generation == self._site.generation:
            self._site.finished += self._report.status == "completed"
        self.stage = Stage.PUBLISH

    def _publish(self) -> None:
        """As ``executor.report.Reporter`` does."""
        report = self._report
        assert report is not None
        if report.cause is None:
            if report.status != "none" and not self._was_reset():
                task = self._site.server.task
                self._client.tasks.set_final_status(
                    task, TaskStatus(report.status), report.reason, "its job", budget=ONCE
                )
            self.run.write_exit_report(msgspec.structs.replace(report, posted=True))
        self.exit(0 if report.status == "completed" else 1)

    def _was_reset(self) -> bool:
        task = self._site.server.task
        seen = self._client.tasks.get_states([task]).get(task)
        if seen is None:
            return False
        if not seen.run_token:
            return self._token_was_shown and seen.status is not TaskStatus.IN_PROGRESS
        return seen.run_token.partition(".")[0] != self.run.attempt.id

    def _is_ours(self) -> bool:
        assert self.won is not None
        return self._site.server.seen.run_token == self.stamp and still_ours(self.run, self.won.claim)
