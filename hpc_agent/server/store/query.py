"""Which documents, in which order, which part of them: conditions as SQL with all values bound."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import msgspec

from hpc_agent.server.store.schema import Kind, Table


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

    def sql(self, table: Table) -> tuple[str, list[object]]:
        """What stands behind ``SELECT … FROM table``."""
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


def field(table: Table, name: str) -> Condition:
    """The value of a field; ``a.b.c`` looks inside the JSON of ``a``.

    Raises:
        UnknownFieldError: there is no top-level field of that name, or it is no object.
    """
    top, _, rest = name.partition(".")
    kind = table.fields.get(top)
    if kind is None or (rest and kind is not Kind.JSON):
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
    # One parameter however long the list: SQLite limits their number.
    listed = msgspec.json.encode(choices).decode()
    return Condition(f"({value.sql} IN (SELECT value FROM json_each(?)))", (*value.parameters, listed))


def holds(value: Condition, element: str) -> Condition:
    """The JSON list has the element."""
    return Condition(
        f"EXISTS (SELECT 1 FROM json_each({value.sql}) WHERE json_each.value = ?)", (*value.parameters, element)
    )


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


def _joined(conditions: Iterable[Condition], word: str, empty: str) -> Condition:
    items = list(conditions)
    if not items:
        return Condition(empty)
    return Condition(
        "(" + word.join(item.sql for item in items) + ")",
        tuple(parameter for item in items for parameter in item.parameters),
    )
