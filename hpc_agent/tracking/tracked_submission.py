"""Submission of a tracked job (``hpc-agent sbatch``): the task is made, sbatch run as given, the job recorded.

Nothing here may keep a job from Slurm: what goes wrong with the task costs the task.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Mapping, Sequence

import msgspec

from hpc_agent.access import user_name
from hpc_agent.api.client import Client
from hpc_agent.clock import Clock
from hpc_agent.config.job_config import write_job_config
from hpc_agent.config.load import Configuration
from hpc_agent.domain.draft import Draft, name_from
from hpc_agent.domain.ids import JobId, TaskId
from hpc_agent.domain.job import LimitReached, OutcomeUnknown, Refused
from hpc_agent.errors import ApiError, HpcAgentError, InputError, ProcessError, SchedulerUnavailableError
from hpc_agent.file_records import write_atomic
from hpc_agent.logs import EventLog
from hpc_agent.process import terminal
from hpc_agent.schedulers.base import Scheduler
from hpc_agent.schedulers.slurm.sbatch_answers import parse_sbatch
from hpc_agent.tracking import hook, sbatch_options
from hpc_agent.tracking.describe import SubmittedScript, comment, reads_bash_env
from hpc_agent.tracking.job_search import AmbiguousJobError, JobSearch
from hpc_agent.tracking.sbatch_output import SbatchOutput
from hpc_agent.tracking.submission_request import SubmissionRequest
from hpc_agent.tracking.tracked_records import (
    TrackedDirectory,
    TrackedJobRecord,
    TrackedRoot,
    TrackingPlan,
    UnclearSubmissionRecord,
)
from hpc_agent.tracking.unclear_submissions import show_doubt, show_job
from hpc_agent.wire.task_requests import draft_to_wire

log = EventLog("sbatch")

WAITING = "hpc-agent sbatch"
"""Queue that holds tasks while their jobs wait in Slurm. No agent serves it: to take a task off it, or to abort
the task, cancels the job."""


class PreparedSubmission(msgspec.Struct, frozen=True):
    """The task is there; sbatch is next."""

    folder: TrackedDirectory
    argv: Sequence[str]
    environ: Mapping[str, str]
    page: str
    plan: TrackingPlan
    parsable: bool
    """Where it was asked for, sbatch prints a number alone."""
    quiet: bool
    """sbatch prints no id: what looks like one is a site's."""
    waits: bool
    """sbatch stays until the job has ended."""
    before: frozenset[JobId]
    """Jobs of the name that were there already, where sbatch will print no id."""


