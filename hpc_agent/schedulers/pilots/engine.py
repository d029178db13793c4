"""Engine of a pilot: takes tasks from the board, runs them side by side, and says how they ended. It has one thread.

Every step may be its last one: docs/internals/pilots.md lists what happens then.
"""

from __future__ import annotations

import signal
from collections import deque
from collections.abc import Callable, Mapping

from msgspec.structs import replace

from hpc_agent.child_processes import become_subreaper
from hpc_agent.clock import Clock
from hpc_agent.domain.job import JobState
from hpc_agent.domain.pilot_slots import PilotState, may_run, to_start
from hpc_agent.errors import ProcessError
from hpc_agent.file_records import CorruptFileError
from hpc_agent.logs import EventLog
from hpc_agent.schedulers.pilots import backend, task_process
from hpc_agent.schedulers.pilots.allocation import PilotAllocation, RemainingTime
from hpc_agent.schedulers.pilots.board import (
    PilotClaim,
    PilotTask,
    StopCause,
    StopRecord,
    TaskBoard,
    TaskEnd,
    task_job_id,
)
from hpc_agent.schedulers.pilots.gate import Grant
from hpc_agent.schedulers.pilots.pilot_options import PilotOptions
from hpc_agent.schedulers.pilots.pilot_records import PilotRecords
from hpc_agent.schedulers.pilots.task_memory import memory_of, shared_memory_of
from hpc_agent.schedulers.pilots.task_process import TaskProcess, kill_orphans
from hpc_agent.wake_up import TERMINATION, WakeUp

log = EventLog("pilot")

_LOOK_S = 0.25
"""Seconds between two looks at the board while there is, or just was, something to do."""
_LOOK_IDLE_S = 1.0
_MEMORY_S = 2.0
_SHORT_S = 30.0
"""Mean run time of tasks up to which the next ones' agents are started ahead."""
_STATES = {
    StopCause.PILOT: JobState.PREEMPTED,
    StopCause.TIME_LIMIT: JobState.TIMEOUT,
    StopCause.MEMORY: JobState.OUT_OF_MEMORY,
    StopCause.CANCELLED: JobState.CANCELLED,
}
_MB = 1024 * 1024
_NOTHING = Grant()


