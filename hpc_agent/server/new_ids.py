"""New identifiers of documents."""

from __future__ import annotations

import uuid


def new_id() -> str:
    """32 hexadecimal digits."""
    return uuid.uuid4().hex
