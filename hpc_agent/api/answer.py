"""The body of an answer: read up to a bound, and taken apart without trust in who sent it."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

import requests

from hpc_agent.domain.ids import is_id
from hpc_agent.errors import ServerUnreachableError
from hpc_agent.wire.json_limits import has_more_values

LARGEST_BYTES = 64 << 20
"""Of an answer, unpacked. A page of tasks has a few megabytes; three gigabytes of zeros travel as three megabytes."""
MOST_VALUES = 1_000_000
"""In an answer's JSON. A queue's entry has two."""
_BLOCK = 64 * 1024
_DIGITS = 20
_SURROGATE = re.compile("[\ud800-\udfff]")
_ESCAPED_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")


class TooLargeError(Exception):
    """There is more of it than we take."""


def body_of(response: requests.Response, largest: int = LARGEST_BYTES) -> bytes:
    """What a streamed response holds.

    Raises:
        TooLargeError: it is larger than ``largest``; the connection is closed.
        requests.RequestException: it broke off.
    """
    body = bytearray()
    for piece in response.iter_content(_BLOCK):
        body += piece
        if len(body) > largest:
            response.close()
            raise TooLargeError
    return bytes(body)


def object_in(body: bytes) -> dict[str, Any] | None:
    """The JSON object that it is; None for anything else.

    Half of a surrogate pair (``\\ud83d``), which cannot be written to any file or console, becomes U+FFFD.
    """
    if has_more_values(body, MOST_VALUES):
        return None
    try:
        found = json.loads(body)
    except (ValueError, RecursionError):
        return None
    if not isinstance(found, dict):
        return None
    return _without_surrogates(found) if _ESCAPED_SURROGATE.search(body) else found


def encoded(value: object) -> bytes:
    """A request's body. What is no character (see ``object_in``) is sent as a question mark."""
    return json.dumps(value, ensure_ascii=False).encode("utf-8", "replace")


def _without_surrogates(value: Any) -> Any:
    if isinstance(value, str):
        return _SURROGATE.sub("\ufffd", value)
    if isinstance(value, list):
        return [_without_surrogates(item) for item in value]
    if isinstance(value, dict):
        return {_without_surrogates(name): _without_surrogates(item) for name, item in value.items()}
    return value


def rows(answer: Mapping[str, Any], name: str, *, optional: bool = False) -> list[dict[str, Any]]:
    """The objects of a list in an answer; what is no object among them is passed over. ``optional``: no list is an
    empty one.

    Raises:
        ServerUnreachableError: there is no such list.
    """
    found = answer.get(name)
    if found is None and optional:
        return []
    if not isinstance(found, list):
        raise _unusable(f"no list of {name}")
    return [row for row in found if isinstance(row, dict)]


def id_in(row: object, name: str = "id") -> str:
    """The id of an object in an answer.

    Raises:
        ServerUnreachableError: it has none.
    """
    found = row.get(name) if isinstance(row, Mapping) else None
    if not is_id(found):
        raise _unusable(f"{str(found)[:100]!r} for an id")
    return str(found)


def whole(value: object) -> int:
    """A number of an answer: a count, or milliseconds. Nothing is 0.

    Raises:
        ServerUnreachableError: it is none.
    """
    if value is None:
        return 0
    try:
        if isinstance(value, (int, float)) or (isinstance(value, str) and len(value) < _DIGITS):
            return int(value)
    except (ValueError, OverflowError):
        pass
    raise _unusable(f"{str(value)[:100]!r} for a number")


def _unusable(what: str) -> ServerUnreachableError:
    return ServerUnreachableError(
        f"the ClearML server answered with {what}; is api.api_server the API server, and a ClearML one?"
    )
