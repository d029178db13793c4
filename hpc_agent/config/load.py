"""Settings from their places: defaults ← clearml.conf ← environment ← flags; each value remembers its origin."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import msgspec

from hpc_agent.config import names
from hpc_agent.config.build import build_group
from hpc_agent.config.settings import (
    AgentSettings,
    AllSettings,
    ApiSettings,
    DockerSettings,
    GitSettings,
    HpcSettings,
    PackageSettings,
    Settings,
)
from hpc_agent.config.tree import Tree, flatten, get, merge, put
from hpc_agent.errors import ConfigError

DEFAULT_FILES = ("~/trains.conf", "~/clearml.conf")


@dataclass(frozen=True)
class Layer:
    """One source of values. ``name`` is what an error message calls it."""

    name: str
    tree: Tree


@dataclass(frozen=True)
class Configuration:
    """Everything that was read. ``tree`` holds all of clearml.conf, also what we do not read (``sdk``)."""

    settings: AllSettings
    tree: Tree
    origins: Mapping[str, str]
    """Dotted key → the file, variable or flag that set it."""
    files: tuple[Path, ...]


def load(
    config_file: Path | None = None,
    environ: Mapping[str, str] = os.environ,
    flags: Mapping[str, object] | None = None,
) -> Configuration:
    """Read the configuration. ``flags`` are dotted keys (``agent.git_user``) set on the command line.

    Raises:
        ConfigError: a named file is missing, a file cannot be parsed, a value has the wrong type, or a key under
            ``hpc`` is unknown. The message names file, key and what was expected.
    """
    files = _files(config_file, environ)
    layers = [Layer(str(path), _parse_file(path)) for path in files]
    layers += _environment_layers(environ)
    if flags:
        layers.append(Layer("the command line", _nested(flags)))
    tree: Tree = {}
    origins: dict[str, str] = {}
    for layer in layers:
        merge(tree, layer.tree)
        origins.update(dict.fromkeys(flatten(layer.tree), layer.name))
    return Configuration(_settings(tree, origins), tree, origins, tuple(files))


def _files(config_file: Path | None, environ: Mapping[str, str]) -> list[Path]:
    named = config_file or _path(environ.get("CLEARML_CONFIG_FILE") or environ.get("TRAINS_CONFIG_FILE"))
    if named is not None:
        named = named.expanduser()
        if not named.is_file():
            raise ConfigError(
                f"the configuration file {named} does not exist; check --config-file or CLEARML_CONFIG_FILE"
            )
        return [named]
    return [path for path in (Path(name).expanduser() for name in DEFAULT_FILES) if path.is_file()]


def _path(text: str | None) -> Path | None:
    return Path(text) if text else None


def _parse_file(path: Path) -> Tree:
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"the configuration file {path} cannot be read: {error}") from error
    return _parse(text, str(path), base=path.parent)


def _parse(text: str, source: str, base: Path | None = None) -> Tree:
    # The file that a daemon writes for its jobs is JSON, which is HOCON: 80 ms sooner than pyhocon is imported.
    if text.lstrip().startswith("{"):
        try:
            plain = json.loads(text)
        except json.JSONDecodeError:
            pass
        else:
            return plain if isinstance(plain, dict) else {}
    from pyhocon import ConfigFactory
    from pyhocon.exceptions import ConfigException
    from pyparsing.exceptions import ParseBaseException

    try:
        tree = ConfigFactory.parse_string(text, basedir=str(base) if base else None)
        plain = json.loads(json.dumps(tree.as_plain_ordered_dict(), default=str))
    except ParseBaseException as error:
        raise ConfigError(
            f"{source} is not valid HOCON: line {error.lineno}, column {error.column}: {error.line.strip()}"
        ) from error
    except (ConfigException, AttributeError, OSError) as error:
        raise ConfigError(f"{source} is not valid HOCON: {error}") from error
    return plain if isinstance(plain, dict) else {}


def _environment_layers(environ: Mapping[str, str]) -> list[Layer]:
    layers = []
    for variable in sorted(environ):
        for prefix in names.DOTTED_PREFIXES:
            if variable.startswith(prefix) and environ[variable]:
                key = variable[len(prefix) :].lower().replace("__", ".")
                value = get(_parse(f"value = {environ[variable]}", f"the variable {variable}"), "value")
                layers.append(Layer(f"the variable {variable}", _nested({key: value})))
    for suffix, key in names.ENVIRONMENT.items():
        for prefix in names.PREFIXES:
            if environ.get(prefix + suffix):
                layers.append(Layer(f"the variable {prefix}{suffix}", _nested({key: environ[prefix + suffix]})))
    return layers


def _nested(values: Mapping[str, object]) -> Tree:
    tree: Tree = {}
    for key, value in values.items():
        put(tree, key, value)
    return tree


def _settings(tree: Tree, origins: Mapping[str, str]) -> AllSettings:
    def known(group: str, cls: type[Settings]) -> dict[str, Any]:
        """The values of the keys we know in a section that is ClearML's, by our field names."""
        found = {field: get(tree, names.conf_path(group, field)) for field in cls.__struct_fields__}
        return {field: value for field, value in found.items() if value is not None}

    def group(name: str, cls: type[Settings], values: object) -> Any:
        return build_group(cls, values, lambda field: names.conf_path(name, field), origins)

    api_values = known("api", ApiSettings)
    api_values.setdefault("api_server", get(tree, "api.host") or "")
    return AllSettings(
        api=_with_derived_urls(group("api", ApiSettings, api_values)),
        agent=group("agent", AgentSettings, known("agent", AgentSettings)),
        git=group("git", GitSettings, known("git", GitSettings)),
        packages=group("packages", PackageSettings, known("packages", PackageSettings)),
        docker=group("docker", DockerSettings, known("docker", DockerSettings)),
        hpc=group("hpc", HpcSettings, get(tree, "hpc") or {}),
    )


def _with_derived_urls(api: ApiSettings) -> ApiSettings:
    """Web and file server next to the API server, as ClearML's own clients guess them (wire.md 2.1)."""
    if not api.api_server:
        return api
    parts = urlsplit(api.api_server)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ConfigError(f'api.api_server is "{api.api_server}", expected a URL such as https://api.clear.ml')

    def sibling(prefix: str, port: int) -> str:
        netloc = parts.netloc
        if netloc.startswith("api."):
            netloc = prefix + netloc[len("api.") :]
        elif parts.port == 8008:
            netloc = f"{netloc.rpartition(':')[0]}:{port}"
        return urlunsplit((parts.scheme, netloc, "", "", ""))

    return msgspec.structs.replace(
        api,
        api_server=api.api_server.rstrip("/"),
        web_server=(api.web_server or sibling("app.", 8080)).rstrip("/"),
        files_server=(api.files_server or sibling("files.", 8081)).rstrip("/"),
    )
