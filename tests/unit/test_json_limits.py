"""How many values a JSON text holds, counted without making objects of it."""

from __future__ import annotations

import json

import pytest

from hpc_agent.wire.envelope import has_more_values


def values(count: int) -> bytes:
    return json.dumps({"a": list(range(count - 2))}).encode()


def test_values_are_counted_and_keys_are_not() -> None:
    assert not has_more_values(values(100), 100)
    assert has_more_values(values(103), 100)
    assert has_more_values(b"[" * 101, 100)


@pytest.mark.parametrize("text", ["[{," * 500, 'a "quoted, [text" ,' * 100, "\\," * 500, '\\"' * 500 + "," * 500])
def test_the_contents_of_a_text_are_not_values(text: str) -> None:
    assert not has_more_values(json.dumps({"a": text, "b, [": [text]}).encode(), 100)


def test_texts_count_too() -> None:
    assert has_more_values(json.dumps(["x"] * 500).encode(), 100)


@pytest.mark.parametrize(
    ("body", "many"),
    [
        (b'"' + b'\\",' * 500_000, False),  # one text that does not end
        (b'",' * 500_000, True),
        (b"\\" * 500_001 + b'"', False),
        (b"\xff," * 500_000, True),
    ],
)
def test_what_is_not_json_is_counted_too(body: bytes, many: bool) -> None:
    assert has_more_values(body, 100) is many
