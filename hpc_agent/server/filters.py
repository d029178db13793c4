"""Filters of ``get_all``: ClearML's language of lists, ranges, times and patterns, as conditions of a query.

See docs/internals/clearml-protocol.md#filters.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from datetime import datetime, timezone
from typing import Any, Literal

import msgspec

from hpc_agent.server.action import Json, RequestBody, iso
from hpc_agent.server.api_fault import ApiFault, invalid
from hpc_agent.server.store import query as q
from hpc_agent.server.store.pattern import PatternError, compiled
from hpc_agent.server.store.query import Condition, UnknownFieldError
from hpc_agent.server.store.schema import ColumnKind, TableSchema
from hpc_agent.struct_types import decodable
from hpc_agent.wire.error_kinds import FIELDS_VALUE_ERROR

LONGEST_LIST = 50_000
"""Values in one filter."""
MOST_TERMS = 100
"""Filters, fields to search and fields to sort by: each is a part of one SQL expression, whose size is limited."""
_COMPARISON = re.compile(r"^(>=|<=|>|<)?(.*)$", re.DOTALL)
_OPERATOR = "__$"
_ALL_OF = frozenset({"__$and", "__$all"})
_ANY_OF = frozenset({"__$or", "__$any"})
_NOT = "__$not"
_RESET = "__$nop"
_LISTED = re.compile(r"models\.(input|output)\.(model|name)")
"""Fields of the objects in a list: such a filter is about the elements."""
_RANGED = "last_metrics."


class _Pattern(RequestBody, frozen=True, forbid_unknown_fields=True):
    """``pattern`` or ``datetime``, for several fields at once."""

    fields: list[str]
    pattern: str | None = None
    datetime: list[str | None] | str | None = None


class _Patterns(RequestBody, frozen=True):
    all_: _Pattern | None = msgspec.field(default=None, name="_all_")
    and_: _Pattern | None = msgspec.field(default=None, name="_and_")
    any_: _Pattern | None = msgspec.field(default=None, name="_any_")
    or_: _Pattern | None = msgspec.field(default=None, name="_or_")


class _Sets(RequestBody, frozen=True, forbid_unknown_fields=True):
    include: tuple[str | None, ...] = ()
    exclude: tuple[str | None, ...] = ()


class _FieldFilter(RequestBody, frozen=True, forbid_unknown_fields=True):
    any: _Sets | None = None
    all: _Sets | None = None
    op: Literal["and", "or"] = "and"


class _Filters(RequestBody, frozen=True):
    filters: dict[str, _FieldFilter] | None = None


OPTIONS = frozenset({"_all_", "_and_", "_any_", "_or_", "filters"})
"""Fields of a request that this module reads in addition to the columns."""


def conditions(table: TableSchema, request: Json, options: frozenset[str]) -> Iterable[Condition]:
    """All filters of a request. ``options`` are its fields that are not filters.

    Raises:
        ApiFault: a filter that is not understood, which must not be taken as none.
    """
    own = {name: wanted for name, wanted in request.items() if name not in options and name not in OPTIONS}
    if len(own) > MOST_TERMS:
        raise invalid(f"the filters may have {MOST_TERMS} names, this one has {len(own)}")
    for name, wanted in own.items():
        if (condition := _filter(table, name, wanted)) is not None:
            yield condition
    yield from _by_pattern(table, msgspec.convert(request, decodable(_Patterns), strict=False))
    for name, wanted_sets in (msgspec.convert(request, decodable(_Filters), strict=False).filters or {}).items():
        yield _by_sets(table, name, wanted_sets)


def names_of(value: list[str] | str, what: str, most: int = MOST_TERMS) -> list[str]:
    """
    Raises:
        ApiFault: 400/12, there are too many.
    """
    names = [value] if isinstance(value, str) else value
    if len(names) > most:
        raise invalid(f"{what} may have {most} names, this one has {len(names)}")
    return names


def field_of(table: TableSchema, name: str) -> Condition:
    """The value of a field.

    Raises:
        ApiFault: 400/12, unknown.
    """
    try:
        if name.partition(".")[0] in table.hidden:
            raise UnknownFieldError(name)
        return q.field(table, name)
    except UnknownFieldError:
        raise invalid("unknown field", field=name[:100]) from None


def match(table: TableSchema, name: str, pattern: str) -> Condition:
    """The field matches the pattern.

    Raises:
        ApiFault: 400/12, the field is unknown, or the server cannot search with the pattern.
    """
    try:
        compiled(pattern)
    except PatternError as error:
        raise invalid(str(error), field=name) from None
    return q.matches(field_of(table, name), pattern)


def _filter(table: TableSchema, name: str, wanted: Any) -> Condition | None:
    top, _, inner = name.partition(".")
    column = field_of(table, name)
    kind = table.fields[top]
    if name in table.patterns and isinstance(wanted, str):
        return match(table, name, wanted) if wanted else None
    if kind is ColumnKind.TIME:
        return _times(name, column, wanted if isinstance(wanted, list) else [wanted])
    if isinstance(wanted, bool):
        return q.compare(column, "=", int(wanted))
    values = wanted if isinstance(wanted, list) else [wanted]
    if kind is ColumnKind.INTEGER or name.startswith(_RANGED):
        return _range(name, column, values)
    if match_ := _LISTED.fullmatch(name):
        return _membership(name, q.inner_values(q.field(table, top), match_[1], match_[2]), True, values)
    return _membership(name, column, kind is ColumnKind.JSON and not inner, values)


def _by_pattern(table: TableSchema, wanted: _Patterns) -> Iterable[Condition]:
    joined = ((wanted.all_, "_all_", q.all_of), (wanted.and_, "_and_", q.all_of))
    for part, name, join in (*joined, (wanted.any_, "_any_", q.any_of), (wanted.or_, "_or_", q.any_of)):
        if part is None:
            continue
        if part.pattern is None and part.datetime is None:
            raise invalid("give a pattern, or times as datetime", field=name)
        if part.fields:
            yield join(_of_part(table, field, part) for field in names_of(part.fields, f"{name}.fields"))


def _of_part(table: TableSchema, field: str, part: _Pattern) -> Condition:
    terms = [] if part.pattern is None else [match(table, field, part.pattern)]
    if part.datetime is not None:
        moments: list[str | None] = [part.datetime] if isinstance(part.datetime, str) else part.datetime
        if table.fields.get(field) is not ColumnKind.TIME:
            raise invalid("datetime is for fields that hold a time", field=field[:100])
        terms.append(_times(field, field_of(table, field), moments))
    return q.all_of(terms)


def _range(name: str, column: Condition, wanted: list[Any]) -> Condition:
    """``[from, to]``, both included; null for an open end. A document without the value is below all others."""
    if len(wanted) == 1 and wanted[0] is not None:
        return q.compare(column, "=", _number(name, wanted[0]))
    if len(wanted) != 2 or wanted == [None, None]:
        raise invalid("give the least and the greatest value, null for one of them at most", field=name[:100])
    low, high = (None if value is None else _number(name, value) for value in wanted)
    terms = [] if low is None else [q.compare(column, ">=", low)]
    terms += [] if high is None else [q.compare(column, "<=", high)]
    within = q.all_of(terms)
    return within if low is not None else q.any_of([within, q.is_empty(column)])


def _number(name: str, value: Any) -> float:
    try:
        if isinstance(value, bool) or not isinstance(value, (int, float, str)):
            raise ValueError
        number = value if isinstance(value, int) and abs(value) < 2**63 else float(value)
    except (ValueError, OverflowError):
        raise invalid("expected a number", field=name[:100]) from None
    return number


def _times(name: str, column: Condition, wanted: Sequence[Any]) -> Condition:
    """``[">=2024-01-01T00:00:00"]``, or ``[from, to]`` with null for an open end."""
    if len(wanted) > MOST_TERMS:
        raise invalid(f"a filter by time may have {MOST_TERMS} values, this one has {len(wanted)}", field=name)
    ranged = len(wanted) == 2 and not any(isinstance(t, str) and t[:1] in "<>" for t in wanted)
    if ranged and list(wanted) == [None, None]:
        raise invalid("give the earliest or the latest time", field=name)
    terms = []
    for text, default in zip(wanted, (">=", "<=") if ranged else ("=",) * len(wanted), strict=True):
        if text is None and ranged:
            continue
        found = _COMPARISON.match(str(text))
        assert found is not None
        terms.append(q.compare(column, found[1] or default, _moment(name, found[2])))
    combined = q.all_of(terms)
    return q.any_of([combined, q.is_empty(column)]) if ranged and wanted[0] is None else combined


def _moment(name: str, text: str) -> str:
    try:
        moment = datetime.fromisoformat(text.strip().replace("Z", "+00:00"))
        return iso((moment if moment.tzinfo else moment.replace(tzinfo=timezone.utc)).astimezone(timezone.utc))
    except (ValueError, OverflowError):
        raise invalid("expected a time such as 2024-01-31T12:00:00", field=name) from None


class _ListFilter:
    """ClearML's list language, read word by word.

    The first word decides how the groups are joined: a value by AND, an operator by itself. Each later operator holds
    for the values behind it. ``__$not x`` and, before any operator, ``-x`` exclude; null is "none"; ``__$nop`` starts
    over.
    """

    def __init__(self, name: str, words: Sequence[Any]) -> None:
        self._name = name
        self._operator = "or"
        self._minus_excludes = True
        self._negated = False
        self.joined: str | None = None
        self.empty = False
        self.groups: dict[tuple[str, bool], list[Any]] = {}
        for word in words:
            self._read(word)
        if self._negated:
            raise self._fault("a value must follow the operator", _NOT)

    def _read(self, word: Any) -> None:
        if isinstance(word, str) and word.startswith(_OPERATOR):
            self._read_operator(word)
            return
        self.joined = self.joined or "and"
        if word is None:
            self.empty, self._negated = True, False
            return
        if isinstance(word, (list, dict)):
            raise invalid("expected a text or number", field=self._name[:100])
        exclude = self._negated
        if self._minus_excludes and not exclude and isinstance(word, str) and word.startswith("-"):
            word, exclude = word[1:], True
            if not word:
                raise self._fault("a value must follow the minus sign", "-")
        self._negated = False
        self.groups.setdefault((self._operator, exclude), []).append(word)

    def _read_operator(self, word: str) -> None:
        if self._negated:
            raise self._fault("a value must follow the operator", _NOT)
        if word == _RESET:
            self.joined = self.joined or "and"
            self._operator, self._minus_excludes = "or", True
            return
        self._minus_excludes = False
        if word == _NOT:
            self._negated = True
        elif word in _ALL_OF or word in _ANY_OF:
            self._operator = "and" if word in _ALL_OF else "or"
            self.joined = self.joined or self._operator
        else:
            raise self._fault("unknown operator", word)

    def _fault(self, reason: str, operator: str) -> ApiFault:
        return ApiFault(FIELDS_VALUE_ERROR, reason, field=self._name[:100], operator=operator[:100])


def listed(table: TableSchema, name: str, wanted: list[str]) -> Condition:
    """The list in the column has what ``wanted`` asks for, in ClearML's language of lists."""
    return _membership(name, field_of(table, name), True, wanted)


