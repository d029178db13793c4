"""``get_all`` of every service: filters, order, pages and projections, from a free-form request.

See docs/internals/clearml-protocol.md#lists.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from datetime import datetime, timezone
from typing import Any

import msgspec

from hpc_agent.server.action import Json, RequestBody, iso
from hpc_agent.server.api_fault import invalid
from hpc_agent.server.store import query as q
from hpc_agent.server.store.connection import StoreSession
from hpc_agent.server.store.documents import Collection, Document
from hpc_agent.server.store.pattern import PatternError, compiled, escape
from hpc_agent.server.store.query import Condition, Query, UnknownFieldError
from hpc_agent.server.store.schema import ColumnKind, TableSchema
from hpc_agent.struct_types import decodable

PAGE_SIZE = 500
"""Default and largest page, as on the reference server."""
HIDDEN = "hidden"
LONGEST_LIST = 50_000
"""Values in one filter."""
_MOST_FIELDS = 1000
_MOST_TERMS = 100
"""Filters, fields to search and fields to sort by: each is a part of one SQL expression, whose size is limited."""
_COMPARISON = re.compile(r"^(>=|<=|>|<)?(.*)$", re.DOTALL)

Strings = list[str | None] | str


class _Pattern(RequestBody, frozen=True):
    fields: list[str]
    pattern: str


class _Listing(RequestBody, frozen=True):
    """The fields of a ``get_all`` that are not filters."""

    only_fields: list[str] | str = []
    order_by: list[str] | str = []
    page: int | None = None
    page_size: int | None = None
    size: int | None = None
    scroll_id: str | None = None
    search_text: str | None = None
    search_hidden: bool = False
    all_: _Pattern | None = msgspec.field(default=None, name="_all_")
    any_: _Pattern | None = msgspec.field(default=None, name="_any_")


def only_fields(request: Json) -> list[str]:
    """The fields that a ``get_all`` asks for; none means all."""
    return names_of(msgspec.convert(request, decodable(_Listing), strict=False).only_fields)


def names_of(only_fields: list[str] | str) -> list[str]:
    """
    Raises:
        ApiFault: 400/12, there are too many of them.
    """
    return _names(only_fields, "only_fields", _MOST_FIELDS)


def find(
    db: StoreSession, collection: Collection, request: Json, *, extra: Iterable[Condition] = (), hidden: str = HIDDEN
) -> tuple[list[Document], dict[str, Any]]:
    """The documents a ``get_all`` asks for, each with the fields it asks for, and the paging fields of the answer.

    ``hidden`` is the system tag of documents that only ``search_hidden`` or a request by id shows.

    Raises:
        ApiFault: 400/12, an invalid filter, field name or page number.
    """
    listing = msgspec.convert(request, decodable(_Listing), strict=False)
    only = names_of(listing.only_fields)
    offset, limit, paging = _window(listing)
    conditions = [*extra, *_filters(collection.table, request), *_searches(collection.table, listing)]
    if not listing.search_hidden and not request.get("id"):
        conditions.append(q.negate(q.holds(q.field(collection.table, "system_tags"), hidden)))
    query = Query(
        tuple(conditions),
        order_by=tuple(_ordering(collection.table, listing)),
        fields=tuple(name.partition(".")[0] for name in only if not name.startswith("-")),
        limit=limit,
        offset=offset,
    )
    documents = collection.find(db, query)
    if limit is not None and "scroll_id" in paging:
        paging["scroll_id"] = str(offset + len(documents))
    return [project(document, only) for document in documents], paging


def project(document: Document, only: Iterable[str]) -> Document:
    """``document`` with the named fields (dotted for parts of them) and its id; all of it when none are named."""
    names = list(only)
    dropped = [name[1:] for name in names if name.startswith("-")]
    kept = [name for name in names if not name.startswith("-")]
    result: Document = document if not kept else {"id": document["id"]}
    for name in kept:
        _copy(document, result, name.split("."))
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


def _names(value: list[str] | str, what: str, most: int = _MOST_TERMS) -> list[str]:
    names = [value] if isinstance(value, str) else value
    if len(names) > most:
        raise invalid(f"{what} may have {most} names, this one has {len(names)}")
    return names


def _window(listing: _Listing) -> tuple[int, int, dict[str, Any]]:
    """Offset, limit, and the scroll id's place in the answer."""
    if listing.size is not None:
        if listing.size < 1:
            raise invalid("size must be at least 1")
        start = listing.scroll_id or "0"
        if not start.isdecimal() or len(start) > 18:
            raise invalid("scroll_id is not one that this server gave out", scroll_id=start)
        return int(start), min(listing.size, PAGE_SIZE), {"scroll_id": start}
    page, size = listing.page or 0, PAGE_SIZE if listing.page_size is None else listing.page_size
    if not 0 <= page < 2**40:
        raise invalid("page must be at least 0", page=page)
    if size < 1:
        raise invalid("page_size must be at least 1", page_size=size)
    size = min(size, PAGE_SIZE)
    return page * size, size, {}


def _ordering(table: TableSchema, listing: _Listing) -> Iterable[str]:
    for name in _names(listing.order_by, "order_by"):
        if name == "@text_score":
            continue
        _field(table, name.removeprefix("-"))
        yield name


