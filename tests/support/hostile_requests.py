"""Unforeseen requests for any endpoint: made from the types that it declares, and from what those are not."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Mapping
from typing import Any

from msgspec import inspect

from hpc_agent.server.action import Batch, Endpoint, Json
from hpc_agent.server.store.schema import DOCUMENTS

FIELDS = sorted({field for table in DOCUMENTS for field in table.fields})

TEXTS = (
    "",
    " ",
    "x",
    "\0",
    "a\0b",
    "\ud800",
    "ünïcödé ☃ \U0001f600",
    "line\nbreak\r\u2028\x0c",
    "../../etc/passwd",
    "'; DROP TABLE tasks; --",
    '"$.[*]',
    "<script>alert(1)</script>",
    "{{7*7}}",
    "__$not",
    "__$and",
    "-",
    "-x",
    ">=",
    "9" * 400,
    "1e999",
    "NaN",
    "true",
    "2024-01-01T00:00:00",
    "0001-01-01T00:00:00+14:00",
    "9999-12-31T23:59:59-14:00",
    "(a+)+$",
    "[",
    "x" * 20_000,
    ".",
    "a" + ".a" * 200,
    "é" * 3000,
)
SHORT = tuple(text for text in TEXTS if len(text) < 50)
LARGEST = 1_000_000
"""Characters of a body: what is longer is cut, which makes it one more kind of nonsense."""
MANY = 1200
"""More than the parts that SQLite allows an expression."""
NUMBERS = (0, 1, -1, 2**31, -(2**31), 2**53, 2**63 - 1, 2**63, -(2**63) - 1, 2**64, 10**30, 0.5, 1e308, -1e308)
DEPTHS = (3, 150, 900, 5000)
ODD: tuple[Callable[[random.Random], Any], ...] = (
    lambda r: None,
    lambda r: r.choice((True, False)),
    lambda r: r.choice(NUMBERS),
    lambda r: r.choice(TEXTS),
    lambda r: [],
    lambda r: {},
    lambda r: [r.choice(SHORT) for _ in range(r.choice((1, 3, MANY)))],
    lambda r: {r.choice(TEXTS): r.choice(TEXTS)},
    lambda r: nested(r.choice(DEPTHS)),
    lambda r: [[{}]],
    lambda r: [{"a": [1, None, "x"]}] * r.choice((1, 400)),
    lambda r: {f"key {number}": number for number in range(r.choice((2, MANY)))},
)


class Raw(str):
    """JSON text of a value which Python's own encoder refuses."""


def nested(depth: int) -> Raw:
    return Raw('{"a":' * depth + "1" + "}" * depth)


