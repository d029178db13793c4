"""``ApiFault``: what an action raises to answer with an error."""

from __future__ import annotations

import re
from typing import Any

from hpc_agent.errors import HpcAgentError
from hpc_agent.wire.error_kinds import VALIDATION_ERROR, ErrorKind

_CONTROLS = re.compile(r"[\x00-\x1f\x7f-\x9f]")


class ApiFault(HpcAgentError):
    """Answers the call with ``kind``; ``data`` names the object it is about (``error_data`` of the envelope)."""

    def __init__(self, kind: ErrorKind, detail: str = "", **data: Any) -> None:
        shown = ", ".join(f"{key}={value}" for key, value in data.items())
        super().__init__(": ".join(part for part in (kind.text, detail, shown) if part))
        self.kind = kind
        self.data = data


def invalid(detail: str, **data: Any) -> ApiFault:
    """400/12 with a sentence."""
    return ApiFault(VALIDATION_ERROR, detail, **data)


def refuse_control_characters(text: str, field: str) -> None:
    """
    Raises:
        ApiFault: 400/12, the text has line breaks or escape sequences, which would reach the terminals of others.
    """
    if _CONTROLS.search(text):
        raise invalid("line breaks and control characters are not allowed", field=field)
