"""File permissions: any client may store a new name; an existing file belongs to its uploader.

Clients put what belongs to a task into a folder whose name ends in its id (``project/name.<id>/artifacts/…``): what is
in it belongs to the task too, with any uploader.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

from hpc_agent.server.api_fault import ApiFault
from hpc_agent.server.authentication import AuthenticatedCaller
from hpc_agent.server.authorization import is_own
from hpc_agent.server.roles import OwnerKind
from hpc_agent.server.store import file_owners
from hpc_agent.server.store.connection import DocumentStore, StoreSession
from hpc_agent.server.store.documents import tasks
from hpc_agent.server.store.file_owners import Uploader
from hpc_agent.server.uploads import Uploads
from hpc_agent.wire.error_kinds import NO_PERMISSION


class FileAccess:
    def __init__(self, store: DocumentStore, uploads: Uploads) -> None:
        self._store = store
        self._uploads = uploads
        self._lock = threading.Lock()
        """Held from the look at who may to the change: two uploads of one new name are not both its first."""

    def of(self, identify: Callable[[], AuthenticatedCaller]) -> ClientAccess:
        """Permissions of one client; ``identify`` returns its present identity, or raises an ApiFault."""
        return ClientAccess(self, identify)

    def check_may_change(self, who: AuthenticatedCaller, name: str) -> None:
        """
        Raises:
            ApiFault: 403/20, the file exists and is another user's, or the caller's task has ended.
        """
        if who.task_ended:
            raise ApiFault(NO_PERMISSION, "the task that these credentials were made for has ended", task=who.task)
        if who.is_admin or not self._uploads.locate(name).exists():
            return
        with self._store.read() as db:
            by = file_owners.uploader(db, name)
            if by == Uploader(who.user, who.task) or (by is not None and not who.task and by.user == who.user):
                return
            if any(is_own(who, OwnerKind.TASK, task) for task in _tasks(db, name)):
                return
        raise ApiFault(
            NO_PERMISSION,
            "only the uploader of the file or an administrator may change it",
            path=name[:200],
        )

    @contextmanager
    def storing(self, who: AuthenticatedCaller, name: str) -> Iterator[None]:
        """Around the moment in which a complete file gets its name.

        Raises:
            ApiFault: 403/20 as above.
        """
        with self._lock:
            self.check_may_change(who, name)
            with self._store.write() as db:
                # Before it is there: a file without an uploader could be replaced by administrators only.
                file_owners.record(db, name, Uploader(who.user, who.task))
            yield

    def delete(self, who: AuthenticatedCaller, name: str) -> None:
        """
        Raises:
            ApiFault: 403/20 as above; 404, or 400/12 for a name that no file can have.
        """
        name = name.strip("/")
        with self._lock:
            self.check_may_change(who, name)
            self._uploads.delete(name)
            with self._store.write() as db:
                file_owners.forget(db, name)


class ClientAccess:
    """``FileAccess`` for one client, whose rights are looked up each time: a long upload may outlive them."""

    def __init__(self, access: FileAccess, identify: Callable[[], AuthenticatedCaller]) -> None:
        self._access = access
        self._identify = identify

    def check(self, name: str) -> None:
        self._access.check_may_change(self._identify(), name)

    def storing(self, name: str) -> AbstractContextManager[None]:
        return self._access.storing(self._identify(), name)


def _tasks(db: StoreSession, name: str) -> Iterator[dict[str, object]]:
    for part in name.split("/")[:-1]:
        if task := tasks.get(db, part.rpartition(".")[2], ("user", "made_by")):
            yield task
