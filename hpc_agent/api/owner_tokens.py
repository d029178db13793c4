"""Tokens of tasks' owners, for administrators (``--use-owner-token``).

See docs/internals/clearml-protocol.md#owner-tokens.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hpc_agent.api.session import ApiSession
from hpc_agent.errors import ApiError, InputError
from hpc_agent.redact import Secret, without_credentials

_MAY = frozenset({"admin", "root", "system"})
_NOBODY = "hpc-agent-asks-for-nobody"
_VALID_S = 30 * 24 * 3600
"""A job may wait for weeks; the servers' own default."""


class OwnerTokens:
    def __init__(self, session: ApiSession) -> None:
        self._session = session

    def check(self) -> None:
        """Whether this server gives us such tokens, asked before the first task needs one.

        A server that knows the header refuses a user whom it does not know; another one ignores it.

        Raises:
            InputError: it does not, and why.
        """
        where = without_credentials(self._session.settings.api_server)
        role = str(_identity(self._session.claims).get("role") or "unknown")
        if role not in _MAY:
            raise InputError(
                f"--use-owner-token needs an administrator's credentials, but {where} says that our role is {role}"
            )
        try:
            self._session.token_of(_NOBODY, _VALID_S)
        except ApiError:
            return
        raise InputError(
            f"--use-owner-token needs a server that gives administrators the tokens of task owners, which {where} does "
            "not; leave the flag out, or use hpc-agent's own server or an Enterprise one"
        )

    def token(self, user: str) -> Secret:
        """A token of this user.

        Raises:
            InputError: the server refuses, or gives another one's.
            ServerUnreachableError: no usable answer.
        """
        if not user:
            raise InputError("the task names no owner whose token it could run with")
        try:
            token, claims = self._session.token_of(user, _VALID_S)
        except ApiError as error:
            raise InputError(f"the server gives no token of the task's owner {user}: {error}") from error
        found = _identity(claims).get("user")
        if found != user:
            raise InputError(f"asked for a token of the task's owner {user}, the server gave one of user {found}")
        return token


def _identity(claims: Mapping[str, Any]) -> Mapping[str, Any]:
    found = claims.get("identity")
    return found if isinstance(found, dict) else {}
