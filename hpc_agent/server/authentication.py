"""Authentication of callers by key pairs and tokens (docs/internals/clearml-protocol.md#login).

Every token names the key pair that it was got with, and is looked up with it at each call: it ends with its key, and
with its own time. A key pair belongs to a user; or to a task, whose job it lets in as the task's owner with the rights
of a task (``roles``). An administrator may also have tokens of other users (``--use-owner-token``).
"""

from __future__ import annotations

import base64
import binascii
import hmac
import secrets
from dataclasses import dataclass, replace
from datetime import datetime, timedelta, timezone
from functools import lru_cache
from typing import Any

import jwt
import msgspec

from hpc_agent.clock import Clock
from hpc_agent.domain.status import TaskStatus
from hpc_agent.redact import Secret
from hpc_agent.server.api_fault import ApiFault
from hpc_agent.server.store import key_store
from hpc_agent.server.store.connection import DocumentStore, StoreSession
from hpc_agent.server.store.documents import tasks, users
from hpc_agent.server.store.key_store import Credential, hash_of
from hpc_agent.struct_types import decodable
from hpc_agent.wire.error_kinds import (
    BAD_AUTH_TYPE,
    BAD_CREDENTIALS,
    IMPERSONATION_ERROR,
    INVALID_CREDENTIALS,
    INVALID_TOKEN,
    NO_CREDENTIALS,
)

API_VERSION = "2.31"
SERVER_VERSION = "2.0.0"
"""The reference server that we behave like; clients switch features by these two."""
LONGEST_LIFETIME = timedelta(days=30)
LINGER = timedelta(hours=1)
"""How long after its end a task's credential still reads and reports: the last of its console may be on its way, and
its job must see that it was ended."""
ADMIN = "admin"
_ALGORITHM = "HS256"
_REMEMBERED_TOKENS = 4096
_NO_HASH = hash_of("")


@dataclass(frozen=True)
class AuthenticatedCaller:
    """``delegated``: an administrator's key acts for another user. ``expires``: of the token in use."""

    user: str
    user_name: str
    company: str = "d1bd92a3b039400cbafc60a7a5b1e52b"
    company_name: str = "hpc-agent"
    role: str = ADMIN
    access_key: str = ""
    task: str = ""
    task_ended: bool = False
    delegated: bool = False
    expires: datetime | None = None

    @property
    def is_admin(self) -> bool:
        return self.role == ADMIN and not self.task


class _TokenIdentity(msgspec.Struct, frozen=True):
    user: str


class _Claims(msgspec.Struct, frozen=True):
    exp: float
    credential: str
    identity: _TokenIdentity


