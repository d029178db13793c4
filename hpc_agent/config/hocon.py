"""HOCON text → nested dictionaries. What cannot be read names its file, and an include its own."""

from __future__ import annotations

import json
import logging
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hpc_agent.config.tree import Tree
from hpc_agent.errors import ConfigError


def parse(text: str, source: str, base: Path | None = None) -> Tree:
    """
    ``source`` is what a message calls the text, ``base`` the folder that its includes are relative to.

    Raises:
        ConfigError: it is not HOCON, not a section, or includes a file that is not there.
    """
    if text.lstrip().startswith("{"):
        try:
            # What a daemon writes for its jobs is JSON, which is HOCON: 80 ms sooner than pyhocon is imported.
            return _section(json.loads(text), source)
        except json.JSONDecodeError:
            pass
    return _section(_parse(text, source, base), source)


def _parse(text: str, source: str, base: Path | None) -> Any:
    from pyhocon import ConfigFactory, ConfigTree
    from pyhocon.exceptions import ConfigException
    from pyparsing.exceptions import ParseBaseException

    try:
        with _missing_includes() as missing:
            tree = ConfigFactory.parse_string(text, basedir=str(base) if base else None)
        if missing:
            raise ConfigError(f"{source} includes {missing[0]}, which does not exist or cannot be read")
        return json.loads(json.dumps(tree.as_plain_ordered_dict() if isinstance(tree, ConfigTree) else [], default=str))
    except ParseBaseException as error:
        raise ConfigError(
            f"{source} is not valid HOCON: line {error.lineno}, column {error.column} cannot be understood (it is not "
            "shown: it may hold a secret); a text with quotes, # or brackets in it needs double quotes, in which "
            '" is written \\" and a backslash \\\\'
        ) from None
    except RecursionError as error:
        raise ConfigError(f"{source} is nested without end: does it include itself?") from error
    except OSError as error:
        raise ConfigError(f"{source} includes a file that cannot be read: {error.strerror}") from error
    except (ConfigException, AttributeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{source} is not valid HOCON: {_without_values(error)}") from None


def _without_values(error: Exception) -> str:
    """What pyhocon says, without the values that it says it of: any of them may be a secret."""
    text = str(error)
    variable = re.match(r"Cannot resolve variable \$\{[\w.?-]*\}", text)
    what = variable[0] if variable else "values that do not go together, such as a text and a list, are joined"
    place = re.search(r"\(line: (\d+), col: (\d+)\)", text)
    return f"{what} (line {place[1]}, column {place[2]})" if place else what


def _section(value: Any, source: str) -> Tree:
    if isinstance(value, dict):
        return value
    raise ConfigError(f"{source} holds a list, expected sections such as api {{ … }}")


@contextmanager
def _missing_includes() -> Iterator[list[str]]:
    """Collects the files to be included that are not there: pyhocon only logs that, and goes on without them."""
    paths: list[str] = []

    def collect(record: logging.LogRecord) -> bool:
        missing = str(record.msg).startswith("Cannot include file")
        if missing and isinstance(record.args, tuple):
            paths.append(str(record.args[0]))
        return not missing

    log = logging.getLogger("pyhocon.config_parser")
    log.addFilter(collect)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # it calls Logger.warn
            yield paths
    finally:
        log.removeFilter(collect)