def _field(table: TableSchema, name: str) -> Condition:
    try:
        return q.field(table, name)
    except UnknownFieldError:
        raise invalid("unknown field", field=name[:100]) from None


def _searches(table: TableSchema, listing: _Listing) -> Iterable[Condition]:
    if listing.all_:
        fields = _names(listing.all_.fields, "_all_.fields")
        yield q.all_of(match(table, name, listing.all_.pattern) for name in fields)
    if listing.any_ and listing.any_.fields:
        fields = _names(listing.any_.fields, "_any_.fields")
        yield q.any_of(match(table, name, listing.any_.pattern) for name in fields)
    if listing.search_text:
        text = escape(listing.search_text)
        yield q.any_of(match(table, name, text) for name in ("id", *sorted(table.patterns)))


def match(table: TableSchema, name: str, pattern: str) -> Condition:
    """The field matches the pattern.

    Raises:
        ApiFault: 400/12, the field is unknown, or the server cannot search with the pattern.
    """
    try:
        compiled(pattern)
    except PatternError as error:
        raise invalid(str(error), field=name) from None
    return q.matches(_field(table, name), pattern)


def _filters(table: TableSchema, request: Json) -> Iterable[Condition]:
    wanted_fields = [name for name in request if name.partition(".")[0] in table.fields]
    for name in _names(wanted_fields, "the filters"):
        wanted = request[name]
        kind = table.fields[name.partition(".")[0]]
        if "." in name and kind is not ColumnKind.JSON:
            continue
        if name in table.patterns and isinstance(wanted, str):
            if wanted:
                yield match(table, name, wanted)
        elif kind is ColumnKind.TIME:
            yield _times(table, name, wanted if isinstance(wanted, list) else [wanted])
        elif isinstance(wanted, bool):
            yield q.compare(_field(table, name), "=", int(wanted))
        else:
            yield _membership(table, name, wanted if isinstance(wanted, list) else [wanted])


def _times(table: TableSchema, name: str, wanted: list[Any]) -> Condition:
    """``[">=2024-01-01T00:00:00"]``, or ``[from, to]`` with null for an open end."""
    column = _field(table, name)
    terms = []
    if len(wanted) > _MOST_TERMS:
        raise invalid(f"a filter by time may have {_MOST_TERMS} values, this one has {len(wanted)}", field=name)
    ranged = len(wanted) == 2 and not any(isinstance(t, str) and t[:1] in "<>" for t in wanted)
    for text, default in zip(wanted, (">=", "<=") if ranged else ("=",) * len(wanted), strict=True):
        if text is None:
            continue
        match = _COMPARISON.match(str(text))
        assert match is not None
        terms.append(q.compare(column, match[1] or default, _moment(name, match[2])))
    return q.all_of(terms)


def _moment(name: str, text: str) -> str:
    try:
        moment = datetime.fromisoformat(text.strip().replace("Z", "+00:00"))
        return iso((moment if moment.tzinfo else moment.replace(tzinfo=timezone.utc)).astimezone(timezone.utc))
    except (ValueError, OverflowError):
        raise invalid("expected a time such as 2024-01-31T12:00:00", field=name) from None


def _membership(table: TableSchema, name: str, wanted: list[Any]) -> Condition:
    """ClearML's list language: any of the values; ``-x`` or ``__$not, x`` excludes; ``__$and`` wants all; null is none.

    The first operator joins the groups, each later one holds for the values behind it.
    """
    if len(wanted) > LONGEST_LIST:
        raise invalid(f"a filter may have {LONGEST_LIST} values, this one has {len(wanted)}", field=name)
    column = _field(table, name)
    listed = table.fields[name.partition(".")[0]] is ColumnKind.JSON and "." not in name
    joined: str | None = None
    operator, negated, empty = "or", False, False
    groups: dict[tuple[str, bool], list[Any]] = {}
    for value in wanted:
        if value is None:
            empty = True
        elif value in ("__$and", "__$all", "__$or", "__$any"):
            operator = "and" if value in ("__$and", "__$all") else "or"
            joined = joined or operator
        elif value == "__$not":
            negated = True
        elif isinstance(value, (list, dict)):
            raise invalid("expected a text or number", field=name)
        else:
            exclude = negated or (isinstance(value, str) and len(value) > 1 and value[0] == "-")
            plain = value[1:] if exclude and not negated else value
            groups.setdefault((operator, exclude), []).append(str(plain) if listed else plain)
            negated = False
    parts = [_group(column, listed, operator, exclude, values) for (operator, exclude), values in groups.items()]
    return _combine(parts, joined or "or", empty, column)


def _group(column: Condition, listed: bool, operator: str, exclude: bool, values: list[Any]) -> Condition:
    if listed:
        group = q.holds_all(column, values) if operator == "and" else q.holds_any(column, values)
    elif operator == "and" and len(set(values)) > 1:
        group = q.any_of([])
    else:
        group = q.one_of(column, values)
    return q.negate(group) if exclude else group


def _combine(parts: list[Condition], joined: str, empty: bool, column: Condition) -> Condition:
    combined = q.all_of(parts) if joined == "and" or not parts else q.any_of(parts)
    if not empty:
        return combined
    return q.any_of([combined, q.is_empty(column)]) if parts else q.is_empty(column)