class Authenticator:
    """Turns an ``Authorization`` header into an identity, and identities into tokens."""

    def __init__(self, store: DocumentStore, signing_key: Secret, clock: Clock) -> None:
        """``signing_key`` never leaves the server."""
        self._store = store
        self._signing_key = signing_key
        self._clock = clock
        # Verifying takes 0.05 to 0.1 ms, of 1 ms for a small call. A good signature stays good; all else is looked up.
        self._verified_claims = lru_cache(_REMEMBERED_TOKENS)(self._claims)

    def by_key_pair_or_token(self, header: str | None) -> AuthenticatedCaller:
        """Basic with a key pair, or Bearer with a token of ours: to log in, and to read pages and files.

        Raises:
            ApiFault: 401 with the subcode for the header's defect.
        """
        scheme, value = _parted(header)
        return self._by_key_pair(value) if scheme == "basic" else self._by_token(scheme, value)

    def by_token(self, header: str | None) -> AuthenticatedCaller:
        """Bearer only: what changes something. A browser sends a Basic header by itself wherever a hostile page leads
        it, a token it does not.

        Raises:
            ApiFault: 401 with the subcode for the header's defect.
        """
        return self._by_token(*_parted(header))

    def as_of_now(self, who: AuthenticatedCaller) -> AuthenticatedCaller:
        """The same caller with the rights of this moment, where a request has taken long.

        Raises:
            ApiFault: 401, the key pair was revoked, or its task ended long ago.
        """
        with self._store.read() as db:
            return replace(self._identity(db, self._known(db, who.access_key), who.user), expires=who.expires)

    def issue(self, identity: AuthenticatedCaller, seconds: int | None) -> str:
        """A token that clients can read their session's terms from. It does not outlive the one that asked for it."""
        now = self._clock.now()
        expires = now + _lifetime(seconds)
        if identity.expires is not None:
            expires = min(expires, identity.expires)
        claims: dict[str, Any] = {
            "iat": now,
            "exp": expires,
            "auth_type": "Bearer",
            "env": "hpc-agent",
            "api_version": API_VERSION,
            "server_version": SERVER_VERSION,
            "server_build": "hpc-agent",
            "feature_set": "basic",
            "task_credentials": True,
            "session_id": secrets.token_hex(8),
            "credential": identity.access_key,
            "identity": {
                "user": identity.user,
                "user_name": identity.user_name,
                "company": identity.company,
                "company_name": identity.company_name,
                "role": identity.role,
            },
        }
        return jwt.encode(claims, self._signing_key.reveal(), _ALGORITHM)

    def issue_for(self, db: StoreSession, credential: Credential) -> str:
        """What a login with this key pair gives."""
        return self.issue(self._identity(db, credential, credential.user), None)

    def in_the_name_of(self, caller: AuthenticatedCaller, user: str) -> AuthenticatedCaller:
        """
        Raises:
            ApiFault: 400/6, the caller may not act for others, or the user does not exist.
        """
        if not caller.is_admin:
            raise ApiFault(
                IMPERSONATION_ERROR, "only an administrator may call in another user's name", role=caller.role
            )
        with self._store.read() as db:
            found = users.get(db, user)
        if found is None:
            raise ApiFault(IMPERSONATION_ERROR, "unknown user", id=user[:64])
        return replace(caller, user=user, user_name=found["name"], role=found["role"], delegated=user != caller.user)

    def _by_key_pair(self, encoded: str) -> AuthenticatedCaller:
        access, secret = _pair(encoded)
        with self._store.read() as db:
            credential = key_store.get(db, access)
            # Compared in any case: the time does not show which half was wrong.
            good = hmac.compare_digest(credential.secret_hash if credential else _NO_HASH, hash_of(secret))
            if credential is None or not good:
                raise ApiFault(INVALID_CREDENTIALS, "the key pair does not exist or was revoked")
            return self._identity(db, credential, credential.user)

    def _by_token(self, scheme: str, token: str) -> AuthenticatedCaller:
        if scheme != "bearer":
            raise ApiFault(BAD_AUTH_TYPE, "send the token that auth.login answered as Bearer")
        claims = self._verified_claims(token)
        expires = datetime.fromtimestamp(claims.exp, timezone.utc)
        if expires <= self._clock.now():
            raise ApiFault(INVALID_TOKEN, "it has expired; log in again")
        with self._store.read() as db:
            credential = self._known(db, claims.credential)
            return replace(self._identity(db, credential, claims.identity.user), expires=expires)

    @staticmethod
    def _known(db: StoreSession, access_key: str) -> Credential:
        credential = key_store.get(db, access_key)
        if credential is None:
            raise ApiFault(INVALID_TOKEN, "the key pair that it was got with was revoked")
        return credential

    def _claims(self, token: str) -> _Claims:
        try:
            claims = jwt.decode(
                token,
                self._signing_key.reveal(),
                [_ALGORITHM],
                options={"require": ["exp"], "verify_exp": False, "verify_iat": False},
            )
            found = msgspec.convert(claims, decodable(_Claims))
            datetime.fromtimestamp(found.exp, timezone.utc)
        except (jwt.InvalidTokenError, msgspec.ValidationError, TypeError, ValueError, OverflowError):
            raise ApiFault(INVALID_TOKEN, "it is not one of this server's; log in again") from None
        return found

    def _identity(self, db: StoreSession, credential: Credential, user: str) -> AuthenticatedCaller:
        """Who that is today: names and roles may have changed since the token was given out."""
        found = users.get(db, user)
        owner = found if user == credential.user else users.get(db, credential.user)
        if found is None or owner is None or (user != credential.user and owner["role"] != ADMIN):
            raise ApiFault(INVALID_TOKEN, "its user is not one of this server's any more")
        return AuthenticatedCaller(
            user=user,
            user_name=found["name"],
            role=found["role"],
            access_key=credential.access_key,
            task=credential.task,
            task_ended=bool(credential.task) and self._ended(db, credential),
            delegated=user != credential.user,
        )

    def _ended(self, db: StoreSession, credential: Credential) -> bool:
        """
        Raises:
            ApiFault: 401, its task ended, or was deleted, some time ago.
        """
        found = tasks.get(db, credential.task, ("status", "status_changed"))
        if found is not None and not TaskStatus(found["status"]).is_final:
            return False
        # The job of a deleted task must still be able to read that it is gone.
        since = found["status_changed"] if found is not None else credential.created
        if self._clock.now() - datetime.fromisoformat(since) > LINGER:
            ended = "the task that these credentials were made for has ended"
            raise ApiFault(INVALID_CREDENTIALS, ended, task=credential.task)
        return True


def _pair(encoded: str) -> tuple[str, str]:
    try:
        access, colon, secret = base64.b64decode(encoded, validate=True).decode().partition(":")
    except (binascii.Error, ValueError):
        raise ApiFault(BAD_CREDENTIALS, "the Basic header is not base64") from None
    if not colon:
        raise ApiFault(BAD_CREDENTIALS, "expected access_key:secret_key")
    return access, secret


def _parted(header: str | None) -> tuple[str, str]:
    if not header:
        raise ApiFault(NO_CREDENTIALS, "send a token in the Authorization header")
    scheme, _, value = header.strip().partition(" ")
    return scheme.lower(), value.strip()


def _lifetime(seconds: int | None) -> timedelta:
    """How long a token asked for with ``expiration_sec`` is valid."""
    longest = int(LONGEST_LIFETIME.total_seconds())
    return timedelta(seconds=longest if seconds is None or seconds <= 0 else min(seconds, longest))
