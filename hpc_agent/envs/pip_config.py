"""Package indexes as a site describes them to pip: ``PIP_*`` variables and pip.conf, for installers that read neither.

Clusters often have a wheelhouse of their own that is only named there.
"""

from __future__ import annotations

import configparser
import os
from collections.abc import Mapping
from pathlib import Path

import msgspec

from hpc_agent.config.types import parse_truth

_OPTIONS = ("index-url", "extra-index-url", "find-links", "no-index")


class SiteIndexes(msgspec.Struct, frozen=True):
    """Indexes of a site. ``lines``: requirement lines such as ``--extra-index-url URL``; ``environ``: variables for
    uv."""

    lines: tuple[str, ...] = ()
    environ: Mapping[str, str] = msgspec.field(default_factory=dict)

    @property
    def folders(self) -> list[str]:
        """Folders of this machine that hold packages."""
        places = [line.removeprefix("--find-links ") for line in self.lines if line.startswith("--find-links ")]
        return [place for place in places if os.path.isdir(place)]  # noqa: PTH112 (a URL as well)


def load(environ: Mapping[str, str] = os.environ) -> SiteIndexes:
    """The indexes that pip would use in this environment; none where uv's own variables name indexes."""
    if any(environ.get(name) for name in ("UV_INDEX", "UV_DEFAULT_INDEX", "UV_INDEX_URL", "UV_CONFIG_FILE")):
        return SiteIndexes()
    return as_indexes(_values(environ))


def as_indexes(values: Mapping[str, str]) -> SiteIndexes:
    """Indexes from ``values`` by pip's option names; white space separates several values of one option."""
    lines = []
    for name in _OPTIONS:
        value = values.get(name, "")
        if name == "no-index":
            lines += ["--no-index"] if parse_truth(value) else []
        else:
            lines += [f"--{name} {item}" for item in value.split()]
    extra = {}
    if hosts := values.get("trusted-host", "").split():
        extra["UV_INSECURE_HOST"] = " ".join(hosts)
    if certificate := values.get("cert"):
        extra["SSL_CERT_FILE"] = certificate
    return SiteIndexes(tuple(lines), extra)


def _values(environ: Mapping[str, str]) -> dict[str, str]:
    """pip's options, later places first: variables, then PIP_CONFIG_FILE, the user's files, the system's."""
    values: dict[str, str] = {}
    for path in _files(environ):
        values |= _read(path)
    for name, value in environ.items():
        if name.startswith("PIP_") and value:
            values[name.removeprefix("PIP_").lower().replace("_", "-")] = value
    return values


def _files(environ: Mapping[str, str]) -> list[Path]:
    if environ.get("PIP_CONFIG_FILE") == os.devnull:
        return []
    home = Path(environ.get("HOME") or Path.home())
    config = Path(environ.get("XDG_CONFIG_HOME") or home / ".config")
    system = [Path(folder) for folder in (environ.get("XDG_CONFIG_DIRS") or "/etc/xdg").split(":") if folder]
    found = [*(folder / "pip" / "pip.conf" for folder in system), Path("/etc/pip.conf")]
    found += [home / ".pip" / "pip.conf", config / "pip" / "pip.conf"]
    if named := environ.get("PIP_CONFIG_FILE"):
        found.append(Path(named))
    return found


def _read(path: Path) -> dict[str, str]:
    parser = configparser.RawConfigParser(strict=False)
    try:
        parser.read(path, encoding="utf-8")
    except (configparser.Error, UnicodeDecodeError):
        return {}  # pip itself reports what is wrong with it
    return {
        name: value
        for section in ("global", "install")
        if parser.has_section(section)
        for name, value in parser.items(section)
    }
