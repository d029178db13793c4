"""The embedded server without HTTP, under a clock of the test's own."""

from __future__ import annotations

import base64
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import msgspec
from manual_clock import ManualClock

from hpc_agent.redact import Secret
from hpc_agent.server.action import Transaction
from hpc_agent.server.api_fault import ApiFault
from hpc_agent.server.authentication import AuthenticatedCaller, Authenticator
from hpc_agent.server.dispatch import Dispatcher, refusal
from hpc_agent.server.requests import IncomingRequest
from hpc_agent.server.services import ENDPOINTS
from hpc_agent.server.services.auth import replace_own_key_pair, store_administrator
from hpc_agent.server.services.queues import ensure_default_queue
from hpc_agent.server.store.connection import DocumentStore
from hpc_agent.server.watchdog import sweep

ADMINISTRATOR = "the administrator's id"


@dataclass(frozen=True)
class Outcome:
    """``code``: ``200/0``, ``403/20``."""

    code: str
    message: str
    data: dict[str, Any]


class Caller:
    """Calls with one key pair; logs in at each call, unless it is asked to keep a token."""

    def __init__(self, server: ServerCore, access_key: str, secret_key: str) -> None:
        self._server = server
        self.access_key = access_key
        self.basic = "Basic " + base64.b64encode(f"{access_key}:{secret_key}".encode()).decode()

    def __call__(self, action: str, **fields: Any) -> dict[str, Any]:
        outcome = self.ask(action, fields)
        assert outcome.code == "200/0", outcome
        return outcome.data

    def ask(self, action: str, fields: Any = None) -> Outcome:
        login = self._server.ask("auth.login", {}, self.basic)
        return login if login.code != "200/0" else self._server.ask(action, fields, f"Bearer {login.data['token']}")

    def token(self, seconds: int | None = None) -> str:
        login = self._server.ask("auth.login", {"expiration_sec": seconds}, self.basic)
        assert login.code == "200/0", login
        return f"Bearer {login.data['token']}"


class ServerCore:
    """Called as its administrator."""

    def __init__(self, folder: Path, clock: ManualClock | None = None) -> None:
        self.clock = clock or ManualClock(datetime(2030, 1, 1, tzinfo=timezone.utc))
        self.store = DocumentStore(folder / "server.db")
        with self.store.write() as db:
            moment = Transaction(db, self.clock.now())
            store_administrator(moment, AuthenticatedCaller(ADMINISTRATOR, "administrator"))
            replace_own_key_pair(moment, ADMINISTRATOR, "OWN", Secret("own secret"))
            own = AuthenticatedCaller(ADMINISTRATOR, "administrator")
            ensure_default_queue(moment, {"user": own.user, "company": own.company})
        authenticator = Authenticator(self.store, Secret("k" * 32), self.clock)
        self._dispatcher = Dispatcher(self.store, authenticator, ENDPOINTS, self.clock)
        self.administrator = Caller(self, "OWN", "own secret")

    def __call__(self, action: str, **fields: Any) -> dict[str, Any]:
        return self.administrator(action, **fields)

    def ask(self, action: str, fields: Any, authorization: str, impersonate: str | None = None) -> Outcome:
        """``fields``: any JSON, or bytes for the body as it is."""
        body = fields if isinstance(fields, bytes) else msgspec.json.encode(fields or {})
        incoming = IncomingRequest(action, body=body)
        try:
            outgoing = self._dispatcher.answer(incoming, self._dispatcher.admit(action, authorization, impersonate))
        except ApiFault as fault:
            outgoing = refusal(incoming, fault)
        answer = msgspec.json.decode(outgoing.body)
        meta = answer["meta"]
        return Outcome(f"{meta['result_code']}/{meta['result_subcode']}", meta["result_msg"], answer["data"])

    def user(self, name: str, role: str = "user") -> Caller:
        """A new user with keys."""
        user = self("auth.create_user", name=name, role=role)["id"]
        keys = self("auth.create_credentials", user=user)["credentials"]
        return Caller(self, keys["access_key"], keys["secret_key"])

    def job(self, task: str) -> Caller:
        """The job of a task, with the task's credentials."""
        keys = self("auth.create_task_credentials", task=task)["credentials"]
        return Caller(self, keys["access_key"], keys["secret_key"])

    def close(self) -> None:
        self.store.close()

    def sweep(self, **later: float) -> list[str]:
        self.clock.advance(timedelta(**later).total_seconds())
        return sweep(self.store, self.clock.now())
