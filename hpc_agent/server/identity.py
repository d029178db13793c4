"""Who calls: key pairs and tokens (wire.md 1.3).

The key pair is that of the user who started the server, its administrator. Others may be known by name; nobody has keys
for them, but the administrator may have tokens of theirs (``--use-owner-token``)."""

from __future__ import annotations

import base64
import binascii
import hmac
import secrets
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import jwt
import msgspec

from hpc_agent.clock import Clock
from hpc_agent.redact import Secret
from hpc_agent.server.fault import Fault
from hpc_agent.wire.errors import (
    BAD_AUTH_TYPE,
    BAD_CREDENTIALS,
    INVALID_CREDENTIALS,
    INVALID_TOKEN,
    NO_CREDENTIALS,
)

API_VERSION = "2.31"
SERVER_VERSION = "2.0.0"
"""The reference server that we behave like; clients switch features by these two."""
DEFAULT_LIFETIME = timedelta(days=30)
LONGEST_LIFETIME = timedelta(days=365)
ADMIN = "admin"
_ALGORITHM = "HS256"


@dataclass(frozen=True)
class Identity:
    user: str
    user_name: str
    company: str = "d1bd92a3b039400cbafc60a7a5b1e52b"
    company_name: str = "hpc-agent"
    role: str = ADMIN

    @property
    def is_admin(self) -> bool:
        return self.role == ADMIN


@dataclass(frozen=True)
class Keys:
    """What the server knows of secrets; ``signing_key`` never leaves it."""

    access_key: str
    secret_key: Secret
    signing_key: Secret


class Authenticator:
    """Turns an ``Authorization`` header into an identity, and identities into tokens."""

    def __init__(self, keys: Keys, identity: Identity, clock: Clock) -> None:
        self._keys = keys
        self._identity = identity
        self._clock = clock

    def by_key_pair_or_token(self, header: str | None) -> Identity:
        """Basic with the key pair, or Bearer with a token of ours: to log in, and to read pages and files.

        Raises:
            Fault: 401 with the subcode that says what is wrong with the header.
        """
        scheme, value = _parted(header)
        return self._by_key_pair(value) if scheme == "basic" else self._by_token(scheme, value)

    def by_token(self, header: str | None) -> Identity:
        """Bearer only: what changes something. A browser sends a Basic header by itself wherever a hostile page leads
        it, a token it does not.

        Raises:
            Fault: 401 with the subcode that says what is wrong with the header.
        """
        return self._by_token(*_parted(header))

    def issue(self, identity: Identity, lifetime: timedelta) -> str:
        """A token that clients can read their session's terms from."""
        now = self._clock.now()
        claims: dict[str, Any] = {
            "iat": now,
            "exp": now + lifetime,
            "auth_type": "Bearer",
            "env": "hpc-agent",
            "api_version": API_VERSION,
            "server_version": SERVER_VERSION,
            "server_build": "hpc-agent",
            "feature_set": "basic",
            "session_id": secrets.token_hex(8),
            "identity": {
                "user": identity.user,
                "user_name": identity.user_name,
                "company": identity.company,
                "company_name": identity.company_name,
                "role": identity.role,
            },
        }
        return jwt.encode(claims, self._keys.signing_key.reveal(), _ALGORITHM)

    def _by_key_pair(self, encoded: str) -> Identity:
        try:
            access, colon, secret = base64.b64decode(encoded, validate=True).partition(b":")
        except (binascii.Error, ValueError):
            raise Fault(BAD_CREDENTIALS, "the Basic header is not base64") from None
        if not colon:
            raise Fault(BAD_CREDENTIALS, "expected access_key:secret_key")
        # Both are compared whatever the first says: the time taken tells nothing.
        good_access = hmac.compare_digest(access, self._keys.access_key.encode())
        good_secret = hmac.compare_digest(secret, self._keys.secret_key.reveal().encode())
        if not (good_access and good_secret):
            raise Fault(INVALID_CREDENTIALS, "use the access_key and secret_key of this server's conf file")
        return self._identity

    def _by_token(self, scheme: str, token: str) -> Identity:
        if scheme != "bearer":
            raise Fault(BAD_AUTH_TYPE, "send the token that auth.login answered as Bearer")
        try:
            claims = jwt.decode(
                token,
                self._keys.signing_key.reveal(),
                [_ALGORITHM],
                options={"require": ["exp"], "verify_exp": False, "verify_iat": False},
            )
            expires = float(claims["exp"])
            identity = msgspec.convert(claims["identity"], Identity)
        except (jwt.InvalidTokenError, msgspec.ValidationError, KeyError, TypeError, ValueError):
            raise Fault(INVALID_TOKEN, "it is not one of this server's; log in again") from None
        if expires <= self._clock.now().timestamp():
            raise Fault(INVALID_TOKEN, "it has expired; log in again")
        return identity


def _parted(header: str | None) -> tuple[str, str]:
    if not header:
        raise Fault(NO_CREDENTIALS, "send a token in the Authorization header")
    scheme, _, value = header.strip().partition(" ")
    return scheme.lower(), value.strip()


def lifetime(seconds: int | None) -> timedelta:
    """How long a token asked for with ``expiration_sec`` is valid."""
    if seconds is None or seconds <= 0:
        return DEFAULT_LIFETIME
    return timedelta(seconds=min(seconds, int(LONGEST_LIFETIME.total_seconds())))
