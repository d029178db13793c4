"""Dispatch of a pass's actions to the parts of the daemon that carry them out. Submissions are only collected."""

from __future__ import annotations

from msgspec.structs import replace

from hpc_agent.daemon.act import Actor
from hpc_agent.daemon.login_staging import StagingBackend
from hpc_agent.daemon.observe import ClusterObserver, ClusterSnapshot
from hpc_agent.daemon.partition_hints import PartitionHints
from hpc_agent.daemon.waiting_tasks import WaitingTasks
from hpc_agent.domain import actions
from hpc_agent.domain.attempt import Attempt
from hpc_agent.watcher.phase_log import PhaseLog


class ActionDispatch:
    def __init__(
        self,
        actor: Actor,
        observer: ClusterObserver,
        waiting: WaitingTasks,
        staging: StagingBackend | None,
        hints: PartitionHints,
        phases: PhaseLog,
    ) -> None:
        self._actor = actor
        self._observer = observer
        self._waiting = waiting
        self._staging = staging
        self._hints = hints
        self._phases = phases

    def act(
        self, cluster: ClusterSnapshot, attempt: Attempt, action: actions.Action, submits: dict[Attempt, int]
    ) -> None:
        """``submits`` takes the attempts that are to be submitted, with the number of each one's submission."""
        files = cluster.files[attempt]
        actor = self._actor
        if not isinstance(action, (actions.SubmitJob, actions.SetStatusMessage)):
            self._observer.remember(attempt)
        match action:
            case actions.SubmitJob(number):
                submits[attempt] = number
            case actions.FindByName(number, refusal=refusal):
                if not actor.find_by_name(attempt, files, action):
                    return
                if refusal:
                    self._waiting.fail(cluster.queue_of[attempt], attempt, refusal)
                else:
                    submits[attempt] = number
            case actions.RejectTask():
                self._waiting.reject(cluster.queue_of[attempt], attempt, action)
            case actions.AdoptJob():
                actor.adopt(files, action)
            case actions.CancelJob():
                actor.cancel(attempt, action)
            case actions.ReleaseJob():
                actor.release(attempt, action)
            case actions.SetStatusMessage():
                self._waiting.say(attempt, self._with_hint(cluster, attempt, action), files.directory)
            case actions.PublishExitReport():
                actor.concluder.publish_exit_report(attempt, files)
            case actions.SetFinalStatus():
                actor.concluder.set_final_status(attempt, files, action)
            case actions.Requeue():
                actor.concluder.requeue(attempt, files, action)
            case actions.DropClaim():
                files.directory.drop_claim()
            case actions.MarkDone():
                if files.staging is not None and self._staging is not None:
                    self._staging.drop(attempt)
                if actor.mark_done(attempt, files, action):
                    self._observer.forget(attempt)
                    self._phases.forget(attempt)
                    self._hints.forget(attempt)

    def _with_hint(
        self, cluster: ClusterSnapshot, attempt: Attempt, action: actions.SetStatusMessage
    ) -> actions.SetStatusMessage:
        """The message of a job that waits for resources, with the partition on which it would start sooner."""
        jobs, submission = cluster.snapshots[attempt].jobs, cluster.files[attempt].submission
        if submission is None or action.ping:
            return action
        if jobs and not action.console:
            hint = self._hints.hint(attempt, submission.queue_name, jobs[0], cluster.files[attempt].directory)
            action = replace(action, message=f"{action.message}{hint}")
        return self._waiting.named(submission.queue_name, action)
