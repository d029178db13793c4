"""``projects.*``: a task's project by name."""

from __future__ import annotations

import re
from collections.abc import Sequence

from hpc_agent.api.answer import id_in, rows
from hpc_agent.api.session import ApiSession
from hpc_agent.errors import ApiError
from hpc_agent.wire.error_kinds import NAME_TAKEN


class ProjectsApi:
    def __init__(self, session: ApiSession) -> None:
        self._session = session

    def find_or_create(self, name: str, *, system_tags: Sequence[str] = ()) -> str:
        """The id of the project with exactly this name (``a/b`` is a sub-project), made if it does not exist.

        ``system_tags`` are for a new one: ``hidden`` keeps it out of lists.
        """
        if found := self._named(name):
            return found
        project = {"name": name, "description": "", **({"system_tags": list(system_tags)} if system_tags else {})}
        try:
            return str(self._session.call("projects.create", project)["id"])
        except ApiError as error:
            # Another client has just made it, or our own first try, whose answer was lost.
            if not NAME_TAKEN.matches(error) or not (found := self._named(name)):
                raise
            return found

    def name(self, project: str) -> str:
        """Its name; empty where the server has none of this id."""
        query = {"id": [project], "only_fields": ["id", "name"], "search_hidden": True}
        found = rows(self._session.call("projects.get_all", query), "projects")
        return next((str(row.get("name") or "") for row in found if row.get("id") == project), "")

    def _named(self, name: str) -> str | None:
        query = {
            "name": f"^{re.escape(name)}$",
            "only_fields": ["id", "name"],
            "shallow_search": False,
            "search_hidden": True,
        }
        for project in rows(self._session.call("projects.get_all", query), "projects"):
            if project.get("name", name) == name:
                return id_in(project)
        return None