def _membership(name: str, column: Condition, listed: bool, wanted: list[Any]) -> Condition:
    if len(wanted) > LONGEST_LIST:
        raise invalid(f"a filter may have {LONGEST_LIST} values, this one has {len(wanted)}", field=name)
    read = _ListFilter(name, wanted)
    parts = []
    for (operator, exclude), values in read.groups.items():
        if exclude:
            parts.append(q.negate(_has_any(column, listed, values)))
        else:
            parts.append((_has_all if operator == "and" else _has_any)(column, listed, values))
    if not parts:
        return q.is_empty(column) if read.empty else q.all_of([])
    combined = q.all_of(parts) if read.joined == "and" else q.any_of(parts)
    return q.any_of([combined, q.is_empty(column)]) if read.empty else combined


def _has_any(column: Condition, listed: bool, values: Sequence[Any]) -> Condition:
    return q.holds_any(column, [str(value) for value in values]) if listed else q.one_of(column, values)


def _has_all(column: Condition, listed: bool, values: Sequence[Any]) -> Condition:
    if listed:
        return q.holds_all(column, [str(value) for value in values])
    return q.one_of(column, values) if len(set(values)) == 1 else q.any_of([])


def _by_sets(table: TableSchema, name: str, wanted: _FieldFilter) -> Condition:
    """One field of ``filters``: ``{any: {include, exclude}, all: {include, exclude}, op}``."""
    top, _, inner = name.partition(".")
    column, listed = field_of(table, name), False
    if found := _LISTED.fullmatch(name):
        column, listed = q.inner_values(q.field(table, top), found[1], found[2]), True
    elif table.fields[top] is ColumnKind.JSON and not inner:
        listed = True
    parts = []
    if wanted.any is not None:
        parts.append(_any_of_sets(name, column, listed, wanted.any))
    if wanted.all is not None:
        parts.append(_all_of_sets(name, column, listed, wanted.all))
    return q.all_of(parts) if wanted.op == "and" or not parts else q.any_of(parts)


def _any_of_sets(name: str, column: Condition, listed: bool, sets: _Sets) -> Condition:
    include, exclude = _values(name, sets.include), _values(name, sets.exclude)
    terms = [_has_any(column, listed, include)] if include else []
    terms += [q.negate(_has_all(column, listed, exclude))] if exclude else []
    terms += [q.is_empty(column)] if None in sets.include else []
    terms += [q.negate(q.is_empty(column))] if None in sets.exclude else []
    return q.any_of(terms) if terms else q.all_of([])


def _all_of_sets(name: str, column: Condition, listed: bool, sets: _Sets) -> Condition:
    include, exclude = _values(name, sets.include), _values(name, sets.exclude)
    terms = [_has_all(column, listed, include)] if include else []
    terms += [q.negate(_has_any(column, listed, exclude))] if exclude else []
    terms += [q.is_empty(column)] if None in sets.include else []
    terms += [q.negate(q.is_empty(column))] if None in sets.exclude else []
    return q.all_of(terms)


def _values(name: str, values: Sequence[str | None]) -> list[str]:
    if len(values) > LONGEST_LIST:
        raise invalid(f"a filter may have {LONGEST_LIST} values, this one has {len(values)}", field=name[:100])
    return [value for value in values if value is not None]
