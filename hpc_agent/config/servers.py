"""The addresses of the ClearML servers: checked, completed with those that follow from the API server's."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from urllib.parse import SplitResult, urlsplit, urlunsplit

import msgspec

from hpc_agent.config.clearml_settings import ApiSettings
from hpc_agent.config.parse import origin
from hpc_agent.errors import ConfigError


def completed(api: ApiSettings, origins: Mapping[str, str]) -> ApiSettings:
    """Web and file server next to the API server, as ClearML's own clients guess them.

    See docs/internals/clearml-protocol.md#server-addresses.

    Raises:
        ConfigError: an address is not a URL, or the CA bundle is not there.
    """
    api = msgspec.structs.replace(api, verify_certificate=_bundle(api.verify_certificate, origins))
    if not api.api_server:
        return api
    parts = _split("api.api_server", api.api_server, origins)
    return msgspec.structs.replace(
        api,
        api_server=api.api_server.rstrip("/"),
        web_server=(api.web_server or _sibling(parts, "app.", 8080)).rstrip("/"),
        files_server=(api.files_server or _sibling(parts, "files.", 8081)).rstrip("/"),
    )


def _split(key: str, url: str, origins: Mapping[str, str]) -> SplitResult:
    try:
        parts = urlsplit(url)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:  # a port that is not a number, a bracket without its other half
        usable = False
    if not usable:
        raise ConfigError(f'{origin(key, origins)}: {key} is "{url}", expected a URL such as https://api.clear.ml')
    return parts


def _sibling(parts: SplitResult, prefix: str, port: int) -> str:
    netloc = parts.netloc
    if netloc.startswith("api."):
        netloc = prefix + netloc[len("api.") :]
    elif parts.port == 8008:
        netloc = f"{netloc.rpartition(':')[0]}:{port}"
    return urlunsplit((parts.scheme, netloc, "", "", ""))


def _bundle(verify: bool | str, origins: Mapping[str, str]) -> bool | str:
    if isinstance(verify, bool) or not verify:
        return verify or verify == ""
    path = Path(verify).expanduser()
    if not path.exists():
        key = "api.verify_certificate"
        raise ConfigError(
            f"{origin(key, origins)}: {key} is {verify!r}, expected true, false or the path of a CA bundle that exists"
        )
    return str(path)
