"""What an action raises to answer with an error."""

from __future__ import annotations

from typing import Any

from hpc_agent.errors import HpcAgentError
from hpc_agent.wire.errors import VALIDATION_ERROR, ErrorKind


class Fault(HpcAgentError):
    """Answers the call with ``kind``; ``data`` names the object it is about (``error_data`` of the envelope)."""

    def __init__(self, kind: ErrorKind, detail: str = "", **data: Any) -> None:
        shown = ", ".join(f"{key}={value}" for key, value in data.items())
        super().__init__(": ".join(part for part in (kind.text, detail, shown) if part))
        self.kind = kind
        self.data = data


def invalid(detail: str, **data: Any) -> Fault:
    """400/12 with a sentence."""
    return Fault(VALIDATION_ERROR, detail, **data)
