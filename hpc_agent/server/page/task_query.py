"""What a table of tasks shows, as the query string of its address; and the request that finds it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any
from urllib.parse import urlencode

from hpc_agent.server.api_fault import invalid
from hpc_agent.server.page.service_calls import exactly
from hpc_agent.server.page.task_columns import DEFAULT, TaskColumn, chosen_columns

PER_PAGE = 100
_LAST_PAGE = 10**7
_VIEWS = ("active", "archived", "hidden")
_ALWAYS = ("id", "name", "status", "project", "started", "completed", "last_update", "system_tags", "status_message")


@dataclass(frozen=True)
class TaskQuery:
    """``view``: active, archived or hidden tasks; ``order``: a column's key, with ``-`` for the largest first."""

    text: str = ""
    status: tuple[str, ...] = ()
    type: tuple[str, ...] = ()
    tag: tuple[str, ...] = ()
    user: tuple[str, ...] = ()
    view: str = "active"
    order: str = "-last_update"
    page: int = 0
    columns: tuple[str, ...] = DEFAULT

    @classmethod
    def parse(cls, query: Mapping[str, Sequence[str]], columns: Sequence[str] = ()) -> TaskQuery:
        """``columns``: those of the visit before, where the query names none.

        Raises:
            ApiFault: 400/12, the page is not a number.
        """
        asked: dict[str, Any] = {}
        for name in ("status", "type", "tag", "user"):
            asked[name] = tuple(value for value in query.get(name, ()) if value)
        for name in ("text", "view", "order"):
            if value := (query.get(name) or [""])[-1].strip():
                asked[name] = value
        page = (query.get("page") or ["0"])[-1]
        if not page.isdecimal() or len(page) > 9 or int(page) > _LAST_PAGE:
            raise invalid("page must be a number")
        if asked.get("view") not in _VIEWS:
            asked.pop("view", None)
        wanted = [key for key in query.get("columns", columns) if key]
        if wanted:
            asked["columns"] = tuple(column.key for column in chosen_columns(wanted))
        return cls(**asked, page=int(page))

    @property
    def is_filtered(self) -> bool:
        return bool(self.text or self.status or self.type or self.tag or self.user)

    def shown_columns(self) -> list[TaskColumn]:
        return chosen_columns(self.columns)

    def query_string(self, **changes: Any) -> str:
        """The address of this table with changes; without a page it begins at the first one."""
        other = replace(self, **{"page": 0, **changes})
        plain = TaskQuery()
        pairs = {
            field.name: getattr(other, field.name)
            for field in fields(TaskQuery)
            if getattr(other, field.name) != getattr(plain, field.name) and field.name != "columns"
        }
        return "?" + urlencode(pairs, doseq=True)

    def sorted_by(self, column: TaskColumn) -> str:
        """The address of the table sorted by a column, the other way round if it is that already."""
        down = self.order == column.key or (self.order != f"-{column.key}" and column.kind in ("moment", "number"))
        return self.query_string(order=f"-{column.key}" if down else column.key)

    def request(self, projects: Sequence[str]) -> dict[str, Any]:
        """Fields of ``tasks.get_all``: a page of tasks, and one more that shows whether another page follows.

        ``projects``: ids, none for all.
        """
        wanted: dict[str, Any] = {
            "only_fields": sorted({*_ALWAYS, *(column.field for column in self.shown_columns())}),
            "order_by": [self._order()],
            # In steps of the page's own size a task more would be skipped: pages are read by their offset.
            "page": self.page,
            "page_size": PER_PAGE,
        }
        if projects:
            wanted["project"] = list(projects)
        for field, values in (("status", self.status), ("type", self.type), ("user", self.user)):
            if values:
                wanted[field] = list(values)
        if self.tag:
            wanted["tags"] = ["__$and", *self.tag]
        if self.text:
            wanted["_any_"] = {"pattern": exactly(self.text), "fields": ["name", "id", "comment", "tags"]}
        return wanted | self._view()

    def _view(self) -> dict[str, Any]:
        if self.view == "archived":
            return {"system_tags": ["archived"], "search_hidden": True}
        if self.view == "hidden":
            return {"system_tags": ["hidden"], "search_hidden": True}
        return {"system_tags": ["-archived"]}

    def _order(self) -> str:
        key = self.order.removeprefix("-")
        field = "name" if key == "name" else next((c.order for c in chosen_columns([key])), "")
        return ("-" if self.order.startswith("-") else "") + field if field else "-last_update"
