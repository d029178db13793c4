"""The embedded server of a simulated site: real services and SQLite in the process of the test, faults at each call."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import msgspec
from manual_clock import ManualClock
from server_core import Outcome, ServerCore
from simulated_faults import Faults

from hpc_agent.api.client import Client
from hpc_agent.api.session import ApiSession
from hpc_agent.api.tasks import TasksApi
from hpc_agent.config.clearml_settings import ApiSettings
from hpc_agent.domain.ids import QueueId, TaskId, WorkerId
from hpc_agent.domain.status import TaskStatus
from hpc_agent.domain.task import Task
from hpc_agent.errors import ApiError, NotFoundError, ServerUnreachableError
from hpc_agent.redact import Secret
from hpc_agent.retry import ONCE, Budget
from hpc_agent.server.store.documents import Collection, queues, tasks
from hpc_agent.wire.error_kinds import INVALID_QUEUE_ID, INVALID_TASK_ID
from hpc_agent.wire.task_state import TaskState

_MISSING = {(kind.code, kind.subcode) for kind in (INVALID_TASK_ID, INVALID_QUEUE_ID)}
_OTHER_AGENT = WorkerId("other:gpu0")
_CHANGE_S = 0.001
"""What a change takes on the site's clock, so that no two happen at the same time."""


class SimulatedServer:
    """One task and one queue. The methods are what people and other agents do; no fault happens to their calls."""

    def __init__(self, folder: Path, clock: ManualClock, faults: Faults) -> None:
        self._clock = clock
        self._core = ServerCore(folder, clock)
        self._token = self._core.administrator.token()
        self.queue = QueueId(self._create("queues", queues, "q" * 32, name="queue"))
        self.task = TaskId(self._create("tasks", tasks, "a" * 32, name="train", type="training"))
        self.finals = 0
        """How often the task got another final status since its user last enqueued it."""
        self._seen: TaskState | None = None
        self._own = TasksApi(_InProcessSession(self, clock, Faults()))
        session = _InProcessSession(self, clock, faults)
        self.client = Client.through(session, clock)
        """What daemons and jobs reach the server with."""

    def __call__(self, action: str, **fields: Any) -> dict[str, Any]:
        outcome = self.ask(action, fields)
        assert outcome.code == "200/0", outcome
        return outcome.data

    def ask(self, action: str, fields: Any) -> Outcome:
        service, _, verb = action.partition(".")
        if verb.startswith("get_") and verb != "get_next_task":
            return self._core.ask(action, fields, self._token)
        self._clock.advance(_CHANGE_S)
        before = self.status if service == "tasks" and verb != "create" else None
        outcome = self._core.ask(action, fields, self._token)
        self._seen = None
        if before is not None and self.status.is_final and self.status is not before:
            self.finals += 1
        return outcome

    def _create(self, service: str, collection: Collection, id: str, **fields: object) -> str:
        """With an id of our own: attempts and their folders have the same names, and the same order, in every run."""
        made = self(f"{service}.create", **fields)["id"]
        with self._core.store.write() as db:
            document = collection.get(db, made)
            assert document is not None
            collection.delete(db, made)
            collection.insert(db, {**document, "id": id})
        return id

    def close(self) -> None:
        self._core.close()

    # ------------------------------------------------ what is there

    @property
    def seen(self) -> TaskState:
        if self._seen is None:
            self._seen = self._own.get_states([self.task])[self.task]
        return self._seen

    @property
    def status(self) -> TaskStatus:
        return self.seen.status

    @property
    def message(self) -> str:
        return self.seen.message

    @property
    def reason(self) -> str:
        return self.seen.reason

    @property
    def added(self) -> str | None:
        """When the task was added to the queue; None where it is not in it."""
        return self.entries.get(self.task)

    @property
    def entries(self) -> dict[TaskId, str]:
        """The tasks in the queue, in its order → when each was added to it."""
        entries = self("queues.get_by_id", queue=self.queue)["queue"]["entries"]
        return {TaskId(entry["task"]): str(entry["added"]) for entry in entries}

    @property
    def is_in_queue(self) -> bool:
        return self.added is not None

    def task_itself(self) -> Task:
        return self._own.get(self.task)

    # ------------------------------------------------ its user

    def add(self, id: str) -> TaskId:
        """Another task, in the same queue."""
        task = TaskId(self._create("tasks", tasks, id, name="sweep", type="training"))
        self("tasks.enqueue", task=task, queue=self.queue)
        return task

    def enqueue(self) -> None:
        self.finals = 0
        self("tasks.enqueue", task=self.task, queue=self.queue)

    def dequeue(self) -> None:
        self("tasks.dequeue", task=self.task)

    def abort(self) -> None:
        """Asks the agent that runs the task to stop it; without one the task is stopped at once."""
        self("tasks.stop", task=self.task)

    def reset(self) -> None:
        self("tasks.reset", task=self.task, force=True)
        self.finals = 0

    def set_status(self, status: TaskStatus) -> None:
        """Straight in the store: also one that no call of the embedded server gives, as other servers do."""
        with self._core.store.write() as db:
            tasks.update(db, self.task, {"status": status.value})
        self._seen = None

    # ------------------------------------------------ what runs it

    def report(self, worker: WorkerId) -> None:
        """A worker says that it is at work on the task."""
        self("workers.status_report", worker=worker, task=self.task)

    def complete(self) -> None:
        """As the SDK does when a script closes its task and goes on."""
        self("tasks.completed", task=self.task, status_reason="by its script")

    # ------------------------------------------------ an agent of another kind

    def start_elsewhere(self) -> None:
        """One that pops the queue up to the task, and has neither claims nor run tokens."""
        while self.is_in_queue:
            self("queues.get_next_task", queue=self.queue)
        self("tasks.started", task=self.task)
        self.report_elsewhere()

    def report_elsewhere(self) -> None:
        self.report(_OTHER_AGENT)

    @property
    def runs_elsewhere(self) -> bool:
        """Whether no other worker reported since; a status that changed, as by an abort, hides the last one."""
        return self.status is TaskStatus.IN_PROGRESS and self.seen.last_worker in (_OTHER_AGENT, "")

    def end_elsewhere(self, status: TaskStatus) -> None:
        self(f"tasks.{status.value}", task=self.task, status_reason=f"{status.value} by another agent")


