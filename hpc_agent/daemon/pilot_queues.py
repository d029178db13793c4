"""Queues in the mode ``pilot``: how many pilots there are, and how many tasks they get (docs/internals/pilots.md).

Nothing is stored: the scheduler's list shows the pilots by their names, and the board their tasks.
"""

from __future__ import annotations

import math
from collections import Counter, deque
from collections.abc import Collection, Mapping, Sequence

import msgspec
from msgspec.structs import replace

from hpc_agent.clock import Clock
from hpc_agent.config.resource_settings import QueueSettings
from hpc_agent.config.settings import AllSettings
from hpc_agent.daemon.job_launch import JobLaunchConfig
from hpc_agent.daemon.nodes import BadNodes
from hpc_agent.domain.attempt import Attempt
from hpc_agent.domain.ids import AttemptId, JobId, QueueId, TaskId
from hpc_agent.domain.job import Accepted, JobState, LiveJob
from hpc_agent.domain.job_phase import WAITING_STATES
from hpc_agent.domain.pilot_slots import (
    PILOT_PREFIX,
    PilotQueueState,
    Slot,
    counted,
    fits,
    pilot_name,
    to_hand_over,
    wanted_pilots,
)
from hpc_agent.domain.queue import Queue
from hpc_agent.domain.resources import Resources
from hpc_agent.domain.task import Task
from hpc_agent.domain.wait_reason import explain_wait
from hpc_agent.errors import TemplateError
from hpc_agent.file_records import ensure_directory, write_atomic
from hpc_agent.logs import EventLog
from hpc_agent.runs.directory import RunsFolder
from hpc_agent.runs.job_news import JobNews
from hpc_agent.schedulers.base import Scheduler, SubmitRequest
from hpc_agent.schedulers.pilots.board import task_number
from hpc_agent.schedulers.pilots.scheduler import PilotScheduler
from hpc_agent.submission.render import JobContext, Renderer

log = EventLog("pilots")

_PAUSE_S = 30.0
"""Seconds between an answer that gives no pilot, or a pilot that ended without a task, and the next submission of one;
twice as many after each further one."""
_LONGEST_PAUSE_S = 1800.0
_PASSES = 3
"""Passes whose ended tasks say how fast a queue goes."""
_LONGEST_OUTPUT = 16 * 1024 * 1024
"""Bytes of the file with the log of a queue's pilots, after which another one is begun."""
_AT_ONCE = 10
"""Pilots that one pass submits at most."""


class _Observed(msgspec.Struct):
    """What this process has seen of a queue, from pass to pass."""

    ended: deque[int]
    surplus_since: float = math.inf
    """Monotonic time since which there were more pilots than needed."""
    room: int = 0
    """Tasks that may still be handed over in this pass."""
    message: str = ""
    """Why tasks wait in the queue."""
    submitted: set[JobId] = msgspec.field(default_factory=set)
    """Pilots that were listed, or are to be."""
    useless: int = 0
    """Pilots in a row that ended without having taken a task."""
    paused_until: float = -math.inf
    """Monotonic time up to which no other is submitted."""


