"""Structured event log: one line per event, as text (``task.submitted task=… job=…``) or as JSON (``--log-format``).

An event has a stable name, ``<subject>.<what happened>`` in lower case, that scripts may search for; everything that
varies is a key. Keys have the same names everywhere: ``task``, ``job``, ``attempt``, ``queue``, ``error``, ``reason``.
"""

from __future__ import annotations

import json
import logging
from datetime import datetime, timezone
from pathlib import Path
from typing import Literal

LogFormat = Literal["text", "json"]

_ROOT = "hpc_agent"
_KEYS = "event_keys"
"""Attribute of a log record with the event's keys; set with the standard library's ``extra``."""


class EventLog:
    """Logger of events. ``name`` is the part of the program; it selects the logger ``hpc_agent.<name>``.

    Keys must not be called ``time``, ``level`` or ``exception``, which JSON lines use themselves.
    """

    def __init__(self, name: str) -> None:
        self._logger = logging.getLogger(f"{_ROOT}.{name}")

    def debug(self, event: str, **keys: object) -> None:
        self._log(logging.DEBUG, event, keys)

    def info(self, event: str, **keys: object) -> None:
        self._log(logging.INFO, event, keys)

    def warning(self, event: str, **keys: object) -> None:
        self._log(logging.WARNING, event, keys)

    def error(self, event: str, *, trace: bool = False, **keys: object) -> None:
        """``trace`` adds the traceback of the exception that is being handled."""
        self._log(logging.ERROR, event, keys, trace=trace)

    def _log(self, level: int, event: str, keys: dict[str, object], *, trace: bool = False) -> None:
        self._logger.log(level, event, extra={_KEYS: keys}, exc_info=trace)


class _TextFormatter(logging.Formatter):
    """``2026-01-31T12:00:00 INFO task.submitted task=… job=…``, local time; a traceback follows on its own lines."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(message)s", "%Y-%m-%dT%H:%M:%S")

    def formatMessage(self, record: logging.LogRecord) -> str:  # the standard library's name
        return " ".join([super().formatMessage(record), *(f"{k}={_text(v)}" for k, v in _keys(record).items())])


class _JsonFormatter(logging.Formatter):
    """``{"time": "…Z", "level": "INFO", "event": "task.submitted", "task": "…"}``: UTC; keys on the level of the
    event."""

    def format(self, record: logging.LogRecord) -> str:
        time = datetime.fromtimestamp(record.created, timezone.utc).isoformat(timespec="milliseconds")
        line: dict[str, object] = {
            "time": time.replace("+00:00", "Z"),
            "level": record.levelname,
            "event": record.getMessage(),
            **_keys(record),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        # Escaped: a name that is not UTF-8 is a lone surrogate, which only ASCII can carry.
        return json.dumps(line, default=str, ensure_ascii=True)


def _keys(record: logging.LogRecord) -> dict[str, object]:
    keys = getattr(record, _KEYS, {})
    return keys if isinstance(keys, dict) else {}


def _text(value: object) -> str:
    text = str(value)
    return repr(text) if not text or any(c in text for c in ' "\n') else text


def configure(level: str, file: Path | None = None, log_format: LogFormat = "text") -> None:
    """Write the log to stderr, or append it to ``file``, from ``level`` (a name of the logging module) upwards."""
    handler: logging.Handler = logging.StreamHandler()
    if file:
        handler = logging.FileHandler(file, encoding="utf-8", errors="backslashreplace")
    handler.setFormatter(_JsonFormatter() if log_format == "json" else _TextFormatter())
    logger = logging.getLogger(_ROOT)
    logger.handlers[:] = [handler]
    logger.setLevel("WARNING" if level == "WARN" else level)
    logger.propagate = False
