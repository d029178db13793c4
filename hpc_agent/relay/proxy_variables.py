"""Variables of the environment by which programs find the relay's proxy on their node. Pure."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping

from hpc_agent.config.settings import AllSettings
from hpc_agent.relay.target import allowed_targets

_PROXIES = ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "all_proxy", "ALL_PROXY")
_EXCEPTIONS = ("no_proxy", "NO_PROXY")
PROXY_VARIABLES = frozenset((*_PROXIES, *_EXCEPTIONS))


def proxy_variables(url: str, settings: AllSettings, environ: Mapping[str, str]) -> dict[str, str]:
    """What runs on the node itself is reached without the proxy, unless the ClearML server has such an address: that is
    then the login node's."""
    servers = {target.host for target in allowed_targets(settings)}
    own = [name for name in ("localhost", "127.0.0.1", "::1") if not any(map(_is_loopback, servers))]
    kept = [word for word in re.split(r"[,\s]+", environ.get("no_proxy") or environ.get("NO_PROXY") or "") if word]
    without = ",".join(dict.fromkeys([*(word for word in kept if word.lstrip(".") not in servers), *own]))
    return {**dict.fromkeys(_PROXIES, url), **dict.fromkeys(_EXCEPTIONS, without)}


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")
