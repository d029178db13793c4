"""Map of ClearML users to Linux users (``hpc.user_map``). Pure."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from hpc_agent.errors import UserMapError

DEFAULT = "default"
"""Key of the Linux user for all ClearML users that have no line of their own."""


class UserMap(msgspec.Struct, frozen=True):
    """``users``: id of the ClearML user → name of the Linux user."""

    users: Mapping[str, str]

    def linux_user(self, user: str) -> str:
        """The Linux user that runs the tasks of a ClearML user; ``user``: its id, empty for a task without one.

        Raises:
            UserMapError: the map has no line for the user, and no default.
        """
        found = (self.users.get(user) if user else None) or self.users.get(DEFAULT)
        if found:
            return found
        who = f"the ClearML user {user}, who owns the task," if user else "a task that has no ClearML user"
        raise UserMapError(
            f"hpc.user_map has no Linux user for {who} and no default: ask the administrator of this cluster for a "
            f'line "{user or DEFAULT}" = "<Linux user>" in it'
        )


class UserShare(msgspec.Struct, frozen=True):
    """The tasks that one daemon serves as a Linux user. ``only``: of this ClearML user alone; None: of all that are
    mapped to the Linux user."""

    linux_user: str
    only: str | None = None

    def has(self, users: UserMap, user: str) -> bool:
        """Whether the tasks of a ClearML user are among them."""
        if self.only is not None and user != self.only:
            return False
        try:
            return users.linux_user(user) == self.linux_user
        except UserMapError:
            return False

    @property
    def name(self) -> str:
        """For worker ids and files."""
        return self.linux_user if self.only is None else f"{self.linux_user}.{self.only}"
