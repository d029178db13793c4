"""Settings from their places: defaults ← site file ← clearml.conf ← environment ← flags, each with its origin."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec

from hpc_agent.config import names
from hpc_agent.config.clearml_settings import AgentSettings, ApiSettings, DockerSettings, GitSettings, PackageSettings
from hpc_agent.config.hocon import parse
from hpc_agent.config.parse import build_group, check_section
from hpc_agent.config.servers import completed
from hpc_agent.config.settings import AllSettings, HpcSettings
from hpc_agent.config.tree import Tree, flatten, get, merge, put, remove
from hpc_agent.config.types import SettingsGroup, parse_truth
from hpc_agent.errors import ConfigError

DEFAULT_FILES = ("~/trains.conf", "~/clearml.conf")
SITE_FILE = Path("/etc/hpc-agent.conf")
"""What the administrators of a machine or a lab set for all its users; may be missing."""


class Layer(msgspec.Struct, frozen=True):
    """One source of values. ``name`` is what an error message calls it."""

    name: str
    tree: Tree


class Configuration(msgspec.Struct, frozen=True):
    """Everything that was read. ``tree`` holds all of clearml.conf, also what we do not read (``sdk``)."""

    settings: AllSettings
    tree: Tree
    origins: Mapping[str, str]
    """Dotted key → the file, variable or flag that set it."""
    files: tuple[Path, ...]
    notes: tuple[str, ...] = ()
    """What its author should change, a sentence each."""


def load(
    config_file: Path | None = None,
    environ: Mapping[str, str] = os.environ,
    flags: Mapping[str, object] | None = None,
) -> Configuration:
    """Read the configuration. ``flags`` are dotted keys (``agent.git_user``) set on the command line.

    Raises:
        ConfigError: a named file is missing, a file cannot be parsed, a value has the wrong type, or a key under
            ``hpc`` is unknown. The message names file, key and what was expected. Or there is no home folder.
    """
    _check_home()
    own = [Layer(str(path), _parse_file(path)) for path in _files(config_file, environ)]
    # What a daemon wrote for its jobs holds the site's values as the daemon read them.
    resolved = any(get(layer.tree, names.RESOLVED) for layer in own)
    site = [] if resolved else [Layer(str(path), _parse_file(path)) for path in _site_files(environ)]
    files = [Path(layer.name) for layer in (*site, *own)]
    # A list is one value: that of the variables would take the place of all that a file has.
    layers = [*_azure_layers(environ), *site, *own]
    layers += _environment_layers(environ)
    if flags:
        layers.append(Layer("the command line", _nested(flags)))
    tree: Tree = {}
    origins: dict[str, str] = {}
    notes = [note for layer in layers for note in _rename_keys(layer)]
    for layer in layers:
        merge(tree, layer.tree)
        origins.update(dict.fromkeys(flatten(layer.tree), layer.name))
    for theirs, ours in names.ALIASES.items():
        if get(tree, ours) is None and (value := get(tree, theirs)) is not None:
            put(tree, ours, value)
            origins |= {
                key.replace(theirs, ours, 1): origin for key, origin in origins.items() if key.startswith(theirs)
            }
    return Configuration(_settings(tree, origins), tree, origins, tuple(files), tuple(notes))


def _rename_keys(layer: Layer) -> Iterator[str]:
    """Move the values of old keys to today's, unless the same layer has both; a note for each."""
    for old, new in names.RENAMED.items():
        value = remove(layer.tree, old)
        if value is None:
            continue
        if get(layer.tree, new) is None:
            put(layer.tree, new, value)
        yield f"{old} is now {new}: rename it in {layer.name}"


def _check_home() -> None:
    """Many a default lies there."""
    try:
        Path.home()
    except RuntimeError:
        user = f"user {os.getuid()}" if hasattr(os, "getuid") else "this user"
        raise ConfigError(
            f"HOME is not set, and the password file has no line for {user}: where is the home folder? Set HOME"
        ) from None


def _site_files(environ: Mapping[str, str]) -> list[Path]:
    named = _path(environ.get(names.SITE_VARIABLE))
    if named is None:
        return [SITE_FILE] if SITE_FILE.is_file() else []
    named = named.expanduser()
    if named.is_dir() or not named.exists():
        what = "is a folder" if named.is_dir() else "does not exist"
        raise ConfigError(f"the site's configuration file {named} {what}; check {names.SITE_VARIABLE}")
    return [named]


