"""git's own http-backend behind a small server that wants a password."""

from __future__ import annotations

import base64
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path


@dataclass
class HttpRemote:
    """git over HTTP for the repositories of a folder; ``password`` is asked for, ``asked`` counts the refusals."""

    url: str
    user: str = "researcher"
    password: str = "pa55 w@rd:/"
    asked: int = 0
    requests: list[str] = field(default_factory=list)
    unavailable: bool = False
    """Answer 503, as a host that is being maintained does."""


@contextmanager
def serve_git(root: Path) -> Iterator[HttpRemote]:
    """Serve the repositories in ``root``, which is made."""
    remote = HttpRemote("")
    root.mkdir()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._serve()

        do_POST = do_GET

        def log_message(self, *_: object) -> None:
            pass

        def _serve(self) -> None:
            remote.requests.append(self.path)
            if remote.unavailable:
                self.send_response(503)
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            wanted = "Basic " + base64.b64encode(f"{remote.user}:{remote.password}".encode()).decode()
            if self.headers.get("Authorization") != wanted:
                remote.asked += 1
                self.send_response(401)
                self.send_header("WWW-Authenticate", 'Basic realm="git"')
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            path, _, query = self.path.partition("?")
            environ = {
                "PATH": "/usr/bin:/bin",
                "GIT_PROJECT_ROOT": str(root),
                "GIT_HTTP_EXPORT_ALL": "1",
                "PATH_INFO": path,
                "QUERY_STRING": query,
                "REQUEST_METHOD": self.command,
                "CONTENT_TYPE": self.headers.get("Content-Type", ""),
                "HTTP_CONTENT_ENCODING": self.headers.get("Content-Encoding", ""),
                "CONTENT_LENGTH": str(len(body)),
                "REMOTE_USER": remote.user,
            }
            # It fails of a commit that it does not have, too, and says so in its answer.
            answer = subprocess.run(["git", "http-backend"], input=body, env=environ, capture_output=True, check=False)
            head, _, content = answer.stdout.partition(b"\r\n\r\n")
            fields = dict(line.split(": ", 1) for line in head.decode().splitlines())
            self.send_response(int(fields.pop("Status", "200").split()[0]))
            for name, value in fields.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    remote.url = f"http://127.0.0.1:{server.server_port}"
    try:
        yield remote
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
