"""The envelope around every answer of a ClearML server (docs/internals/clearml-protocol.md#envelope)."""

from __future__ import annotations

from typing import Any

import msgspec


class EndpointInfo(msgspec.Struct, frozen=True):
    """Which implementation answered."""

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
