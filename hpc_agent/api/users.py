"""``users.*`` and ``auth.*`` of the embedded server: its users and their keys, for its administrators."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from hpc_agent.api.session import ApiSession
from hpc_agent.errors import InputError
from hpc_agent.redact import Secret


@dataclass(frozen=True)
class Key:
    """The public half of a key pair."""

    access_key: str
    label: str
    created: str


@dataclass(frozen=True)
class KeyPair:
    access_key: str
    secret_key: Secret


@dataclass(frozen=True)
class User:
    id: str
    name: str
    role: str
    keys: tuple[Key, ...]


class UsersApi:
    def __init__(self, session: ApiSession) -> None:
        self._session = session

    def all(self) -> list[User]:
        """In the order of their names, with their keys.

        Raises:
            ApiError: we are no administrator, or the server does not do this.
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
        """A new user's id."""
        return str(self._session.call("auth.create_user", {"name": name, "role": role}, repeatable=False)["id"])

    def new_keys(self, user: str, label: str) -> KeyPair:
        answer = self._session.call("auth.create_credentials", {"user": user, "label": label}, repeatable=False)
        pair = answer["credentials"]
        return KeyPair(pair["access_key"], Secret(pair["secret_key"]))

    def revoke(self, user: str) -> int:
        """All keys of the user, and the credentials of his running jobs; returns how many."""
        return int(self._session.call("auth.revoke_credentials", {"user": user})["revoked"])

    def revoke_key(self, access_key: str) -> int:
        return int(self._session.call("auth.revoke_credentials", {"access_key": access_key})["revoked"])
