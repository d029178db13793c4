"""Sessions of browsers: a random cookie for a key pair that was typed once at the login.

Lax: a link in a mail opens the page without a new login, and no other site can send a form with the cookie. Each form
also carries a token that only pages of this server can contain.
"""

from __future__ import annotations

import base64
import hmac
import secrets
from dataclasses import dataclass
from datetime import timedelta
from hashlib import sha256

from hpc_agent.clock import Clock
from hpc_agent.server.action import iso
from hpc_agent.server.api_fault import ApiFault
from hpc_agent.server.authentication import AuthenticatedCaller, Authenticator
from hpc_agent.server.store import login_session_rows
from hpc_agent.server.store.connection import DocumentStore
from hpc_agent.server.store.login_session_rows import SessionRow
from hpc_agent.wire.error_kinds import INVALID_TOKEN

LIFETIME = timedelta(days=14)


@dataclass(frozen=True)
class Session:
    cookie: str
    caller: AuthenticatedCaller

    @property
    def form_token(self) -> str:
        """What forms of this session carry. The cookie cannot be computed from it."""
        return sha256(f"form {self.cookie}".encode()).hexdigest()

    def accepts(self, form_token: str) -> bool:
        return hmac.compare_digest(self.form_token, form_token)


class Sessions:
    def __init__(self, store: DocumentStore, authenticator: Authenticator, clock: Clock) -> None:
        self._store = store
        self._authenticator = authenticator
        self._clock = clock

    def open(self, access_key: str, secret_key: str) -> Session:
        """
        Raises:
            ApiFault: 401, the key pair does not exist or was revoked.
        """
        pair = base64.b64encode(f"{access_key}:{secret_key}".encode()).decode()
        caller = self._authenticator.by_key_pair_or_token(f"Basic {pair}")
        cookie = secrets.token_urlsafe(32)
        now = self._clock.now()
        with self._store.write() as db:
            login_session_rows.remove_expired(db, iso(now))
            login_session_rows.add(db, cookie, SessionRow(caller.access_key, caller.user, iso(now + LIFETIME)))
        return Session(cookie, caller)

    def find(self, cookie: str) -> Session:
        """The session with its user's rights of this moment.

        Raises:
            ApiFault: 401, there is no such session, it has ended, or its key pair was revoked.
        """
        with self._store.read() as db:
            row = login_session_rows.get(db, cookie)
        if row is None or row.expires <= iso(self._clock.now()):
            raise ApiFault(INVALID_TOKEN, "the session has ended; log in again")
        found = AuthenticatedCaller(row.user, "", access_key=row.access_key)
        return Session(cookie, self._authenticator.as_of_now(found))

    def end(self, cookie: str) -> None:
        with self._store.write() as db:
            login_session_rows.remove(db, cookie)
