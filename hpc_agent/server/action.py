"""Declaration of an API action, and what it receives."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import Enum
from typing import Annotated, Any, TypeVar, overload

import msgspec

from hpc_agent.server.authentication import AuthenticatedCaller, Authenticator
from hpc_agent.server.store.connection import StoreSession

Answer = dict[str, Any]
R = TypeVar("R")
P = TypeVar("P")

Json = dict[str, Any]
"""An object of the client's own making, kept as it is."""
Int64 = Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)]
"""What SQLite can hold."""
Name = Annotated[str, msgspec.Meta(min_length=1)]
Ids = Annotated[list[Annotated[str, msgspec.Meta(max_length=256)]], msgspec.Meta(max_length=10_000)]
"""Things that one call is about; each costs a look-up or more."""


def unique(ids: list[str]) -> list[str]:
    """Without duplicates, in their order: a task named 10,000 times is written once."""
    return list(dict.fromkeys(ids))


class RequestBody(msgspec.Struct, frozen=True, kw_only=True):
    """Base of all requests. Unknown fields are ignored, null ones are removed before.

    See docs/internals/clearml-protocol.md#method-and-body.
    """


Batch = list[bytes]
"""A request that is a list of JSON lines: read by the endpoint's ``prepare``."""


class Access(Enum):
    READ = "read"
    WRITE = "write"
    """Changes state; on disk before it is answered."""
    REPORT = "report"
    """Heartbeats and events; see store.connection."""


@dataclass(frozen=True)
class Transaction:
    """An open transaction and its time."""

    db: StoreSession
    now: datetime

    @property
    def time(self) -> str:
        return iso(self.now)


@dataclass(frozen=True)
class Call(Transaction):
    """One call in its transaction."""

    identity: AuthenticatedCaller
    authenticator: Authenticator
    ip: str = ""
    worker: str = ""
    """``X-ClearML-Worker`` of the sender."""

    @property
    def owner(self) -> Json:
        """Owner fields of a new document."""
        who = self.identity
        return {"user": who.user, "company": who.company, "made_by": who.task or None}


@dataclass(frozen=True)
class Endpoint:
    """``request`` is a msgspec type: a ``RequestBody``, ``Json`` for free-form filters, or ``Batch``.

    ``login``: the key pair itself is accepted, not only a token. ``public``: no credentials are asked for.
    ``prepare`` makes of the request, the worker that sent it and the time what the handler gets, before the transaction
    begins.
    """

    name: str
    request: Any
    handler: Callable[[Any, Call], Answer]
    access: Access
    login: bool = False
    public: bool = False
    prepare: Callable[[Any, str, datetime], Any] | None = None


class Service:
    """The actions of one service, or a part of them; ``services/__init__.py`` lists all."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.endpoints: dict[str, Endpoint] = {}

    @overload
    def action(
        self, request: type[R], access: Access, *, login: bool = False, public: bool = False
    ) -> Callable[[Callable[[R, Call], Answer]], Callable[[R, Call], Answer]]: ...

    @overload
    def action(
        self, request: type[R], access: Access, *, prepare: Callable[[R, str, datetime], P]
    ) -> Callable[[Callable[[P, Call], Answer]], Callable[[P, Call], Answer]]: ...

    def action(
        self,
        request: Any,
        access: Access,
        *,
        login: bool = False,
        public: bool = False,
        prepare: Callable[[Any, str, datetime], Any] | None = None,
    ) -> Callable[[Callable[[Any, Call], Answer]], Callable[[Any, Call], Answer]]:
        """Declare a function as ``<service>.<its name>``.

        ``access``: with ``READ`` the database refuses every change. The rest: see ``Endpoint``.
        """

        def declare(handler: Callable[[Any, Call], Answer]) -> Callable[[Any, Call], Answer]:
            name = f"{self.name}.{handler.__name__}"
            self.endpoints[name] = Endpoint(name, request, handler, access, login, public, prepare)
            return handler

        return declare


def iso(moment: datetime) -> str:
    """Fixed width, so that it sorts as text."""
    return moment.isoformat(timespec="microseconds")


def given(request: msgspec.Struct, names: Mapping[str, str] | tuple[str, ...]) -> dict[str, Any]:
    """The named fields that the client sent, under the names they are stored by."""
    pairs = names.items() if isinstance(names, Mapping) else ((name, name) for name in names)
    values = ((stored, getattr(request, sent)) for sent, stored in pairs)
    return {stored: value for stored, value in values if value is not None}
