"""Import of an offline session: a run that ClearML's SDK recorded without a server becomes a task on one.

Done without the SDK: its folder is a task object, event batches as the server takes them, and files. Only what the
SDK would upload as *output models* is left out, with a warning: the newest SDK cannot record any
(``OutputModel.update_weights`` fails in an offline run of 2.1.12).
"""

from __future__ import annotations

import json
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec

from hpc_agent.api.client import Client
from hpc_agent.domain.ids import TaskId
from hpc_agent.domain.status import TaskStatus
from hpc_agent.drafts.create import Created, undo_on_failure
from hpc_agent.errors import InputError
from hpc_agent.retry import ROUTINE
from hpc_agent.wire import offline_run as wire
from hpc_agent.wire.error_kinds import EVENTS_NOT_ADDED

_REASON = "completed"
_BATCH = 200


class OfflineRun(msgspec.Struct, frozen=True):
    """Recorded run. ``folder``: its files; ``data``: its task object."""

    folder: Path
    data: dict[str, Any]

    @property
    def id(self) -> str:
        return str(self.data.get("id") or "")

    @property
    def project(self) -> str:
        return str(self.data["project_name"])

    @property
    def warnings(self) -> tuple[str, ...]:
        models = len(self.data.get("offline_output_models") or ())
        return (f"{models} output models of the offline run are not imported",) if models else ()

    def batches(self) -> Iterator[list[dict[str, Any]]]:
        """All events in their files' order.

        Raises:
            InputError: a line is not a list of events.
        """
        for name in wire.EVENT_FILES:
            file = self.folder / name
            if not file.is_file():
                continue
            with file.open(encoding="utf-8") as lines:
                for number, line in enumerate(lines, 1):
                    if line.strip():
                        yield _events(line, name, number)


def _events(line: str, name: str, number: int) -> list[dict[str, Any]]:
    try:
        events = json.loads(line)
    except ValueError as error:
        raise InputError(f"{name} of the offline session, line {number}, is damaged: {error}") from error
    if not isinstance(events, list) or not all(isinstance(event, dict) for event in events):
        raise InputError(f"{name} of the offline session, line {number}, is not a list of events")
    return events


@contextmanager
def open_session(path: Path) -> Iterator[OfflineRun]:
    """Read an offline session: a zip file, or the folder itself. It is read to its end, so that damage shows here.

    Raises:
        InputError: it is not there, or not what the SDK leaves.
    """
    if path.is_dir():
        yield _read(path, path)
        return
    if not path.is_file():
        raise InputError(f"the offline session {path} does not exist")
    with tempfile.TemporaryDirectory(prefix="hpc-task-") as folder:
        try:
            with zipfile.ZipFile(path) as archive:
                # Names that would leave the folder are made harmless by extractall itself.
                archive.extractall(folder)
        except (zipfile.BadZipFile, OSError, EOFError) as error:
            raise InputError(f"the offline session {path} is not a readable zip file: {error}") from error
        yield _read(Path(folder), path)


def _read(folder: Path, source: Path) -> OfflineRun:
    try:
        data = json.loads((folder / wire.TASK_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{source} is not an offline session: its {wire.TASK_FILE} cannot be read") from error
    if not isinstance(data, dict) or not data.get("project_name"):
        raise InputError(f"{source} is not an offline session: its {wire.TASK_FILE} names no project")
    run = OfflineRun(folder, data)
    for _ in run.batches():
        pass
    return run


def import_offline(client: Client, run: OfflineRun) -> Created:
    """Create the task, upload its files, send its events, and end it as completed.

    Raises:
        DraftError: a step failed; the task was deleted again, or its page is given.
    """
    project = client.projects.find_or_create(run.project)
    fields = wire.new_task_fields(run.data, project)
    task = client.tasks.create(fields)
    page = client.task_page(task, project)
    with undo_on_failure(client, task, page):
        client.tasks.started(task, "offline session", "imported with hpc-task")
        upload = _Uploader(client, run, task)
        if changes := wire.artifact_fields(run.data, upload.moved):
            client.tasks.edit(task, changes)
        for batch in run.batches():
            moved = [wire.moved_event(event, task, upload.renamed, upload.moved) for event in batch]
            _send(client, moved)
        client.tasks.set_final_status(task, TaskStatus.COMPLETED, _REASON, "with hpc-task", budget=ROUTINE)
    return Created(task, str(fields["name"]), "", page)


class _Uploader:
    """Files of the run → files on the server, each uploaded once."""

    def __init__(self, client: Client, run: OfflineRun, task: TaskId) -> None:
        self._client = client
        self._run = run
        self._task = task
        self._prefix = f"{str(run.data.get('offline_folder') or '').rstrip('/')}/{wire.DATA}/"
        self._urls: dict[str, str] = {}

    def renamed(self, path: str) -> str:
        """``project/name.<offline id>/…`` → ``project/name.<task id>/…``."""
        return path.replace(f".{self._run.id}/", f".{self._task}/", 1)

    def moved(self, address: str) -> str:
        """The URL of a file of the run, after its upload; any other address stays as it is."""
        path = address.removeprefix(self._prefix)
        if path == address:
            return address
        if path not in self._urls:
            root = (self._run.folder / wire.DATA).resolve()
            file = (root / path).resolve()
            if not file.is_relative_to(root) or not file.is_file():
                return address
            self._urls[path] = self._client.files.upload(file, self.renamed(path))
        return self._urls[path]


def _send(client: Client, events: list[dict[str, Any]]) -> None:
    for start in range(0, len(events), _BATCH):
        part = events[start : start + _BATCH]
        if not client.events.add(part, budget=ROUTINE):
            raise EVENTS_NOT_ADDED.error("events.add_batch", f"none of {len(part)} events was stored")
