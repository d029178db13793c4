"""Users, their key pairs, key pairs of single tasks, and tokens of other users (``users.*``, ``auth.*``).

Users and key pairs are managed on the embedded server only (docs/server.md#users); tokens of task owners are given by
servers that allow an administrator to act for a user (docs/internals/clearml-protocol.md#owner-tokens).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

import msgspec

from hpc_agent.api.answer import id_in, rows
from hpc_agent.api.session import ApiSession
from hpc_agent.domain.ids import TaskId
from hpc_agent.errors import ApiError, InputError
from hpc_agent.redact import Secret, without_credentials
from hpc_agent.wire.task_requests import PAGE_SIZE

_ADMINISTRATORS = frozenset({"admin", "root", "system"})
_UNKNOWN_USER = "hpc-agent-unknown-user"
_OWNER_TOKEN_S = 30 * 24 * 3600
"""Validity of an owner's token, the servers' own default: a job may wait for weeks."""


class Key(msgspec.Struct, frozen=True):
    """The public half of a key pair."""

    access_key: str
    label: str
    created: str


class KeyPair(msgspec.Struct, frozen=True):
    access_key: str
    secret_key: Secret
    token: Secret = Secret("")
    """Of a login with it; empty where the server gave none with the pair."""


class User(msgspec.Struct, frozen=True):
    id: str
    name: str
    role: str
    keys: tuple[Key, ...]


class UsersApi:
    """Users of the embedded server and their keys, for its administrators."""

    def __init__(self, session: ApiSession) -> None:
        self._session = session

    def all(self) -> list[User]:
        """All users in the order of their names, with their keys.

        Raises:
            ApiError: the caller is not an administrator, or the server does not support this.
        """
        found = self._session.call("users.get_all", {"order_by": ["name"], "only_fields": ["id", "name", "role"]})
        return [self._user(data) for data in found["users"]]

    def _user(self, data: Mapping[str, Any]) -> User:
        keys = self._session.call("auth.get_credentials", {"user": data["id"]})["credentials"]
        listed = (Key(key["access_key"], str(key.get("label") or ""), str(key.get("created") or "")) for key in keys)
        return User(data["id"], str(data.get("name") or ""), str(data.get("role") or ""), tuple(listed))

    def named(self, name: str) -> User | None:
        """The user of exactly this name or id.

        Raises:
            InputError: several have this name.
        """
        found = [user for user in self.all() if name in (user.name, user.id)]
        if len(found) > 1:
            ids = ", ".join(user.id for user in found)
            raise InputError(f'{len(found)} users are named "{name}"; give the id of one: {ids}')
        return found[0] if found else None

    def create(self, name: str, role: str) -> str:
        """Create a user; returns the id."""
        return str(self._session.call("auth.create_user", {"name": name, "role": role}, repeatable=False)["id"])

    def new_keys(self, user: str, label: str) -> KeyPair:
        answer = self._session.call("auth.create_credentials", {"user": user, "label": label}, repeatable=False)
        return _pair(answer)

    def revoke(self, user: str) -> int:
        """Revoke all keys of the user, and the credentials of the user's running jobs; returns how many."""
        return int(self._session.call("auth.revoke_credentials", {"user": user})["revoked"])

    def revoke_key(self, access_key: str) -> int:
        return int(self._session.call("auth.revoke_credentials", {"access_key": access_key})["revoked"])


class TaskCredentials:
    """Key pairs of single tasks, which the embedded server makes and which end with the task."""

    def __init__(self, session: ApiSession) -> None:
        self._session = session

    def offered(self) -> bool:
        """Whether this server makes them, by a claim of its tokens."""
        return self._session.claims.get("task_credentials") is True

    def create(self, tasks: Sequence[TaskId]) -> Mapping[TaskId, KeyPair]:
        """A new key pair for each task.

        Raises:
            InputError: the server refuses one: the task has ended, or is another user's.
            ServerUnreachableError: no usable answer.
        """
        found = self.create_possible(tasks) if len(tasks) > 1 else {}
        # What was refused is asked for once more, for the reason. A server of an older version makes one at a time.
        return {**found, **{task: self._create(task) for task in tasks if task not in found}}

    def create_possible(self, tasks: Sequence[TaskId]) -> dict[TaskId, KeyPair]:
        """A new key pair for each task for which the server makes one; none with a server of an older version.

        Raises:
            ServerUnreachableError: no usable answer.
        """
        found: dict[TaskId, KeyPair] = {}
        with suppress(ApiError):
            for start in range(0, len(tasks), PAGE_SIZE):
                query = {"ids": tasks[start : start + PAGE_SIZE]}
                # Repeatable: every pair ends with the task.
                answer = self._session.call("auth.create_task_credentials_many", query)
                found |= {TaskId(id_in(row)): _pair(row) for row in rows(answer, "succeeded")}
        return found

    def _create(self, task: TaskId) -> KeyPair:
        try:
            return _pair(self._session.call("auth.create_task_credentials", {"task": task}))
        except ApiError as error:
            raise InputError(f"the server gives no credentials for a job of task {task}: {error}") from error


def _pair(answer: Mapping[str, Any]) -> KeyPair:
    pair = answer["credentials"]
    return KeyPair(str(pair["access_key"]), Secret(str(pair["secret_key"])), Secret(str(answer.get("token") or "")))


class OwnerTokens:
    """Tokens of task owners, for administrators (``--use-owner-token``)."""

    def __init__(self, session: ApiSession) -> None:
        self._session = session

    def check(self) -> None:
        """Check that this server gives such tokens, before the first task needs one.

        A server that supports the header refuses an unknown user; other servers ignore the header.

        Raises:
            InputError: the server gives none, and why.
        """
        where = without_credentials(self._session.settings.api_server)
        role = str(_identity(self._session.claims).get("role") or "unknown")
        if role not in _ADMINISTRATORS:
            raise InputError(
                f"--use-owner-token needs an administrator's credentials; those in use have the role {role} at {where}"
            )
        try:
            self._session.token_of(_UNKNOWN_USER, _OWNER_TOKEN_S)
        except ApiError:
            return
        raise InputError(
            f"--use-owner-token needs a server that gives administrators the tokens of task owners, which {where} does "
            "not; leave the flag out, or use hpc-agent's own server or an Enterprise one"
        )

    def token(self, user: str) -> Secret:
        """A token of this user.

        Raises:
            InputError: the server refuses, or gives the token of another user.
            ServerUnreachableError: no usable answer.
        """
        if not user:
            raise InputError("the task has no owner whose token it could run with")
        try:
            token, claims = self._session.token_of(user, _OWNER_TOKEN_S)
        except ApiError as error:
            raise InputError(f"the server gives no token of the task's owner {user}: {error}") from error
        found = _identity(claims).get("user")
        if found != user:
            raise InputError(f"asked for a token of the task's owner {user}, the server gave one of user {found}")
        return token


def _identity(claims: Mapping[str, Any]) -> Mapping[str, Any]:
    found = claims.get("identity")
    return found if isinstance(found, dict) else {}