class PilotQueues:
    """The pilots of one daemon's queues: ``keep`` in each pass, then ``room`` says how many tasks they get."""

    def __init__(
        self,
        scheduler: Scheduler,
        settings: AllSettings,
        launch: JobLaunchConfig,
        renderer: Renderer,
        clock: Clock,
    ) -> None:
        self._scheduler = scheduler if isinstance(scheduler, PilotScheduler) else None
        self._settings = settings
        self._launch = launch
        self._renderer = renderer
        self._clock = clock
        self._nodes = BadNodes(RunsFolder(settings.hpc.runs).nodes, clock)
        self._news = JobNews(settings.hpc.runs)
        self._seen: dict[str, _Observed] = {}
        self.submitted = 0
        """Pilots that the last ``keep`` submitted."""

    def is_pilot_task(self, jobs: Sequence[LiveJob]) -> bool:
        """Whether these are a task's job in a pilot, and not one of the batch system."""
        return any(task_number(job.id) is not None for job in jobs)

    def count(self, live: Collection[LiveJob]) -> int:
        """How many of the jobs that the scheduler lists are pilots."""
        return sum(job.name.startswith(PILOT_PREFIX) for job in live)

    def serves(self, queue: Queue) -> bool:
        return self._scheduler is not None and self._queue_settings(queue.name).mode == "pilot"

    def takes(self, queue: str, resources: Resources) -> bool:
        """Whether a task of this queue with these resources runs in a pilot, and not in a job of its own."""
        settings = self._queue_settings(queue)
        return settings.mode == "pilot" and fits(resources, settings.pilot_resources(self._settings.hpc.resources))

    def keep(self, queues: Collection[Queue], due: Mapping[QueueId, int], live: Sequence[LiveJob]) -> None:
        """Ask for pilots, or cancel those that are not needed. ``due``: tasks of each queue that wait for a slot.
        ``live``: all jobs that the scheduler lists.
        """
        self.submitted = 0
        if self._scheduler is None:
            return
        for queue in queues:
            if self.serves(queue):
                self._keep(self._scheduler, queue, due.get(queue.id, 0), live)
            else:
                # It was in this mode before the daemon was started again.
                self._scheduler.return_tasks(queue.name)

    def room(self, queue: str) -> int:
        """Tasks of a queue that may be handed over in this pass."""
        return self._of(queue).room

    def message(self, queue: str) -> str:
        """Why the next task of a queue waits."""
        return self._of(queue).message

    def _of(self, queue: str) -> _Observed:
        return self._seen.setdefault(queue, _Observed(deque(maxlen=_PASSES)))

    def _queue_settings(self, queue: str) -> QueueSettings:
        return self._settings.hpc.queue(queue)

    def _keep(self, scheduler: PilotScheduler, served: Queue, due: int, live: Sequence[LiveJob]) -> None:
        queue = served.name
        seen, settings = self._of(queue), self._queue_settings(queue)
        seen.ended.append(scheduler.ended[queue])
        pilots = [job for job in live if job.name == pilot_name(queue)]
        state = self._state(scheduler, queue, due, pilots)
        wanted = wanted_pilots(state, settings.pilot.max_pilots)
        seen.room = to_hand_over(state)
        seen.message = _message(state, pilots, settings.pilot.max_pilots)
        self._note_useless(scheduler, queue, {job.id for job in pilots})
        self._cancel_surplus(scheduler, queue, pilots, wanted)
        missing = min(wanted - len(pilots), self._settings.hpc.max_jobs - _own_jobs(live) - self.submitted, _AT_ONCE)
        for _ in range(missing):
            if self._clock.monotonic() < seen.paused_until:
                return
            self._submit(scheduler, served)

    def _state(self, scheduler: PilotScheduler, queue: str, due: int, pilots: Sequence[LiveJob]) -> PilotQueueState:
        full = scheduler.board.full_pilots({job.id for job in pilots})
        tasks = [each for each in scheduler.open_tasks if each.task.queue == queue]
        claims = Counter(each.claim is None for each in tasks)
        return PilotQueueState(
            in_queue=due,
            waiting=claims[True],
            running=sum(1 for each in tasks if each.pilot is not None),
            ended=max(self._of(queue).ended),
            running_pilots=sum(job.state is JobState.RUNNING and job.id not in full for job in pilots),
            slots=self._slots(queue),
        )

    def _slots(self, queue: str) -> int:
        """Usual tasks that one pilot runs side by side."""
        settings, site = self._queue_settings(queue), self._settings.hpc.resources
        pilot = settings.pilot_resources(site)
        usual = Slot.of(settings.policy(queue, site).defaults)
        return max(counted(Slot.of(pilot), pilot).count(counted(usual, pilot)), 1)

    def _cancel_surplus(self, scheduler: PilotScheduler, queue: str, pilots: Sequence[LiveJob], wanted: int) -> None:
        """Pending pilots that have not been needed for a while. Those that run end by themselves."""
        seen, now = self._of(queue), self._clock.monotonic()
        if len(pilots) <= wanted:
            seen.surplus_since = math.inf
            return
        seen.surplus_since = min(seen.surplus_since, now)
        if now - seen.surplus_since < self._queue_settings(queue).pilot.idle_time:
            return
        pending = [job.id for job in pilots if job.state in WAITING_STATES][: len(pilots) - wanted]
        if pending:
            log.info("pilot.cancelled", queue=queue, jobs=",".join(pending))
            scheduler.base.cancel(pending, only_pending=True)
            # That they end without a task is our own doing.
            scheduler.useful_pilots.update(pending)

    def _submit(self, scheduler: PilotScheduler, served: Queue) -> None:
        queue = served.name
        try:
            answer = scheduler.base.submit(self._request(scheduler, served))
        except (TemplateError, OSError) as error:
            self._refused(queue, str(error))
            return
        if isinstance(answer, Accepted):
            self._of(queue).submitted.add(answer.job)
            self.submitted += 1
            log.info("pilot.submitted", queue=queue, job=answer.job)
        else:
            # Whatever it was: a job that was made of it shows up in the scheduler's list.
            self._refused(queue, answer.message)

    def _note_useless(self, scheduler: PilotScheduler, queue: str, listed: Collection[JobId]) -> None:
        """Pilots that end again and again before they take a task, because they cannot start, say, are paused."""
        seen = self._of(queue)
        gone = {job for job in seen.submitted if job not in listed}
        seen.submitted = (seen.submitted - gone) | set(listed)
        for job in gone:
            if job in scheduler.useful_pilots:
                seen.useless = 0
                scheduler.useful_pilots.discard(job)
                continue
            seen.useless += 1
            pause = min(_PAUSE_S * 2 ** (seen.useless - 1), _LONGEST_PAUSE_S)
            seen.paused_until = self._clock.monotonic() + pause
            log.warning("pilot.useless", queue=queue, job=job, in_a_row=seen.useless, pause=pause)
        if seen.useless and not listed:
            output = scheduler.folder / f"{pilot_name(queue)}.out"
            seen.message = f"Waiting for a pilot: the last {seen.useless} ended before they took a task, see {output}"

    def _refused(self, queue: str, why: str) -> None:
        seen = self._of(queue)
        seen.paused_until = self._clock.monotonic() + _PAUSE_S
        seen.message = f"Waiting for a pilot, which the scheduler did not take: {why}"
        log.warning("pilot.not_submitted", queue=queue, answer=why)

    def _request(self, scheduler: PilotScheduler, served: Queue) -> SubmitRequest:
        """The pilot's script is written."""
        queue = served.name
        resources = self._queue_settings(queue).pilot_resources(self._settings.hpc.resources)
        avoided = ",".join([*filter(None, [resources.exclude]), *self._nodes.avoided()])
        resources = replace(resources, exclude=avoided)
        folder = ensure_directory(scheduler.folder, mode=0o700)
        name = pilot_name(queue)
        output = folder / f"{name}.out"
        if output.exists() and output.stat().st_size > _LONGEST_OUTPUT:
            output.replace(output.with_suffix(".out.old"))
        task = TaskId("pilot")
        context = JobContext(
            task=Task(task),
            attempt=Attempt(task, AttemptId("0" * 8)),
            queue_name=queue,
            resources=resources,
            run_dir=folder,
            output=output,
            config_file=self._launch.config_file,
            agent=self._launch.agent,
            flags=self._flags(scheduler, served, resources),
            job_name=name,
            requeue=False,
        )
        template = self._renderer.language.pilot_template
        if not template:
            raise TemplateError(f"{scheduler.name} has no template for pilots: set the queue's mode to job")
        script = folder / f"{name}.sh"
        write_atomic(script, self._renderer.render(template, context).encode(), mode=0o700)
        return SubmitRequest(script, name, folder, context.output, resources)

    def _flags(self, scheduler: PilotScheduler, served: Queue, resources: Resources) -> list[str]:
        queue = served.name
        settings = self._queue_settings(queue)
        usual = settings.policy(queue, self._settings.hpc.resources).defaults
        values = {
            "--board": str(scheduler.folder),
            "--news": str(self._news.folder(served.id)),
            "--queue": queue,
            "--cluster": scheduler.cluster(),
            "--since": self._clock.now().isoformat(),
            "--cpus": str(resources.cpus or 1),
            "--memory": str(resources.memory_mb or 0),
            "--gpus": str(resources.gpus),
            "--time-limit": str(60 * (resources.time_minutes or 0)),
            "--task-limit": str(60 * (usual.time_minutes or 0)),
            "--idle-time": str(settings.pilot.idle_time),
            "--grace": str(self._settings.hpc.term_grace + 10),
        }
        return [word for pair in values.items() for word in pair]


def _own_jobs(live: Sequence[LiveJob]) -> int:
    """Jobs of ours in the batch system."""
    return sum(job.name.startswith("clearml_") and task_number(job.id) is None for job in live)


def _message(state: PilotQueueState, pilots: Sequence[LiveJob], most: int) -> str:
    if state.running_pilots:
        count = f"{len(pilots)} pilot{'s' if len(pilots) > 1 else ''}"
        return f"Waiting for a free slot: {count} of at most {most} with {state.slots} each ({state.running} tasks run)"
    pending = next((job for job in pilots if job.state in WAITING_STATES), None)
    if pending is not None:
        return f"Waiting for a pilot: {explain_wait(pending).text}"
    return "Waiting for a pilot to start" if pilots else "Waiting for a pilot, which is submitted when a task is ready"
