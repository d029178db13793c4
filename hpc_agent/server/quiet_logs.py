"""Log lines that strangers can cause are written once a minute, however often they are caused."""

from __future__ import annotations

import logging

_LOGGERS = ("asyncio", "uvicorn.error", "python_multipart.multipart")
_SECONDS = 60.0
_MOST_KINDS = 1000


class OncePerMinute(logging.Filter):
    """Lets a line pass unless the same place wrote one that begins alike within the last minute."""

    def __init__(self) -> None:
        super().__init__()
        self._written: dict[tuple[str, int, str], float] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        kind = (record.pathname, record.lineno, record.getMessage()[:40])
        if record.created - self._written.get(kind, -_SECONDS) < _SECONDS:
            return False
        if len(self._written) >= _MOST_KINDS:
            self._written.clear()
        self._written[kind] = record.created
        return True


def quieten() -> None:
    """For the libraries that speak with clients."""
    for name in _LOGGERS:
        logging.getLogger(name).addFilter(OncePerMinute())
