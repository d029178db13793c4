"""Logging for the person at 3 a.m.: one event a line, the same keys everywhere (``task= job= attempt=``)."""

from __future__ import annotations

import logging
from pathlib import Path

_ROOT = "hpc_agent"


class EventLog:
    """A logger whose lines are an event and its keys: ``submitted task=… job=…``."""

    def __init__(self, name: str) -> None:
        self._logger = logging.getLogger(f"{_ROOT}.{name}")

    def debug(self, event: str, **keys: object) -> None:
        self._log(logging.DEBUG, event, keys)

    def info(self, event: str, **keys: object) -> None:
        self._log(logging.INFO, event, keys)

    def warning(self, event: str, **keys: object) -> None:
        self._log(logging.WARNING, event, keys)

    def error(self, event: str, *, trace: bool = False, **keys: object) -> None:
        self._log(logging.ERROR, event, keys, trace=trace)

    def _log(self, level: int, event: str, keys: dict[str, object], *, trace: bool = False) -> None:
        if self._logger.isEnabledFor(level):
            self._logger.log(
                level, "%s", " ".join([event, *(f"{k}={_value(v)}" for k, v in keys.items())]), exc_info=trace
            )


def _value(value: object) -> str:
    text = str(value)
    return repr(text) if not text or any(c in text for c in ' "\n') else text


def configure(level: str, file: Path | None = None) -> None:
    """Send our log to stderr, or append it to ``file``, from ``level`` (a name of the logging module) upwards."""
    handler: logging.Handler = logging.StreamHandler()
    if file:
        handler = logging.FileHandler(file, encoding="utf-8", errors="backslashreplace")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s", "%Y-%m-%dT%H:%M:%S"))
    logger = logging.getLogger(_ROOT)
    logger.handlers[:] = [handler]
    logger.setLevel("WARNING" if level == "WARN" else level)
    logger.propagate = False
