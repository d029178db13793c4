"""ClearML server in memory: queues, their entries and the tasks that run, and how often and by whom it was asked."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from hpc_agent.api.client import Client
from hpc_agent.api.session import ApiSession
from hpc_agent.clock import Clock
from hpc_agent.config.clearml_settings import ApiSettings
from hpc_agent.domain.ids import QueueId, TaskId, WorkerId
from hpc_agent.redact import Secret
from hpc_agent.retry import Budget
from hpc_agent.wire.task_state import RUN_TOKEN

_SCRIPT = {"entry_point": "train.py", "working_dir": ".", "diff": "print('an epoch')\n"}


@dataclass
class Traffic:
    """What arrived: ``requests`` by program and endpoint, and the tasks and queue entries that these asked for."""

    requests: Counter[tuple[str, str]] = field(default_factory=Counter)
    states: int = 0
    """Tasks in answers of ``tasks.get_all``."""
    entries: int = 0
    """Queue entries in answers."""
    bytes: Counter[str] = field(default_factory=Counter)
    """Of answers with queues, by program."""


class CountingServer:
    """Server with no HTTP in front: its clients' calls end here."""

    def __init__(self) -> None:
        self.traffic = Traffic()
        self._queues: dict[QueueId, dict[TaskId, str]] = {}
        self._texts: dict[QueueId, str] = {}
        self._tokens: dict[TaskId, tuple[str, WorkerId]] = {}
        """Of tasks that run."""
        self._ended: set[TaskId] = set()

    def add_queue(self, queue: QueueId, entries: Mapping[TaskId, str]) -> None:
        """``entries``: tasks and when they were added, in their order."""
        self._queues[queue] = dict(entries)

    def start(self, task: TaskId, queue: QueueId, token: str, worker: WorkerId) -> None:
        """A job has claimed the task."""
        if self._queues[queue].pop(task, None) is not None:
            self._texts.pop(queue, None)
        self._tokens[task] = token, worker

    def end(self, task: TaskId) -> None:
        del self._tokens[task]
        self._ended.add(task)

    def count(self, program: str, requests: Mapping[str, int]) -> None:
        """Requests by endpoint, whatever they are about."""
        self.traffic.requests.update({(program, endpoint): number for endpoint, number in requests.items()})

    def answer(self, program: str, endpoint: str, payload: Mapping[str, Any]) -> dict[str, Any]:
        traffic = self.traffic
        traffic.requests[program, endpoint] += 1
        if endpoint == "queues.get_all":
            texts = [self._text(QueueId(queue)) for queue in payload["id"]]
            traffic.entries += sum(len(self._queues[QueueId(queue)]) for queue in payload["id"])
            traffic.bytes[program] += sum(map(len, texts))
            return {"queues": [json.loads(text) for text in texts]}
        if endpoint == "tasks.get_all":
            traffic.states += len(payload["id"])
            return {"tasks": [self._state(TaskId(task)) for task in payload["id"]]}
        if endpoint == "tasks.get_by_id":
            return {"task": self._state(TaskId(payload["task"]))}
        return {}

    def _text(self, queue: QueueId) -> str:
        if queue not in self._texts:
            entries = [{"task": task, "added": added} for task, added in self._queues[queue].items()]
            self._texts[queue] = json.dumps({"id": queue, "name": queue, "entries": entries})
        return self._texts[queue]

    def _state(self, task: TaskId) -> dict[str, Any]:
        known = {"id": task, "name": "sweep", "type": "training", "script": _SCRIPT}
        if task not in self._tokens:
            return {**known, "status": "completed" if task in self._ended else "queued"}
        token, worker = self._tokens[task]
        return {**known, "status": "in_progress", "last_worker": worker, "runtime": {RUN_TOKEN: token}}


class _Session(ApiSession):
    def __init__(self, server: CountingServer, program: str) -> None:
        keys = ApiSettings(api_server="http://memory.invalid", access_key="K", secret_key=Secret("S"))
        super().__init__(keys)
        self._server = server
        self._program = program

    def call(
        self,
        endpoint: str,
        payload: Mapping[str, Any] | None = None,
        *,
        budget: Budget | None = None,
        repeatable: bool = True,
    ) -> dict[str, Any]:
        return self._server.answer(self._program, endpoint, payload or {})

    def call_lines(self, endpoint: str, items: Iterable[Mapping[str, Any]], *, budget: Budget) -> dict[str, Any]:
        self._server.answer(self._program, endpoint, {})
        return {"added": sum(1 for _ in items)}


class CountedClient(Client):
    """Client of one kind of ``program``: the services that a daemon's pass and a running task call."""

    def __init__(self, server: CountingServer, program: str, clock: Clock) -> None:
        self._use(_Session(server, program), clock)
