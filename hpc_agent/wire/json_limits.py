"""How many values a JSON text holds, before it is made into objects: 64 MiB of empty lists become 1.5 GB of them."""

from __future__ import annotations

_MARKS = (b",", b"[", b"{")
"""Each value but the first has one of these before it."""


def has_more_values(body: bytes, most: int) -> bool:
    """Whether the text holds more than ``most`` values, keys of objects not counted; in time that grows with its size
    only, whatever it is."""
    if sum(map(body.count, _MARKS)) <= most:
        return False
    # Within texts, of a console or a diff, the marks mean nothing. Escapes go first, so that quotes are texts' ends.
    plain = body.replace(b"\\\\", b"").replace(b'\\"', b"")
    if plain.count(b'"') > 4 * most:
        return True
    outside = b"".join(plain.split(b'"')[::2])
    return sum(map(outside.count, _MARKS)) > most
