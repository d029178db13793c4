"""Styles and scripts of the page. Their address has a hash of their content, so that browsers keep them for good."""

from __future__ import annotations

import gzip
from dataclasses import dataclass
from functools import cache
from hashlib import sha256
from importlib.resources import files

from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

_TYPES = {".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
_FOLDER = files("hpc_agent.server.page") / "static"


@dataclass(frozen=True)
class StaticFile:
    content: bytes
    """Compressed with gzip, which every browser reads."""
    kind: str
    version: str


@cache
def static_files() -> dict[str, StaticFile]:
    """By name without ``.gz``: the libraries in ``vendor`` lie compressed in the package."""
    found = {}
    for folder in (_FOLDER, _FOLDER / "vendor"):
        for entry in folder.iterdir():
            name = entry.name.removesuffix(".gz")
            kind = _TYPES.get("." + name.rpartition(".")[2])
            if entry.is_file() and kind:
                data = entry.read_bytes()
                content = data if entry.name.endswith(".gz") else gzip.compress(data, mtime=0)
                found[name] = StaticFile(content, kind, sha256(data).hexdigest()[:16])
    return found


def static_address(name: str) -> str:
    """Where the browser finds the file."""
    return f"/static/{static_files()[name].version}/{name}"


async def serve_static(request: Request) -> Response:
    """Open to strangers: the login page needs them, and they are the same on every server."""
    found = static_files().get(request.path_params["name"])
    if found is None or found.version != request.path_params["version"]:
        return PlainTextResponse("There is no such file; load the page again.\n", 404)
    headers = {
        "Content-Encoding": "gzip",
        "Cache-Control": "public, max-age=31536000, immutable",
        "Cross-Origin-Resource-Policy": "same-origin",
    }
    return Response(found.content, media_type=found.kind, headers=headers)