class _InProcessSession(ApiSession):
    """A call is carried out in this process, once, or meets one of the ``faults``."""

    def __init__(self, server: SimulatedServer, clock: ManualClock, faults: Faults) -> None:
        settings = ApiSettings(api_server="http://in-process.invalid", access_key="K", secret_key=Secret("S"))
        super().__init__(settings, clock=clock, budget=ONCE)
        self._simulated = server
        self._faults = faults

    def call(
        self,
        endpoint: str,
        payload: Mapping[str, Any] | None = None,
        *,
        budget: Budget | None = None,
        repeatable: bool = True,
        version: str = "",
    ) -> dict[str, Any]:
        data = self._ask(endpoint, payload or {})
        if endpoint == "tasks.get_all" and self._faults.omit_rows:
            self._faults.omit_rows = False
            return {**data, "tasks": []}
        return data

    def call_lines(self, endpoint: str, items: Iterable[Mapping[str, Any]], *, budget: Budget) -> dict[str, Any]:
        return self._ask(endpoint, b"\n".join(msgspec.json.encode(item) for item in items))

    def _ask(self, endpoint: str, fields: Mapping[str, Any] | bytes) -> dict[str, Any]:
        return self._faults.call(
            endpoint,
            lambda: _data(endpoint, self._simulated.ask(endpoint, fields)),
            lambda: ServerUnreachableError("no answer", uncertain=self._faults.after),
        )


def _data(endpoint: str, outcome: Outcome) -> dict[str, Any]:
    """
    Raises:
        ApiError: as a session that has the answer over HTTP.
    """
    if outcome.code == "200/0":
        return outcome.data
    code, _, subcode = outcome.code.partition("/")
    number = int(code), int(subcode)
    kind = NotFoundError if number in _MISSING else ApiError
    raise kind(endpoint, *number, outcome.message)
