"""Answer of a server: its body read up to a limit, its envelope and values checked, its failures as errors."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from typing import Any

import requests
from urllib3.exceptions import MaxRetryError, NewConnectionError, ReadTimeoutError

from hpc_agent.domain.ids import is_id
from hpc_agent.errors import ApiError, AuthError, ConfigError, HpcAgentError, NotFoundError, ServerUnreachableError
from hpc_agent.wire.envelope import has_more_values
from hpc_agent.wire.error_kinds import (
    BODY_TOO_LARGE,
    INVALID_MODEL_ID,
    INVALID_PROJECT_ID,
    INVALID_QUEUE_ID,
    INVALID_TASK_ID,
)

LARGEST_BYTES = 64 << 20
"""Of an answer, unpacked. A page of tasks has a few megabytes; three gigabytes of zeros travel as three megabytes."""
MOST_VALUES = 1_000_000
"""In an answer's JSON. A queue's entry has two."""
_BLOCK = 64 * 1024
_DIGITS = 20
_TEMPORARY = frozenset({429, 500, 502, 503, 504, 509})
_NOT_FOUND = frozenset(
    kind.numbers for kind in (INVALID_TASK_ID, INVALID_MODEL_ID, INVALID_PROJECT_ID, INVALID_QUEUE_ID)
)
_LONGEST_MESSAGE = 4000
_SURROGATE = re.compile("[\ud800-\udfff]")
_ESCAPED_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")


class TooLargeError(Exception):
    """A body beyond the limit."""


def body_of(response: requests.Response, largest: int = LARGEST_BYTES) -> bytes:
    """The body of a streamed response.

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
    """The body as a JSON object; None for anything else.

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
    """A request's body. Half of a surrogate pair (see ``object_in``) is sent as a question mark."""
    return json.dumps(value, ensure_ascii=False).encode("utf-8", "replace")


def _without_surrogates(value: Any) -> Any:
    if isinstance(value, str):
        return _SURROGATE.sub("\ufffd", value)
    if isinstance(value, list):
        return [_without_surrogates(item) for item in value]
    if isinstance(value, dict):
        return {_without_surrogates(name): _without_surrogates(item) for name, item in value.items()}
    return value


def data_of(response: requests.Response, body: bytes, endpoint: str, where: str) -> dict[str, Any]:
    """The ``data`` of a good answer.

    Raises:
        ApiError: the server refused (NotFoundError, AuthError where that is why).
        ServerUnreachableError: the answer is not from a working ClearML server.
    """
    meta, data = _envelope(body)
    if response.status_code == BODY_TOO_LARGE.code:
        # Mostly a proxy's own page, so that there is no envelope.
        raise BODY_TOO_LARGE.error(endpoint, "the request is too large for the server or for a proxy before it")
    if meta is None or response.status_code in _TEMPORARY:
        message = _message(meta) if meta else "a body that is not ClearML's envelope"
        raise ServerUnreachableError(
            f"the ClearML server at {where} answered {endpoint} with HTTP {response.status_code}: {message}; "
            "is it the API server, and up?",
            # Too many requests: this one was turned away.
            uncertain=response.status_code != 429,
            retry_after=_retry_after(response),
        )
    if response.status_code == 200:
        return data
    code, subcode = response.status_code, whole(meta.get("result_subcode"))
    error = AuthError if code in (401, 403) else NotFoundError if (code, subcode) in _NOT_FOUND else ApiError
    message = _message(meta)
    if error is AuthError:
        message += f"; check the access key and secret for {where}"
    raise error(endpoint, code, subcode, message)


def _envelope(body: bytes) -> tuple[dict[str, Any] | None, dict[str, Any]]:
    answer = object_in(body)
    if answer is None or not isinstance(answer.get("meta"), dict):
        return None, {}
    data = answer.get("data")
    return answer["meta"], data if isinstance(data, dict) else {}


def _message(meta: Mapping[str, Any]) -> str:
    """The server's own error message."""
    return str(meta.get("result_msg") or "no reason given")[:_LONGEST_MESSAGE]


def _retry_after(response: requests.Response) -> float:
    try:
        seconds = float(response.headers.get("Retry-After", 0))
    except ValueError:
        return 0.0
    return min(max(seconds, 0.0), 300.0) if math.isfinite(seconds) else 0.0


def _never_connected(error: requests.RequestException) -> bool:
    """Whether no connection was made, so that the request cannot have reached a server."""
    reason = error.args[0] if error.args else None
    if isinstance(reason, MaxRetryError):
        reason = reason.reason
    return isinstance(error, requests.ConnectTimeout) or isinstance(reason, NewConnectionError)


def _is_slow(error: requests.RequestException) -> bool:
    """Whether the body of an answer did not come in time."""
    return bool(error.args) and isinstance(error.args[0], ReadTimeoutError)


def cause_of(error: BaseException) -> str:
    """The innermost reason, without urllib3's wrapping."""
    text = str(error)
    for mark in ("[Errno", "Read timed out", "Remote end closed", "Name or service"):
        if mark in text:
            found = text[text.index(mark) :].rstrip(")'\"")
            return found.split("] ", 1)[-1] if mark == "[Errno" else found
    return text.split(": ", 1)[-1] if len(text) > 200 else text


def no_answer(error: TooLargeError | requests.RequestException, endpoint: str, where: str) -> HpcAgentError:
    """The error for a request whose answer did not come, or not as a whole."""
    if isinstance(error, TooLargeError):
        return ServerUnreachableError(
            f"the answer of {where} to {endpoint} is larger than {LARGEST_BYTES >> 20} MiB and was not read; is it "
            "the API server?"
        )
    if isinstance(error, requests.exceptions.SSLError):
        return ConfigError(
            f"the certificate of {where} was not accepted ({cause_of(error)}); set api.verify_certificate to your CA "
            "bundle"
        )
    if not isinstance(error, requests.ConnectionError):  # of which ConnectTimeout is one
        return ServerUnreachableError(f"the ClearML server at {where} gave no answer to {endpoint}: {cause_of(error)}")
    if _is_slow(error):
        return ServerUnreachableError(
            f"the ClearML server at {where} began to answer {endpoint} and did not finish in time; check the proxies "
            "and the network before it"
        )
    return ServerUnreachableError(
        f"the ClearML server at {where} cannot be reached for {endpoint}: {cause_of(error)}; check api.api_server and "
        "the network",
        uncertain=not _never_connected(error),
    )


def rows(answer: Mapping[str, Any], name: str, *, optional: bool = False) -> list[dict[str, Any]]:
    """The objects of a list in an answer; other values in it are ignored. ``optional``: a missing list is empty.

    Raises:
        ServerUnreachableError: the list is missing.
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
    """An integer of an answer: a count, or milliseconds. A missing one is 0.

    Raises:
        ServerUnreachableError: the value is not a number.
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
