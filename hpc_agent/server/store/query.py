"""Queries: conditions, order and fields as SQL, with all values bound."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import msgspec

from hpc_agent.server.store.schema import ColumnKind, TableSchema

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
                column = field(table, name.removeprefix("-"))
                terms.append(column.sql + (" DESC" if name.startswith("-") else ""))
                parameters.extend(column.parameters)
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


def _json_path(dotted: str) -> str:
    # SQLite knows no escape inside a quoted label: a quote cannot be asked for.
    return "$" + "".join(f'."{part}"' for part in dotted.replace('"', "").split("."))


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
    """Null, or an empty list or text."""
    return Condition(f"(coalesce({value.sql}, '') IN ('', '[]'))", value.parameters)


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
