"""``projects.*``: a task's project by name."""

from __future__ import annotations

import re
from collections.abc import Sequence

from hpc_agent.api.answer import id_in, rows
from hpc_agent.api.session import Session


class Projects:
    def __init__(self, session: Session) -> None:
        self._session = session

    def find_or_create(self, name: str, *, system_tags: Sequence[str] = ()) -> str:
        """The id of the project with exactly this name (``a/b`` is a sub-project), made if it does not exist.

        ``system_tags`` are for a new one: ``hidden`` keeps it out of lists.
        """
        query = {
            "name": f"^{re.escape(name)}$",
            "only_fields": ["id", "name"],
            "shallow_search": False,
            "search_hidden": True,
        }
        for project in rows(self._session.call("projects.get_all", query), "projects"):
            if project.get("name", name) == name:
                return id_in(project)
        project = {"name": name, "description": "", **({"system_tags": list(system_tags)} if system_tags else {})}
        return id_in(self._session.call("projects.create", project, repeatable=False))
