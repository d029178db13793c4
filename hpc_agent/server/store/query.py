"""Queries: conditions, order and fields as SQL, with all values bound."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import msgspec

from hpc_agent.server.store.schema import ColumnKind, TableSchema

NUMERIC_ORDER = "numeric_order"
"""Collation by which texts that are numbers come in the order of the numbers, before all others."""
_LONGEST_NAME = 1000
_DEEPEST_NAME = 32
_CONTROLS = re.compile(r"[\x00-\x1f]")


@dataclass(frozen=True)
class Condition:
    """A boolean SQL expression and its parameters."""

    sql: str
    parameters: tuple[object, ...] = ()


@dataclass(frozen=True)
class Query:
    """``order_by`` are field names, dotted for inside an object, ``-`` for descending; ``fields`` top-level names."""

    conditions: tuple[Condition, ...] = ()
    order_by: tuple[str, ...] = ()
    fields: tuple[str, ...] = ()
    limit: int | None = None
    offset: int = 0

    def sql(self, table: TableSchema) -> tuple[str, list[object]]:
        """The SQL after ``SELECT … FROM table``, and its parameters."""
        combined = all_of(self.conditions)
        parts = [f"WHERE {combined.sql}"]
        parameters = list(combined.parameters)
        if self.order_by:
            terms = []
            for name in self.order_by:
                term = _order(table, name.removeprefix("-"), descending=name.startswith("-"))
                terms.append(term.sql)
                parameters.extend(term.parameters)
            # The id makes the order total, so that pages neither overlap nor leave gaps.
            parts.append(f"ORDER BY {', '.join(terms)}, id")
        if self.limit is not None:
            parts.append("LIMIT ? OFFSET ?")
            parameters.extend((self.limit, self.offset))
        return " ".join(parts), parameters


class UnknownFieldError(LookupError):
    """The table has no such field."""


def field(table: TableSchema, name: str) -> Condition:
    """The value of a field; ``a.b.c`` looks inside the JSON of ``a``.

    Raises:
        UnknownFieldError: the top-level field does not exist or is not an object, or SQLite has no such path.
    """
    top, _, rest = name.partition(".")
    kind = table.fields.get(top)
    if kind is None or (rest and kind is not ColumnKind.JSON):
        raise UnknownFieldError(name)
    if len(name) > _LONGEST_NAME or name.count(".") > _DEEPEST_NAME or _CONTROLS.search(name):
        raise UnknownFieldError(name)
    # With the table's name: json_each has columns of its own, ``path`` among them.
    column = f"{table.name}.{top}"
    return Condition(f"json_extract({column}, ?)", (_json_path(rest),)) if rest else Condition(column)


def _order(table: TableSchema, name: str, *, descending: bool) -> Condition:
    """Documents without the value come last in either direction, as on the reference server."""
    column = field(table, name)
    missing = is_empty(column)
    # Parameters are texts that hold numbers more often than not.
    collation = f" COLLATE {NUMERIC_ORDER}" if name.startswith("hyperparams.") else ""
    return Condition(
        f"{missing.sql}, {column.sql}{collation}{' DESC' if descending else ''}",
        (*missing.parameters, *column.parameters),
    )


def inner_values(column: Condition, side: str, name: str) -> Condition:
    """The list of one field of all objects in a list, which is at ``side`` of a column's object."""
    of_objects = f"json_each({column.sql}, ?) AS listed WHERE listed.type = 'object'"
    return Condition(
        f"(SELECT json_group_array(json_extract(listed.value, ?)) FROM {of_objects})",
        (_json_path(name), *column.parameters, _json_path(side)),
    )


def _json_path(dotted: str) -> str:
    # SQLite knows no escape inside a quoted label: a quote cannot be asked for.
    # Clients write dots and dollar signs of a parameter's name as URLs do.
    parts = (part.replace("%2E", ".").replace("%24", "$") for part in dotted.replace('"', "").split("."))
    return "$" + "".join(f'."{part}"' for part in parts)


def matches(value: Condition, pattern: str) -> Condition:
    """``pattern`` is a regular expression that compiles."""
    return Condition(f"({value.sql} REGEXP ?)", (*value.parameters, pattern))


def one_of(value: Condition, choices: Sequence[object]) -> Condition:
    """The value is one of these."""
    return Condition(f"({value.sql} IN (SELECT value FROM json_each(?)))", (*value.parameters, _listed(choices)))


def holds(value: Condition, element: str) -> Condition:
    """The JSON list has the element."""
    return holds_any(value, [element])


def holds_any(value: Condition, elements: Sequence[str]) -> Condition:
    """The JSON list has at least one of the elements."""
    return Condition(f"EXISTS (SELECT 1 {_common(value)})", (*value.parameters, _listed(elements)))


def holds_all(value: Condition, elements: Sequence[str]) -> Condition:
    """The JSON list has every one of the elements."""
    return Condition(
        f"((SELECT count(DISTINCT held.value) {_common(value)}) = ?)",
        (*value.parameters, _listed(elements), len(set(elements))),
    )


def _common(value: Condition) -> str:
    """The elements of the JSON list that are among those of a parameter."""
    return f"FROM json_each({value.sql}) AS held WHERE held.value IN (SELECT value FROM json_each(?))"


def _listed(values: Sequence[object]) -> str:
    """One parameter however long the list: SQLite limits their number, and the depth of an expression."""
    return msgspec.json.encode(values).decode()


def is_empty(value: Condition) -> Condition:
    """Null, or an empty list, object or text."""
    return Condition(f"(coalesce({value.sql}, '') IN ('', '[]', '{{}}'))", value.parameters)


def compare(value: Condition, operator: str, other: object) -> Condition:
    """``operator`` is one of ``= < <= > >=``."""
    assert operator in {"=", "<", "<=", ">", ">="}
    return Condition(f"({value.sql} {operator} ?)", (*value.parameters, other))


def negate(condition: Condition) -> Condition:
    # A null on either side makes the comparison null: not a match, so its negation is one.
    return Condition(f"(NOT coalesce({condition.sql}, 0))", condition.parameters)


def all_of(conditions: Iterable[Condition]) -> Condition:
    return _joined(conditions, " AND ", "1")


def any_of(conditions: Iterable[Condition]) -> Condition:
    return _joined(conditions, " OR ", "0")


def _joined(conditions: Iterable[Condition], operator: str, empty: str) -> Condition:
    items = list(conditions)
    if not items:
        return Condition(empty)
    return Condition(
        "(" + operator.join(item.sql for item in items) + ")",
        tuple(parameter for item in items for parameter in item.parameters),
    )