def _files(config_file: Path | None, environ: Mapping[str, str]) -> list[Path]:
    named = config_file or _path(environ.get("CLEARML_CONFIG_FILE") or environ.get("TRAINS_CONFIG_FILE"))
    if named is not None:
        named = named.expanduser()
        if not named.is_file():
            what = "is a folder" if named.is_dir() else "does not exist"
            raise ConfigError(f"the configuration file {named} {what}; check --config-file or CLEARML_CONFIG_FILE")
        return [named]
    return [path for path in (Path(name).expanduser() for name in DEFAULT_FILES) if path.is_file()]


def _path(text: str | None) -> Path | None:
    return Path(text) if text else None


def _parse_file(path: Path) -> Tree:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise ConfigError(f"the configuration file {path} cannot be read: {reason}") from error
    return parse(text, str(path), base=path.parent)


def _environment_layers(environ: Mapping[str, str]) -> list[Layer]:
    layers = []
    for variable in sorted(environ):
        for prefix in names.DOTTED_PREFIXES:
            if variable.startswith(prefix) and environ[variable]:
                key = variable[len(prefix) :].lower().replace("__", ".")
                value = get(parse(f"value = {environ[variable]}", f"the variable {variable}"), "value")
                layers.append(Layer(f"the variable {variable}", _nested({key: value})))
    for prefix in names.PREFIXES:
        for suffix in (*names.ENVIRONMENT, *names.SWITCHES):
            if text := environ.get(prefix + suffix):
                layers.append(Layer(f"the variable {prefix}{suffix}", _nested(_said(suffix, text))))
    for variable in names.CARRIED:
        text = environ.get(variable)
        if text and _holds_credential(text):
            layers.append(Layer(f"the variable {variable}", _nested({f"{names.JOB_ENVIRONMENT}.{variable}": text})))
    for variable, key in names.FOREIGN.items():
        if text := environ.get(variable):
            layers.append(Layer(f"the variable {variable}", _nested({key: text})))
    return layers


def _azure_layers(environ: Mapping[str, str]) -> list[Layer]:
    account, secret = map(environ.get, names.AZURE)
    if not (account and secret):
        return []
    containers = [{"account_name": account, "account_key": secret}]
    return [Layer(f"the variables {' and '.join(names.AZURE)}", _nested({names.AZURE_KEY: containers}))]


def _said(suffix: str, text: str) -> Mapping[str, object]:
    """The key that a variable sets, and its value."""
    if suffix in names.SWITCHES:
        key, value = names.SWITCHES[suffix]
        return {key: value} if parse_truth(text) else {}
    return {names.ENVIRONMENT[suffix]: shlex.split(text) if suffix in names.LISTS else text}


def _nested(values: Mapping[str, object]) -> Tree:
    tree: Tree = {}
    for key, value in values.items():
        put(tree, key, value)
    return tree


def _settings(tree: Tree, origins: Mapping[str, str]) -> AllSettings:
    def known(group: str, cls: type[SettingsGroup]) -> dict[str, Any]:
        """The values of the keys we know in a section that is ClearML's, by our field names."""
        paths = {field: names.conf_path(group, field) for field in cls.__struct_fields__}
        for path in paths.values():
            _check_sections_above(path, tree, origins)
        found = {field: get(tree, path) for field, path in paths.items()}
        return {field: value for field, value in found.items() if value is not None}

    def group(name: str, cls: type[SettingsGroup], values: object) -> Any:
        return build_group(cls, values, lambda field: names.conf_path(name, field), origins)

    api_values = known("api", ApiSettings)
    api_values.setdefault("api_server", get(tree, "api.host") or "")
    return AllSettings(
        api=completed(group("api", ApiSettings, api_values), origins),
        agent=group("agent", AgentSettings, known("agent", AgentSettings)),
        git=group("git", GitSettings, known("git", GitSettings)),
        packages=group("packages", PackageSettings, known("packages", PackageSettings)),
        docker=group("docker", DockerSettings, known("docker", DockerSettings)),
        hpc=group("hpc", HpcSettings, {} if get(tree, "hpc") is None else tree["hpc"]),
    )


def _check_sections_above(path: str, tree: Tree, origins: Mapping[str, str]) -> None:
    parts = path.split(".")
    for count in range(1, len(parts)):
        section = ".".join(parts[:count])
        value = get(tree, section)
        if value is not None:
            check_section(value, section, origins)


def _holds_credential(text: str) -> bool:
    from hpc_agent.secret_values import holds_credential  # few variables are there to be looked at

    return holds_credential(text)
