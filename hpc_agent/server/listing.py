"""``get_all`` of every service: filters, order, pages and projections, from a free-form request.

See docs/internals/clearml-protocol.md#lists.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from hpc_agent.server import filters
from hpc_agent.server.action import Json, RequestBody
from hpc_agent.server.api_fault import ApiFault, invalid
from hpc_agent.server.filters import field_of
from hpc_agent.server.store import query as q
from hpc_agent.server.store.connection import StoreSession
from hpc_agent.server.store.documents import Collection, Document, projects
from hpc_agent.server.store.pattern import escape
from hpc_agent.server.store.query import Condition, Query
from hpc_agent.server.store.schema import TableSchema
from hpc_agent.struct_types import decodable
from hpc_agent.wire.error_kinds import UNKNOWN_FIELDS

PAGE_SIZE = 500
"""Default and largest page, as on the reference server."""
HIDDEN = "hidden"
_MOST_FIELDS = 1000
_PARAMETER = re.compile(r"-?hyperparams\.[^.]+\.[^.]+")
"""A whole parameter, of which lists are ordered by the value."""
_LONGEST_REFRESH = 10_000
"""Documents that are given once more when a list is read again up to where it was."""
_EXTRA_OPTIONS = frozenset({"allow_public", "projection", "method"})
"""Fields that change nothing here; the SDK sends ``method`` with every request."""


class _Listing(RequestBody, frozen=True):
    """The fields of a ``get_all`` that are not filters."""

    only_fields: list[str] | str = []
    order_by: list[str] | str = []
    page: int | None = None
    page_size: int | None = None
    size: int | None = None
    scroll_id: str | None = None
    refresh_scroll: bool = False
    search_text: str | None = None
    search_hidden: bool = False
    include_subprojects: bool = False


OPTIONS = frozenset(_Listing.__struct_fields__) | _EXTRA_OPTIONS
"""Fields of a ``get_all`` that are not filters, whatever is listed."""


def only_fields(request: Json) -> list[str]:
    """The fields that a ``get_all`` asks for; none means all."""
    return names_of(msgspec.convert(request, decodable(_Listing), strict=False).only_fields)


def names_of(only_fields: list[str] | str) -> list[str]:
    """
    Raises:
        ApiFault: 400/12, there are too many of them.
    """
    return filters.names_of(only_fields, "only_fields", _MOST_FIELDS)


def known_names(table: TableSchema, only_fields: list[str] | str, also: frozenset[str] = frozenset()) -> list[str]:
    """``only_fields``, checked; ``also`` are fields of the answer that are not columns.

    Raises:
        ApiFault: 400/14, the objects of this kind have no such field.
    """
    names = [name for name in names_of(only_fields) if name]
    for name in names:
        top = name.removeprefix("-").partition(".")[0]
        if top in table.hidden or (top not in table.fields and top not in table.unused and top not in also):
            raise ApiFault(UNKNOWN_FIELDS, field=name[:100])
    return names


def find(
    db: StoreSession,
    collection: Collection,
    request: Json,
    *,
    extra: Iterable[Condition] = (),
    hidden: str = HIDDEN,
    options: frozenset[str] = frozenset(),
) -> tuple[list[Document], dict[str, Any]]:
    """The documents a ``get_all`` asks for, each with the fields it asks for, and the paging fields of the answer.

    ``hidden`` is the system tag of documents that only ``search_hidden`` or a request by id shows; ``options`` are
    fields of the request that the caller reads.

    Raises:
        ApiFault: 400/12, an invalid filter or page number; 400/14, an unknown field to show.
    """
    listing = msgspec.convert(request, decodable(_Listing), strict=False)
    only = known_names(collection.table, listing.only_fields)
    offset, limit, paging = _window(listing)
    query = Query(
        (*extra, *matching(db, collection, request, hidden=hidden, options=options)),
        order_by=tuple(_ordering(collection.table, listing)),
        fields=tuple(name.partition(".")[0] for name in only if not name.startswith("-")),
        limit=limit,
        offset=offset,
    )
    documents = collection.find(db, query)
    if "scroll_id" in paging:
        paging["scroll_id"] = str(offset + len(documents))
    return [project(document, only) for document in documents], paging


def matching(
    db: StoreSession,
    collection: Collection,
    request: Json,
    *,
    hidden: str = HIDDEN,
    options: frozenset[str] = frozenset(),
) -> list[Condition]:
    """The conditions that the documents of a ``get_all`` meet, whatever its page."""
    listing = msgspec.convert(request, decodable(_Listing), strict=False)
    if listing.include_subprojects and request.get("project"):
        request = {**request, "project": with_subprojects(db, request["project"])}
    found = list(filters.conditions(collection.table, request, OPTIONS | options))
    if listing.search_text:
        text = escape(listing.search_text)
        found.append(
            q.any_of(filters.match(collection.table, name, text) for name in ("id", *sorted(collection.table.patterns)))
        )
    if not listing.search_hidden and not request.get("id"):
        found.append(q.negate(q.holds(q.field(collection.table, "system_tags"), hidden)))
    return found


def with_subprojects(db: StoreSession, wanted: Any) -> list[Any]:
    """The ids, and those of all projects inside them."""
    ids = wanted if isinstance(wanted, list) else [wanted]
    inside = q.holds_any(q.field(projects.table, "path"), [str(id) for id in ids])
    found = projects.find(db, Query((inside,), fields=("id",)))
    return [*ids, *(project["id"] for project in found if project["id"] not in ids)]


def project(document: Document, only: Iterable[str]) -> Document:
    """``document`` with the named fields (dotted for parts of them) and its id; all of it when none are named."""
    names = list(only)
    dropped = [name[1:] for name in names if name.startswith("-")]
    kept = [name for name in names if not name.startswith("-")]
    result: Document = document if not kept else {"id": document["id"]}
    for name in kept:
        # A dot inside a name is written %2E, as in filters.
        _copy(document, result, [part.replace("%2E", ".").replace("%24", "$") for part in name.split(".")])
    return {name: value for name, value in result.items() if name not in dropped}


def _copy(source: Mapping[str, Any], target: Document, path: list[str]) -> None:
    head, rest = path[0], path[1:]
    if head not in source:
        return
    if not rest:
        target[head] = source[head]
    elif isinstance(source[head], Mapping):
        inner = target.setdefault(head, {})
        if inner is not source[head]:
            _copy(source[head], inner, rest)
    elif isinstance(source[head], list):
        # ``models.input.model``: the part of every element.
        parts = target[head] = []
        for item in source[head]:
            if isinstance(item, Mapping):
                part: Document = {}
                _copy(item, part, rest)
                parts.append(part)


def _window(listing: _Listing) -> tuple[int, int, dict[str, Any]]:
    """Offset, limit, and the scroll id's place in the answer."""
    if listing.size is not None:
        if listing.size < 1:
            raise invalid("size must be at least 1")
        start = listing.scroll_id or "0"
        if not start.isdecimal() or len(start) > 18:
            raise invalid("scroll_id is not one that this server gave out", scroll_id=start)
        reached = int(start)
        if listing.refresh_scroll:
            return 0, min(max(listing.size, reached), _LONGEST_REFRESH), {"scroll_id": start}
        return reached, min(listing.size, PAGE_SIZE), {"scroll_id": start}
    page, size = listing.page or 0, PAGE_SIZE if listing.page_size is None else listing.page_size
    if not 0 <= page < 2**40:
        raise invalid("page must be at least 0", page=page)
    if size < 1:
        raise invalid("page_size must be at least 1", page_size=size)
    size = min(size, PAGE_SIZE)
    return page * size, size, {}


def _ordering(table: TableSchema, listing: _Listing) -> Iterable[str]:
    for name in filters.names_of(listing.order_by, "order_by"):
        if name in ("@text_score", "-@text_score"):
            continue
        if _PARAMETER.fullmatch(name):
            name = f"{name}.value"
        field_of(table, name.removeprefix("-"))
        yield name
