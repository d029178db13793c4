"""Request parsing: the bytes of a client → the typed request of an action, or an ApiFault."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl

import msgspec

from hpc_agent.server.action import Batch, Endpoint, Json
from hpc_agent.server.api_fault import ApiFault, invalid
from hpc_agent.struct_types import decodable
from hpc_agent.wire.envelope import has_more_values

_DEEPEST = 100
"""Levels of a request's JSON."""
_NULLABLE = frozenset({"stats_for_state"})
"""Fields whose null is not the same as a missing field."""
_MOST_EVENTS = 100_000
"""Lines of a batch, and the values in all of them."""
_MOST_BATCHED = 10 * _MOST_EVENTS
_MOST_VALUES = 200_000
"""In a request's JSON: each becomes an object of 50 bytes and more, and is looked at a few times."""


@dataclass(frozen=True)
class IncomingRequest:
    """One HTTP request for the API, its body read."""

    action: str
    """``tasks.get_by_id``"""
    version: str = ""
    """``2.5``, empty when the client leaves it to the server."""
    query: str = ""
    body: bytes = b""
    encoded_form: bool = False
    """The body has the content type of ``a=b&c=d``."""
    form: Mapping[str, str] = field(default_factory=dict)
    worker: str = ""
    ip: str = ""
    transaction: str = ""
    """``X-ClearML-Trx``, given back in the envelope."""


def typed(incoming: IncomingRequest, endpoint: Endpoint) -> Any:
    """The request as the type that the action declares.

    Raises:
        ApiFault: 400/12 with a sentence.
    """
    if endpoint.request is Batch:
        return _lines(incoming.body)
    merged = _merged(incoming)
    if endpoint.request is Json:
        return merged
    try:
        return msgspec.convert(merged, decodable(endpoint.request), strict=False)
    except msgspec.ValidationError as error:
        raise validation_fault(error) from None


def validation_fault(error: msgspec.ValidationError) -> ApiFault:
    """msgspec's message without its notation: ``Expected str, got int, in field task``."""
    return invalid(str(error).replace("`", "").replace(" - at $.", ", in field ").replace("Object missing", "Missing"))


def _merged(incoming: IncomingRequest) -> Json:
    """JSON body, query string and form in one object; nulls are the same as missing fields, but for a few."""
    merged = {**_pairs(incoming.query), **incoming.form}
    body_text = incoming.body.strip()
    # ``curl -d '{…}'`` calls its JSON a form.
    if incoming.encoded_form and not body_text.startswith(b"{"):
        merged.update(_pairs(body_text.decode("utf-8", "replace")))
    elif body_text:
        body = decode(body_text)
        if not isinstance(body, dict):
            raise invalid("the body must be a JSON object")
        merged.update(body)
    return {name: value for name, value in merged.items() if value is not None or name in _NULLABLE}


def _pairs(text: str) -> Json:
    """``a=1&b=2&b=3`` as ``{a: "1", b: ["2", "3"]}``; the action's type makes numbers of the texts."""
    pairs: Json = {}
    try:
        listed = parse_qsl(text, keep_blank_values=True, max_num_fields=1000)
    except ValueError:
        raise invalid("too many fields in the query string") from None
    for name, value in listed:
        earlier = pairs.get(name)
        pairs[name] = value if earlier is None else [*(earlier if isinstance(earlier, list) else [earlier]), value]
    return pairs


def _lines(body: bytes) -> Batch:
    """Newline-delimited JSON. A JSON list of the same is understood too."""
    stripped = body.strip()
    if stripped.startswith(b"["):
        # As Python writes it: the other encoder has no NaN.
        return [json.dumps(item).encode() for item in decode(stripped, _MOST_BATCHED)]
    if stripped.count(b"\n") >= _MOST_EVENTS:
        raise invalid(f"a batch may have {_MOST_EVENTS} lines")
    if has_more_values(body, _MOST_BATCHED):
        raise invalid(f"the batch has more than {_MOST_BATCHED} values")
    return [line for line in stripped.split(b"\n") if line and not line.isspace()]


def decode(body: bytes, most: int = _MOST_VALUES) -> Any:
    """JSON as clients really send it: also with NaN and with halves of surrogate pairs (Python's json writes both).

    Raises:
        ApiFault: not JSON, too many values, or nested so deeply that it could be stored but not read again.
    """
    if has_more_values(body, most):
        raise invalid(f"the JSON has more than {most} values")
    value = _decode(body)
    # Counted first, which is quick: most bodies have fewer brackets in all.
    if body.count(b"{") + body.count(b"[") > _DEEPEST and _deeper_than(_DEEPEST, value):
        raise invalid(f"the JSON is nested too deeply, {_DEEPEST} levels are the most")
    return value


def _deeper_than(levels: int, value: Any) -> bool:
    """Level by level, not by recursion, whose depth is what is in question."""
    level = [value]
    for _ in range(levels + 1):
        inner = [item for item in level if isinstance(item, (dict, list))]
        if not inner:
            return False
        level = [item for outer in inner for item in (outer.values() if isinstance(outer, dict) else outer)]
    return True


def _decode(body: bytes) -> Any:
    try:
        return msgspec.json.decode(body)
    except msgspec.DecodeError:
        pass
    except RecursionError:
        raise invalid("the JSON is nested too deeply") from None
    try:
        return _without_surrogates(json.loads(body))
    except (ValueError, UnicodeDecodeError) as error:
        raise invalid(f"the body is not JSON ({error})") from None
    except RecursionError:
        raise invalid("the JSON is nested too deeply") from None


def _without_surrogates(value: Any) -> Any:
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode()
    if isinstance(value, list):
        return [_without_surrogates(item) for item in value]
    if isinstance(value, dict):
        return {_without_surrogates(key): _without_surrogates(item) for key, item in value.items()}
    return value