class TrackedSubmission:
    """Submission of a user's script as a tracked task: ``prepare`` makes the task, ``run`` calls sbatch."""

    def __init__(
        self,
        configuration: Configuration,
        client: Client,
        scheduler: Scheduler,
        folders: TrackedRoot,
        environ: Mapping[str, str],
        clock: Clock,
    ) -> None:
        self._configuration = configuration
        self._client = client
        self._scheduler = scheduler
        self._folders = folders
        self._job_search = JobSearch(scheduler, folders)
        self._environ = environ
        self._clock = clock

    def prepare(self, wanted: SubmissionRequest, agent: Sequence[str]) -> PreparedSubmission:
        """Make the task and what its job needs. ``agent``: how the job calls this program.

        Raises:
            HpcAgentError, OSError: it cannot be tracked; nothing is left behind.
        """
        project = self._client.projects.find_or_create(
            self._own(wanted, "project") or name_from(wanted.described.project, "project")
        )
        task = self._client.tasks.create(draft_to_wire(self._draft(wanted), project))
        folder = self._folders.of(task)
        try:
            queue = self._put_on_queue(task)
            page = self._client.task_page(task, project)
            return self._prepare(wanted, folder, queue, page, agent)
        except BaseException:
            self._discard(folder)
            raise

    def _draft(self, wanted: SubmissionRequest) -> Draft:
        return Draft(
            name=self._own(wanted, "name") or name_from(wanted.job_name, "job"),
            project=wanted.described.project,
            script=wanted.described.script,
            properties=sbatch_options.resources_from_options(wanted.options),
            tags=tuple(tag.strip() for tag in self._own(wanted, "tags").split(",") if tag.strip()),
            comment=comment(wanted.command, wanted.described.notes, self._when(wanted.submitted)),
        )

    def _own(self, wanted: SubmissionRequest, name: str) -> str:
        given = wanted.command.own.get(f"clearml-{name}")
        return given if given is not None else self._environ.get(f"HPC_AGENT_SBATCH_{name.upper()}", "")

    def _when(self, submitted: SubmittedScript) -> str:
        now = f"{self._clock.now():%Y-%m-%d %H:%M:%S} UTC"
        return f"Submitted at {now} by {user_name()}@{socket.gethostname()} in {submitted.workdir}"

    def _put_on_queue(self, task: TaskId) -> str:
        """The queue's id; empty where this account may not have one: the task then waits as a draft."""
        try:
            queue = self._client.queues.resolve(WAITING, create=True)
            self._client.tasks.enqueue(task, queue, "submitted with sbatch")
        except (ApiError, InputError) as error:
            log.warning("task.not_queued", task=task, error=error)
            return ""
        return queue

    def _prepare(
        self, wanted: SubmissionRequest, folder: TrackedDirectory, queue: str, page: str, agent: Sequence[str]
    ) -> PreparedSubmission:
        added = self._variables(folder, wanted)
        export = sbatch_options.export(wanted.options, list(added), heterogeneous=wanted.command.heterogeneous)
        if not export.reaches:
            added = {}
        plan = TrackingPlan(
            task=folder.task,
            since=self._clock.now(),
            queue=queue,
            cluster=self._cluster(),
            job_name=wanted.job_name,
            hooked="BASH_ENV" in added,
            indices=wanted.elements.indices,
            element=wanted.described.element,
            outputs=wanted.outputs,
        )
        folder.create(plan)
        write_job_config(self._configuration, self._folders.config)
        restore = {"BASH_ENV": self._environ.get("BASH_ENV", "")}
        if export.option:
            restore["SLURM_EXPORT_ENV"] = export.value
        text = hook.text(folder, self._folders.config, agent, restore, array=bool(plan.indices))
        write_atomic(folder.hook, text.encode(), mode=0o600)
        argv = ["sbatch", *wanted.command.with_options([export.option] if export.option else [])]
        quiet = "quiet" in wanted.options
        return PreparedSubmission(
            folder,
            argv,
            {**self._environ, **added},
            page,
            plan,
            parsable=wanted.parsable,
            quiet=quiet,
            waits="wait" in wanted.options or "SBATCH_WAIT" in self._environ,
            before=self._job_search.listed(plan) if quiet else frozenset(),
        )

    def _variables(self, folder: TrackedDirectory, wanted: SubmissionRequest) -> dict[str, str]:
        """What the job gets in addition to the user's own environment."""
        added = {}
        if not wanted.elements.indices:
            added = {"CLEARML_TASK_ID": folder.task, "CLEARML_LOG_TASK_TO_BACKEND": "0"}
        if reads_bash_env(wanted.submitted.text):
            added["BASH_ENV"] = str(folder.hook)
        if added and (config := self._environ.get("CLEARML_CONFIG_FILE")):
            # The task is on that server: a Task.init() in the script must look for it there.
            added["CLEARML_CONFIG_FILE"] = config
        return added

    def _cluster(self) -> str:
        try:
            return self._scheduler.cluster()
        except SchedulerUnavailableError as error:
            log.warning("cluster.unknown", error=error)
            return ""

    def run(self, prepared: PreparedSubmission, stdin: bytes | None, follow: Callable[[], None]) -> int:
        """Run sbatch as the user wrote it. ``follow`` is called as soon as there is a job, or one to look for. Returns
        sbatch's exit code.

        Raises:
            ProcessError: there is no sbatch; the task is deleted again.
        """
        output = SbatchOutput(parsable=prepared.parsable)
        noted = ""

        def on_output(piece: bytes) -> None:
            nonlocal noted
            output.feed(piece)
            if not noted and (job := self._seen_at_once(prepared, output)):
                noted = job
                self._note(prepared, job, follow)

        try:
            code, words = terminal.pass_through(prepared.argv, env=prepared.environ, input=stdin, on_output=on_output)
        except ProcessError:
            self._discard(prepared.folder)
            raise
        output.close()
        job = self._identified(prepared, output, code, is_silent=not words.strip())
        if job and job != noted:
            self._note(prepared, job, follow)
        elif not job:
            self._without_job(prepared, output, code, words, follow)
        return code

    def _seen_at_once(self, prepared: PreparedSubmission, output: SbatchOutput) -> str:
        """The job's id while sbatch still runs: with --wait that may take days."""
        if output.sentences and not prepared.quiet:
            return output.sentences[0]
        return self._confirmed(prepared, output.named) if prepared.waits and output.named else ""

    def _identified(self, prepared: PreparedSubmission, output: SbatchOutput, code: int, *, is_silent: bool) -> str:
        """The submitted job's id once sbatch has ended; empty if that is not clear."""
        if len(output.named) == 1 and not prepared.quiet and (code == 0 or is_silent):
            return output.named[0]  # with --wait the exit code is the job's
        found = self._confirmed(prepared, output.named) if output.named else ""
        return found or (self._found_by_name(prepared) if code == 0 else "")

    def _confirmed(self, prepared: PreparedSubmission, named: Sequence[JobId]) -> str:
        try:
            return self._job_search.among(named, prepared.folder, prepared.plan) or ""
        except (SchedulerUnavailableError, AmbiguousJobError) as error:
            log.warning("job.id_unknown", numbers=",".join(named), error=error)
            return ""

    def _found_by_name(self, prepared: PreparedSubmission) -> str:
        """The id of a job that sbatch did not print, as with --quiet."""
        identify, plan = self._job_search.by_name, prepared.plan
        try:
            return identify(prepared.folder, plan, self._clock.now(), exists=True, before=prepared.before) or ""
        except (SchedulerUnavailableError, AmbiguousJobError) as error:
            log.warning("job.id_unknown", error=error)
            return ""

    def _without_job(
        self, prepared: PreparedSubmission, output: SbatchOutput, code: int, words: bytes, follow: Callable[[], None]
    ) -> None:
        """A refusal leaves no task. After any other answer the job may exist, with this task in its environment."""
        answer = parse_sbatch(code, output.text, words.decode("utf-8", "replace"), parsable=prepared.parsable)
        if isinstance(answer, (Refused, LimitReached)):
            self._discard(prepared.folder)
            return
        message = answer.message if isinstance(answer, OutcomeUnknown) else output.text
        unclear = UnclearSubmissionRecord(at=self._clock.now(), exit_code=code, message=message)
        try:
            # A number that was taken for the job's before the rest of the answer came is not.
            prepared.folder.drop_job()
            prepared.folder.write_unclear(unclear)
            follow()
        except Exception as error:  # noqa: BLE001 - sbatch's exit code must reach the user
            log.error("job.search_failed", page=prepared.page, error=error)
        show_doubt(self._client, prepared.folder.task, unclear)
        log.error("job.submission_unclear", page=prepared.page)

    def _note(self, prepared: PreparedSubmission, job: str, follow: Callable[[], None]) -> None:
        folder = prepared.folder
        try:
            noted = folder.job()
            if noted is None or not noted.known:
                folder.write_job(TrackedJobRecord(id=job))
            follow()
            show_job(self._client, folder.task, job)
        except Exception as error:  # noqa: BLE001 - sbatch has done its work, and its exit code must reach the user
            log.error("task.job_not_shown", job=job, page=prepared.page, error=error)

    def _discard(self, folder: TrackedDirectory) -> None:
        """No job has this task."""
        folder.remove()
        try:
            self._client.tasks.dequeue(folder.task)
            self._client.tasks.delete(folder.task)
        except HpcAgentError as error:
            log.warning("task.not_deleted", task=folder.task, error=error)
