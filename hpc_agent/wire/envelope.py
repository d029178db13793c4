"""Envelope of every answer of a ClearML server (docs/internals/clearml-protocol.md#envelope), and how much JSON is
decoded."""

from __future__ import annotations

from typing import Any

import msgspec


class EndpointInfo(msgspec.Struct, frozen=True):
    """The endpoint and the API version that answered."""

    name: str
    requested_version: str
    actual_version: str


class Meta(msgspec.Struct, frozen=True, kw_only=True):
    """``result_code`` equals the HTTP status, ``result_subcode`` is ClearML's own number."""

    id: str
    trx: str
    endpoint: EndpointInfo
    result_code: int = 200
    result_subcode: int = 0
    result_msg: str = "OK"
    error_stack: str | None = None
    error_data: dict[str, Any] = {}


class Envelope(msgspec.Struct, frozen=True):
    meta: Meta
    data: dict[str, Any]


_MARKS = (b",", b"[", b"{")
"""Each value but the first has one of these before it."""


def has_more_values(body: bytes, most: int) -> bool:
    """Whether the JSON text holds more than ``most`` values, keys of objects not counted; in time linear in its size.

    Counted before it is decoded: 64 MiB of empty lists become 1.5 GB of objects.
    """
    if sum(map(body.count, _MARKS)) <= most:
        return False
    # Inside of strings, of a console or a diff, the marks mean nothing. Escapes go first: then a quote ends a string.
    plain = body.replace(b"\\\\", b"").replace(b'\\"', b"")
    if plain.count(b'"') > 4 * most:
        return True
    outside = b"".join(plain.split(b'"')[::2])
    return sum(map(outside.count, _MARKS)) > most
