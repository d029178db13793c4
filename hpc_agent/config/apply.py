"""The sections ``environment`` and ``files`` of clearml.conf: variables to export and files to write.

See docs/internals/clearml-protocol.md#configuration-files.

A daemon's jobs read the daemon's configuration, so both hold on the nodes too.
"""

from __future__ import annotations

import base64
import binascii
import json
import os
import re
from collections.abc import Callable, Mapping, MutableMapping
from pathlib import Path
from typing import Any

import msgspec

from hpc_agent.config.load import Configuration
from hpc_agent.config.types import parse_truth
from hpc_agent.errors import ConfigError
from hpc_agent.file_records import ensure_directory, write_atomic

_PRIVATE = 0o600
"""Contents of a configuration object are hidden: they may be a secret."""


def apply_environment(configuration: Configuration, environ: MutableMapping[str, str]) -> None:
    """Set in ``environ`` what the section ``environment`` holds, also over what is there."""
    if not configuration.settings.agent.apply_environment:
        return
    for name, value in _pairs(configuration, "environment").items():
        environ[name] = "" if value is None else str(value)


def apply_files(configuration: Configuration, warn: Callable[[str], None]) -> None:
    """Write what the section ``files`` describes, where it is not so already. A file that cannot be written here is
    ``warn`` ed of, not fatal: a node need not have every folder.

    Raises:
        ConfigError: a file is described wrongly.
    """
    if not configuration.settings.agent.apply_files:
        return
    for name, described in _pairs(configuration, "files").items():
        file = _file(name, described)
        try:
            file.write()
        except OSError as error:
            warn(f"the configuration's file {name} cannot be written: {error}")


def _pairs(configuration: Configuration, section: str) -> Mapping[str, Any]:
    held = configuration.tree.get(section) or {}
    if isinstance(held, list) and all(isinstance(pair, list) and len(pair) == 2 for pair in held):
        held = {str(name): value for name, value in held}
    if not isinstance(held, dict):
        # Not shown: it may hold a secret.
        raise ConfigError(f"{section} is a {type(held).__name__}, expected a section {{ … }}")
    return held


class _File(msgspec.Struct, frozen=True):
    path: Path
    content: bytes
    overwrite: bool
    mode: int | None

    def write(self) -> None:
        if self.path.is_dir() or (self.path.exists() and not self.overwrite):
            return
        if not (self.path.is_file() and self.path.read_bytes() == self.content):
            ensure_directory(self.path.parent)
            write_atomic(self.path, self.content, mode=_PRIVATE)
        if self.mode is not None:
            self.path.chmod(self.mode)


def _file(name: str, described: Any) -> _File:
    if not isinstance(described, dict) or not described.get("path"):
        raise ConfigError(f"files.{name} says no path: expected {{ path: …, contents: … }}")
    try:
        mode = described.get("mode")
        return _File(
            path=Path(os.path.expandvars(str(described["path"]))).expanduser(),
            content=_content(described),
            overwrite=bool(parse_truth(str(described.get("overwrite", True)))),
            mode=_mode(name, mode),
        )
    except (ValueError, binascii.Error) as error:
        raise ConfigError(f"files.{name} cannot be understood: its contents are not base64 of UTF-8 text") from error


def _mode(name: str, mode: object) -> int | None:
    text = "" if mode is None else str(mode)
    if text.strip() in ("", "0"):
        return None
    if not re.fullmatch(r"(0o)?[0-7]{1,4}", text.strip()):
        raise ConfigError(f'files.{name} cannot be understood: its mode is none, expected octal digits such as "0600"')
    return int(text, 8)


def _content(described: Mapping[str, Any]) -> bytes:
    contents, kind = described.get("contents"), str(described.get("target_format") or "string")
    if contents and str(described.get("format") or "string") == "base64":
        contents = base64.b64decode(str(contents), validate=True)
        if kind == "bytes":
            return contents
        contents = contents.decode()
    if kind == "json":
        return json.dumps(contents, indent=2).encode()
    if kind in ("yaml", "yml"):
        return _yaml(contents).encode()
    return str("" if contents is None else contents).encode()


def _yaml(contents: Any) -> str:
    from pyhocon import ConfigFactory, HOCONConverter

    return str(HOCONConverter.to_yaml(ConfigFactory.from_dict({"root": contents})["root"]))
