"""A registry of container images on loopback, as far as pulling from one goes (OCI distribution API)."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from container_images import Podman
from waiting import HANG_S


@contextmanager
def registry(podman: Podman, image: str, name: str, folder: Path) -> Iterator[tuple[str, dict[str, str], list[str]]]:
    """Serve ``image`` as ``name`` (``lab/tools:1``).

    Yields the reference to pull, variables that let podman pull without TLS, and the paths that were asked for.
    """
    layout = folder / "layout"
    podman.run("save", "--format=oci-dir", f"--output={layout}", image)
    with serving(layout, name) as (host, asked):
        conf = folder / "registries.conf"
        conf.write_text(f'[[registry]]\nlocation = "{host}"\ninsecure = true\n')
        yield f"{host}/{name}", {"CONTAINERS_REGISTRIES_CONF": str(conf)}, asked


@contextmanager
def serving(layout: Path, name: str, gate: threading.Event | None = None) -> Iterator[tuple[str, list[str]]]:
    """Serve the first image of an OCI layout as ``name``, its contents once ``gate`` is set.

    Yields the registry's address and the paths that were asked for.
    """
    manifest = json.loads((layout / "index.json").read_text())["manifests"][0]
    repository, _, tag = name.partition(":")
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            if gate and "/blobs/" in self.path:
                gate.wait(HANG_S)
            self.answer()

        def do_HEAD(self) -> None:
            self.answer()

        def answer(self) -> None:
            digest = manifest["digest"] if self.path.endswith(f"/manifests/{tag}") else self.path.rpartition("/")[2]
            blob = layout / "blobs" / digest.replace(":", "/")
            known = self.path == "/v2/" or (self.path.startswith(f"/v2/{repository}/") and blob.is_file())
            self.send_response(200 if known else 404)
            content = blob.read_bytes() if known and self.path != "/v2/" else b"{}"
            is_manifest = digest == manifest["digest"]
            self.send_header("Content-Type", manifest["mediaType"] if is_manifest else "application/octet-stream")
            self.send_header("Content-Length", str(len(content)))
            self.send_header("Docker-Content-Digest", digest)
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"127.0.0.1:{server.server_port}", asked
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