class Generator:
    """``known``: ids that exist, by the field that names such a thing."""

    def __init__(self, seed: int, known: Mapping[str, str]) -> None:
        self._random = random.Random(seed)
        self._known = known
        self._in_list = False

    def body(self, endpoint: Endpoint) -> bytes:
        if self._random.random() < 0.03:
            return self._random.choice((b"", b"{", b"[]", b"null", b"\xff\xfe", b'{"a":1}{', b"[[[", b'"x"', b"\0"))
        if endpoint.request is Batch:
            return b"\n".join(self._dumped(self._event()) for _ in range(self._random.choice((1, 2, 50))))
        request = self._listing() if endpoint.request is Json else self._struct(endpoint.request)
        return self._dumped(request)

    def _dumped(self, value: Any) -> bytes:
        text = json.dumps(value)
        if '"{' in text:
            # Raw texts were written as strings: put them in as they are.
            for raw in map(nested, DEPTHS):
                text = text[:LARGEST].replace(json.dumps(str(raw)), raw)
        return text[:LARGEST].encode("utf-8", "surrogatepass")

    def _odd(self) -> Any:
        return self._random.choice(ODD)(self._random)

    def _struct(self, type_: Any) -> dict[str, Any]:
        info = inspect.type_info(type_)
        assert isinstance(info, inspect.StructType)
        request: dict[str, Any] = {}
        for field in info.fields:
            if field.required or self._random.random() < 0.5:
                request[field.encode_name] = self._value(field.encode_name, field.type)
        if self._random.random() < 0.1:
            request[self._random.choice((*FIELDS, *TEXTS))] = self._odd()
        return request

    def _value(self, name: str, type_: inspect.Type) -> Any:
        if self._random.random() < 0.2:
            return self._odd()
        if name in self._known and self._random.random() < 0.8:
            return self._known[name]
        if isinstance(type_, inspect.UnionType):
            return self._value(name, self._random.choice(type_.types))
        if isinstance(type_, inspect.StructType):
            return self._struct(type_.cls)
        if isinstance(type_, inspect.ListType):
            return self._list(name.rstrip("s"), type_.item_type)
        if isinstance(type_, inspect.DictType):
            return {self._text(): self._value("", type_.value_type) for _ in range(self._random.choice((0, 1, 3)))}
        if isinstance(type_, inspect.BoolType):
            return self._random.choice((True, False, "true", 0))
        if isinstance(type_, (inspect.IntType, inspect.FloatType)):
            return self._random.choice(NUMBERS)
        if isinstance(type_, inspect.LiteralType):
            return self._random.choice(type_.values)
        if isinstance(type_, inspect.EnumType):
            return self._random.choice([member.value for member in type_.cls])
        if isinstance(type_, inspect.StrType):
            return self._text()
        return self._odd()

    def _list(self, name: str, type_: inspect.Type) -> list[Any]:
        """One list of a request is long at most: lists of lists grow to gigabytes."""
        count = self._random.choice((0, 1, 2, 2 if self._in_list else MANY))
        before, self._in_list = self._in_list, True
        items = [self._value(name, type_) for _ in range(min(count, 2))]
        self._in_list = before
        return [*items[:1], "x"] * (MANY // 2) if count == MANY else items

    def _text(self) -> str:
        return self._random.choice((*TEXTS, *FIELDS, *self._known.values()))

    def _field(self) -> str:
        dotted = self._random.choice(("", "", f".{self._text()}"))
        return self._random.choice(("", "-")) + self._random.choice(FIELDS) + dotted

    def _listing(self) -> dict[str, Any]:
        """A request to one of the ``get_all``."""
        request: dict[str, Any] = {}
        for _ in range(self._random.choice((0, 1, 2, 5))):
            values = [self._random.choice(SHORT) for _ in range(self._random.choice((1, 2, MANY)))]
            request[self._field().lstrip("-")] = self._random.choice((values, values[0], self._odd()))
        options: dict[str, Callable[[], Any]] = {
            "only_fields": lambda: [self._field() for _ in range(self._random.choice((1, 3, MANY)))],
            "order_by": lambda: [self._field() for _ in range(self._random.choice((1, 3, MANY)))],
            "page": lambda: self._random.choice(NUMBERS),
            "page_size": lambda: self._random.choice(NUMBERS),
            "size": lambda: self._random.choice(NUMBERS),
            "scroll_id": self._text,
            "search_text": self._text,
            "search_hidden": lambda: True,
            "_all_": lambda: {"fields": [self._field()], "pattern": self._text()},
            "_any_": lambda: {"fields": [self._field() for _ in range(3)], "pattern": self._text()},
            "_or_": lambda: {"fields": [self._field(), "last_update"], "datetime": [self._text()]},
            "_and_": lambda: {"fields": ["last_update"], "datetime": [">2020-01-01T00:00:00", self._odd()]},
            "filters": lambda: {self._field().lstrip("-"): self._sets()},
            "include_subprojects": lambda: True,
            "refresh_scroll": lambda: True,
            "include_stats": lambda: True,
            "check_own_contents": lambda: True,
            "children_type": lambda: self._random.choice(("pipeline", "report", "dataset", self._odd())),
        }
        for name in self._random.sample(sorted(options), 3):
            request[name] = self._odd() if self._random.random() < 0.2 else options[name]()
        return request

    def _sets(self) -> dict[str, Any]:
        """A condition of ``filters``, more or less."""
        words = [self._random.choice((None, *SHORT)) for _ in range(self._random.choice((0, 1, MANY)))]
        kinds = self._random.choice((("any",), ("all",), ("any", "all"), ("nonsense",)))
        sets = {kind: {self._random.choice(("include", "exclude")): words} for kind in kinds}
        return {**sets, "op": self._random.choice(("and", "or", "xor"))} if self._random.random() < 0.3 else sets

    def _event(self) -> dict[str, Any]:
        kinds = ("log", "training_stats_scalar", "training_stats_vector", "training_debug_image", "plot", self._text())
        event: dict[str, Any] = {"type": self._random.choice(kinds), "task": self._known["task"]}
        fields: dict[str, Callable[[], Any]] = {
            "task": self._text,
            "timestamp": lambda: self._random.choice(NUMBERS),
            "iter": lambda: self._random.choice(NUMBERS),
            "value": lambda: self._random.choice(NUMBERS),
            "metric": self._text,
            "variant": self._text,
            "worker": self._text,
            "msg": self._text,
            "level": self._text,
            "allow_locked": lambda: True,
            "model_event": lambda: True,
            "url": self._odd,
        }
        for name in self._random.sample(sorted(fields), 5):
            event[name] = self._odd() if self._random.random() < 0.15 else fields[name]()
        return event
