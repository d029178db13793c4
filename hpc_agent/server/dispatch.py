"""Dispatcher of API calls: authentication, the action in one transaction, the envelope.

See docs/internals/clearml-protocol.md#envelope.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass

import msgspec

from hpc_agent.clock import Clock
from hpc_agent.logs import EventLog
from hpc_agent.server import authorization
from hpc_agent.server.action import Access, Answer, Batch, Call, Endpoint
from hpc_agent.server.api_fault import ApiFault, invalid
from hpc_agent.server.authentication import API_VERSION, AuthenticatedCaller, Authenticator
from hpc_agent.server.requests import IncomingRequest, typed, validation_fault
from hpc_agent.server.store.connection import DocumentStore, ReadTooLongError, StoreSession
from hpc_agent.server.store.documents import FieldTooLargeError, new_id
from hpc_agent.wire.envelope import EndpointInfo, Envelope, Meta
from hpc_agent.wire.error_kinds import INTERNAL_ERROR, UNKNOWN_ACTION, ErrorKind

_PATH = re.compile(r"^/?(?:v(?P<version>\d+(?:\.\d+)?)/)?(?P<action>[A-Za-z_]+\.[A-Za-z_]+)/?$")

_NO_CALLER = AuthenticatedCaller("", "")

log = EventLog("server")


@dataclass(frozen=True)
class Admitted:
    """A call that is allowed: its endpoint and its caller."""

    endpoint: Endpoint
    identity: AuthenticatedCaller


@dataclass(frozen=True)
class Outgoing:
    status: int
    body: bytes


class Dispatcher:
    """Answers API calls. Thread-safe; runs in worker threads."""

    def __init__(
        self, store: DocumentStore, authenticator: Authenticator, endpoints: Mapping[str, Endpoint], clock: Clock
    ) -> None:
        self._store = store
        self._authenticator = authenticator
        self._endpoints = endpoints
        self._clock = clock

    def admit(self, action: str, authorization: str | None, impersonate: str | None = None) -> Admitted:
        """``impersonate``: the user in whose name an administrator calls.

        Raises:
            ApiFault: 404 unknown action, 401 wrong credentials, 400/6 the caller may not act for this user.
        """
        endpoint = self._endpoints.get(action)
        if endpoint is None:
            raise ApiFault(UNKNOWN_ACTION, action)
        if endpoint.public:
            return Admitted(endpoint, _NO_CALLER)
        check = self._authenticator.by_key_pair_or_token if endpoint.login else self._authenticator.by_token
        caller = check(authorization)
        if impersonate:
            caller = self._authenticator.in_the_name_of(caller, impersonate)
        return Admitted(endpoint, caller)

    def takes_batches(self, action: str) -> bool:
        """Whether the action is one that stores many events at once."""
        endpoint = self._endpoints.get(action)
        return endpoint is not None and endpoint.request is Batch

    def answer(self, incoming: IncomingRequest, admitted: Admitted) -> Outgoing:
        """Never raises: every error is answered in an envelope."""
        try:
            return _outgoing(incoming, self._checked(incoming, admitted))
        except ApiFault as fault:
            return refusal(incoming, fault)
        except Exception as error:  # noqa: BLE001 - the top of the loop: the client gets an envelope, the log the trace
            log.error("call.failed", trace=True, action=incoming.action)
            return refusal(
                incoming, ApiFault(INTERNAL_ERROR, f"{type(error).__name__} (the server's log has the trace)")
            )

    def call(self, action: str, caller: AuthenticatedCaller, fields: Mapping[str, object]) -> Answer:
        """One action for the web page, checked as a call over HTTP is.

        Raises:
            ApiFault: as the API answers it.
        """
        endpoint = self._endpoints.get(action)
        if endpoint is None:
            raise ApiFault(UNKNOWN_ACTION, action)
        return self._checked(IncomingRequest(action, body=msgspec.json.encode(fields)), Admitted(endpoint, caller))

    def read(self) -> AbstractContextManager[StoreSession]:
        """A reading transaction for the web page: what every user may see, and no action answers in this form."""
        return self._store.read()

    def _checked(self, incoming: IncomingRequest, admitted: Admitted) -> Answer:
        """
        Raises:
            ApiFault: for every error that the client can cause.
        """
        try:
            return self._act(incoming, admitted)
        except msgspec.ValidationError as error:
            raise validation_fault(error) from None
        except ReadTooLongError as error:
            narrower = "narrow it with more filters, page_size or only_fields"
            raise invalid(f"too much for one call, {error}; {narrower}") from error
        except FieldTooLargeError as error:
            raise invalid(str(error)) from None

    def _act(self, incoming: IncomingRequest, admitted: Admitted) -> Answer:
        endpoint = admitted.endpoint
        request = typed(incoming, endpoint)
        if endpoint.prepare:
            request = endpoint.prepare(request, incoming.worker, self._clock.now())
        with self._transaction(endpoint.access) as db:
            call = Call(db, self._clock.now(), admitted.identity, self._authenticator, incoming.ip, incoming.worker)
            authorization.check(call, endpoint, request)
            return endpoint.handler(request, call)

    def _transaction(self, access: Access) -> AbstractContextManager[StoreSession]:
        if access is Access.READ:
            return self._store.read()
        return self._store.write(durable=access is Access.WRITE)


def parse_path(path: str) -> tuple[str, str] | None:
    """(action, version) of ``/v2.5/tasks.get_by_id``; None for any other path."""
    match = _PATH.match(path)
    return None if match is None else (match["action"], match["version"] or "")


def refusal(incoming: IncomingRequest, fault: ApiFault) -> Outgoing:
    return _outgoing(incoming, {}, fault.kind, str(fault), fault.data)


def _outgoing(
    incoming: IncomingRequest,
    data: Answer,
    kind: ErrorKind | None = None,
    message: str = "OK",
    error_data: Answer | None = None,
) -> Outgoing:
    status = kind.code if kind else 200
    identifier = new_id()
    meta = Meta(
        id=identifier,
        trx=incoming.transaction or identifier,
        endpoint=EndpointInfo(incoming.action, incoming.version or API_VERSION, API_VERSION),
        result_code=status,
        result_subcode=kind.subcode if kind else 0,
        result_msg=message,
        error_data=error_data or {},
    )
    return Outgoing(status, msgspec.json.encode(Envelope(meta, data)))