class PilotEngine:
    """``run`` until the pilot is not needed any more, its time is over, or ``stop`` was called."""

    def __init__(
        self,
        board: TaskBoard,
        options: PilotOptions,
        allocation: PilotAllocation,
        remaining: RemainingTime,
        environment: Mapping[str, str],
        claim: PilotClaim,
        publish_news: Callable[[], None],
        clock: Clock,
    ) -> None:
        """``environment`` of the tasks' scripts. ``claim`` names this pilot; it is made for each task with its own time
        and GPUs. ``publish_news`` is called where the daemon has something to do: when the pilot has started, and when
        an agent left no report."""
        self._board = board
        self._records = PilotRecords(board, options.job)
        self._options = options
        self._allocation = allocation
        self._remaining = remaining
        self._environment = environment
        self._claim = claim
        self._publish_news = publish_news
        self._clock = clock
        self._wake = WakeUp()
        self._stopping = False
        self._running: dict[int, TaskProcess] = {}
        self._ahead: dict[int, TaskProcess] = {}
        """Tasks of ours that wait for a slot, their agents at their gates; in their order."""
        self._tasks: dict[int, PilotTask] = {}
        self._waiting: dict[int, PilotTask] = {}
        """Tasks on the board that no pilot has taken, as the last look found them."""
        self._run_times: deque[float] = deque(maxlen=16)
        self._busy_at = clock.monotonic()
        self._memory_at = clock.monotonic()
        self._is_full = False

    def handle_signals(self) -> None:
        """From now on the program's signals end ``run``, or have it look for tasks that have ended."""
        self._wake.on_signals(TERMINATION, self.stop)
        self._wake.on_signals((signal.SIGCHLD, signal.SIGIO), self._wake.set)

    def stop(self) -> None:
        """Have ``run`` end all tasks and return."""
        self._stopping = True
        self._wake.set()

    def run(self) -> None:
        become_subreaper()
        log.info("pilot.started", job=self._options.job, slots=self._allocation.whole, left=self._remaining.seconds())
        self._end_earlier_start()
        self._publish_news()
        self._busy_at = self._clock.monotonic()
        # It looks once at least, however short its idle time is.
        self._turn()
        while not self._stopping and not self._is_done():
            self._wake.wait(self._pause())
            self._turn()
        self._end_all()
        log.info("pilot.ended", job=self._options.job)

    def _pause(self) -> float:
        busy = self._running or self._waiting or self._clock.monotonic() - self._busy_at < 5
        return _LOOK_S if busy else _LOOK_IDLE_S

    def _is_done(self) -> bool:
        if self._running or self._ahead or not self._records.is_written:
            return False
        return self._is_full or self._clock.monotonic() - self._busy_at > self._options.idle_time

    def _turn(self) -> None:
        try:
            self._reap()
            # What waits is known from the last look: a free slot waits for no listing.
            self._start()
            self._records.flush()
            kinds = self._board.numbers()
            self._look(kinds)
            self._start()
            self._start_ahead()
            self._check(kinds)
        except (OSError, CorruptFileError) as error:
            # A file server that is away for a while; the tasks go on.
            log.warning("pilot.board_unavailable", job=self._options.job, error=error)

    # ---------------------------------------------------------------- what is on the board

    def _end_earlier_start(self) -> None:
        """The scheduler started this job again: nothing of the start before lives, here at least."""
        if not self._options.restarts:
            return
        for number in self._board.numbers():
            claim = self._board.claim(number)
            is_old = claim and claim.pilot == self._options.job and claim.restarts < self._options.restarts
            if is_old and self._board.end(number) is None:
                pilot = f"{self._options.title}, which was started again"
                self._board.write_end(number, TaskEnd(JobState.PREEMPTED, self._clock.now(), pilot=pilot))

    def _look(self, kinds: Mapping[int, set[str]]) -> None:
        self._waiting = {}
        for number, found in kinds.items():
            if found & {"claim", "end"}:
                continue
            task = self._tasks.get(number) or self._board.task(number)
            if task is not None:
                self._tasks[number] = task
                if task.queue == self._options.queue:
                    self._waiting[number] = task
        self._tasks = {number: task for number, task in self._tasks.items() if number in kinds}

    # ---------------------------------------------------------------- start

    def _state(self) -> PilotState:
        return PilotState(self._allocation.whole, self._allocation.free, self._remaining.seconds())

    def _start(self) -> None:
        """Start what there is room for: first what waits at its gate."""
        if self._is_full or self._stopping:
            return
        for number, process in list(self._ahead.items()):
            if not may_run(process.task.demand, self._state()):
                self._put_back(number)
            elif not self._allocation.free.holds(process.task.slot):
                break
            else:
                self._let_go(process)
        numbers = [] if self._ahead else list(self._waiting)
        for index in to_start([self._waiting[number].demand for number in numbers], self._state()):
            self._start_task(numbers[index], self._waiting.pop(numbers[index]))
        if self._remaining.is_over():
            log.info("pilot.full", job=self._options.job, left=self._remaining.seconds())
            self._board.declare_full(self._options.job)
            self._is_full = True
            for number in list(self._ahead):
                self._put_back(number)

    def _start_task(self, number: int, task: PilotTask) -> None:
        """The claim comes first: of all that try to start it one does."""
        grant, process = self._allocation.grant(task.slot), None
        try:
            if self._records.take(number, self._own_claim(grant)):
                process = self._spawn(number, task, grant)
        finally:
            if process is None:
                self._allocation.take_back(task.slot, grant)
        if process is not None:
            self._run(process, grant)

    def _let_go(self, process: TaskProcess) -> None:
        """Give a task that waits at its gate its slot. Its time counts from now on."""
        grant = self._allocation.grant(process.task.slot)
        try:
            self._board.renew_claim(process.number, self._own_claim(grant))
        except OSError:
            self._allocation.take_back(process.task.slot, grant)
            raise
        del self._ahead[process.number]
        self._run(process, grant)

    def _run(self, process: TaskProcess, grant: Grant) -> None:
        process.let_go(grant, self._clock.monotonic())
        self._running[process.number] = process
        self._busy_at = self._clock.monotonic()
        gpus = ",".join(grant.gpus)
        log.info("pilot.task_started", job=task_job_id(process.number), pid=process.pid, gpus=gpus)

    def _own_claim(self, grant: Grant = _NOTHING) -> PilotClaim:
        return replace(self._claim, at=self._clock.now(), gpus=tuple(grant.gpus))

    def _spawn(self, number: int, task: PilotTask, grant: Grant = _NOTHING) -> TaskProcess | None:
        """Start the script of a task that is ours; None if that failed, which is the task's end."""
        env = {
            **self._environment,
            backend.JOB: task_job_id(number),
            backend.BOARD: str(self._board.path),
            backend.CLUSTER: self._options.cluster,
            backend.CPUS: str(task.slot.cpus),
            backend.MEMORY: str(task.slot.memory_mb),
            backend.NODE: self._options.node,
            backend.BATCH_JOB: self._options.job,
            "CUDA_VISIBLE_DEVICES": ",".join(grant.gpus),
        }
        try:
            return task_process.start(number, task, env)
        except ProcessError as error:
            log.error("pilot.task_not_started", job=task_job_id(number), error=error)
            self._records.end(number, TaskEnd(JobState.FAILED, self._clock.now(), exit_code=127))
            return None

    def _start_ahead(self) -> None:
        """Start the agents of tasks that will have a slot soon. Not of tasks with GPUs: what their scripts do before
        their agents may ask which these are. Not of long ones: another pilot may have a slot for them before."""
        if self._is_full or self._stopping or not self._run_times:
            return
        mean = sum(self._run_times) / len(self._run_times)
        running = len(self._running) - self._reporting
        room = min(running, 1 + int(running / max(mean, 0.1))) - len(self._ahead)
        state = self._state()
        for number, task in list(self._waiting.items())[:room] if mean <= _SHORT_S and room > 0 else ():
            if task.slot.gpus or not may_run(task.demand, state):
                return
            if self._records.take(number, self._own_claim()):
                process = self._spawn(number, task)
                if process is not None:
                    self._ahead[number] = process
            del self._waiting[number]

    def _put_back(self, number: int) -> None:
        """Leave a task to other pilots: its agent waited at its gate, and has done nothing."""
        self._end_at_gate(number)
        self._records.put_back(number)

    def _end_at_gate(self, number: int) -> None:
        process = self._ahead.pop(number)
        process.kill()
        process.wait()

    # ---------------------------------------------------------------- end

    def _reap(self) -> None:
        """Note the tasks that have ended. Their slots are free; that of one whose agent only reports is too, but for
        those of a server that takes no reports."""
        failed = False
        for number, process in list(self._running.items()):
            if (code := process.poll()) is not None:
                del self._running[number]
                self._free_slot(process)
                self._note_end(process, code)
                failed = failed or code != 0
            elif process.has_slot and self._reporting < self._allocation.whole.cpus and process.only_reports():
                self._free_slot(process)
        for number, process in list(self._ahead.items()):
            if (code := process.poll()) is not None:
                # It could not even ask: its configuration is gone, say.
                del self._ahead[number]
                self._note_end(process, code)
        if failed:
            kill_orphans({process.pid for process in (*self._running.values(), *self._ahead.values())})

    def _free_slot(self, process: TaskProcess) -> None:
        if process.has_slot:
            process.has_slot = False
            self._allocation.take_back(process.task.slot, process.grant)
            self._busy_at = self._clock.monotonic()
            self._run_times.append(self._busy_at - process.started)

    @property
    def _reporting(self) -> int:
        """Tasks whose agents only report."""
        return sum(not process.has_slot for process in self._running.values())

    def _note_end(self, process: TaskProcess, code: int) -> None:
        state = _STATES[process.stop] if process.stop else JobState.FAILED if code else JobState.COMPLETED
        pilot = self._options.title if process.stop is StopCause.PILOT else ""
        end = TaskEnd(state, self._clock.now(), max(code, 0), max(-code, 0), pilot)
        self._records.end(process.number, end)
        if code < 0:
            self._publish_news()
        log.info("pilot.task_ended", job=task_job_id(process.number), state=state.value, exit_code=code)

    def _check(self, kinds: Mapping[int, set[str]]) -> None:
        """End tasks that are cancelled, out of time or out of memory."""
        now = self._clock.monotonic()
        for number in [number for number in self._ahead if "cancel" in kinds.get(number, ())]:
            self._end_at_gate(number)
            self._records.end(number, TaskEnd(JobState.CANCELLED, self._clock.now()))
        for number, process in self._running.items():
            limit = process.task.time_limit
            if "cancel" in kinds.get(number, ()):
                self._end(process, StopCause.CANCELLED)
            elif now >= process.started + limit:
                self._end(process, StopCause.TIME_LIMIT)
            elif process.task.warned and not process.was_warned and now >= process.started + limit / 2:
                # Its agent asks how much time is left, and ends the task when its queue's signal_ahead is left.
                process.was_warned = True
                process.signal(signal.SIGUSR1)
            if process.stop and now >= process.kill_at:
                process.kill()
        if now - self._memory_at >= _MEMORY_S:
            self._memory_at = now
            self._check_memory()

    def _check_memory(self) -> None:
        limits = {p.pid: p for p in self._running.values() if p.task.slot.memory_mb}
        if not limits:
            return
        for pid, used in memory_of(limits).items():
            process = limits[pid]
            limit = process.task.slot.memory_mb * _MB
            if used > limit and process.stop is None and (shared := shared_memory_of(pid)) > limit:
                log.warning("pilot.out_of_memory", job=task_job_id(process.number), used_mb=shared // _MB)
                self._note_stop(process, StopCause.MEMORY)
                process.kill()

    def _end(self, process: TaskProcess, cause: StopCause) -> None:
        if process.stop is None:
            self._note_stop(process, cause)
            process.signal(signal.SIGTERM)

    def _note_stop(self, process: TaskProcess, cause: StopCause) -> None:
        """The cause is on disk before the signal: the task's agent asks for it."""
        process.stop = cause
        process.kill_at = self._clock.monotonic() + self._options.grace
        log.info("pilot.task_stopped", job=task_job_id(process.number), cause=cause.value)
        try:
            self._board.write_stop(process.number, StopRecord(self._clock.now(), cause))
        except OSError as error:
            log.warning("pilot.board_unavailable", job=self._options.job, error=error)

    def _end_all(self) -> None:
        """No task is left to run without its pilot."""
        for process in self._running.values():
            self._end(process, StopCause.PILOT)
        for number in list(self._ahead):
            self._put_back(number)
        written_by = self._clock.monotonic() + self._options.grace
        while self._running or (not self._records.is_written and self._clock.monotonic() < written_by):
            self._reap()
            for process in self._running.values():
                if self._clock.monotonic() >= process.kill_at:
                    process.kill()
            try:
                self._records.flush()
            except (OSError, CorruptFileError) as error:
                # In the end the daemon concludes from that of the pilot.
                log.warning("pilot.board_unavailable", job=self._options.job, error=error)
            if self._running or not self._records.is_written:
                self._wake.wait(0.1)
