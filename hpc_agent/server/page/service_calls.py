"""Calls from the page to the API's actions, and small reads that several pages share."""

from __future__ import annotations

import re
from collections.abc import Iterable
from contextlib import AbstractContextManager
from typing import Any

from hpc_agent.server.api_fault import ApiFault
from hpc_agent.server.authentication import AuthenticatedCaller
from hpc_agent.server.dispatch import Dispatcher
from hpc_agent.server.store.connection import StoreSession
from hpc_agent.wire.error_kinds import ErrorKind

Json = dict[str, Any]
_MOST_NAMES = 500
_NOT_FOUND = 404


class ServiceCalls:
    """``calls("tasks.get_by_id", task=…)`` answers the action's data, with the rights of one user."""

    def __init__(self, dispatcher: Dispatcher, caller: AuthenticatedCaller) -> None:
        self._dispatcher = dispatcher
        self._caller = caller

    def __call__(self, action: str, **fields: Any) -> Json:
        """
        Raises:
            ApiFault: as the API answers it.
        """
        return self._dispatcher.call(action, self._caller, fields)

    def read(self) -> AbstractContextManager[StoreSession]:
        return self._dispatcher.read()

    def listed(self, collection: str, **fields: Any) -> list[Json]:
        """The documents that ``<collection>.get_all`` answers."""
        found: list[Json] = self(f"{collection}.get_all", **fields)[collection]
        return found

    def names(self, collection: str, ids: Iterable[str | None]) -> dict[str, str]:
        """Names by id; ids that do not exist are missing."""
        wanted = sorted({id for id in ids if id})[:_MOST_NAMES]
        if not wanted:
            return {}
        found = self.listed(collection, id=wanted, only_fields=["name"], page=0, page_size=_MOST_NAMES)
        return {item["id"]: str(item.get("name", "")) for item in found}

    def one(self, collection: str, id: str, fields: Iterable[str] = ()) -> Json:
        """One document by its id.

        Raises:
            ApiFault: 404, with a sentence for the person at the browser.
        """
        found = self.listed(collection, id=[id], only_fields=[*fields], search_hidden=True)
        if not found:
            kind = collection.removesuffix("s")
            raise ApiFault(ErrorKind(_NOT_FOUND, 0, f"There is no such {kind}"), id=id[:64])
        return found[0]


def exactly(text: str) -> str:
    """The regular expression that matches this text where a filter takes an expression."""
    return re.sub(r"([^\w\s])", r"\\\1", text, flags=re.ASCII)
